"""The command line in a folder, as for the other faces, and stores with runs of one version of code."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from perdure.faces.cli.loading import workflows_of
from perdure.testing import Harness
from tests.faces.conftest import Perdure, perdure, project, spawn

__all__ = ["OLD", "Perdure", "Version", "begin", "check", "perdure", "project", "spawn", "version"]

HEAD = """
import asyncio
from dataclasses import dataclass
from perdure import Retry, Signal, State, Update, patched, start_child, step, workflow

paid = Signal[str]("paid")

@dataclass
class Receipt:
    order: str
    cents: int

@step
async def charge(order: str, cents: int = 100) -> Receipt:
    return Receipt(order, cents)

@step
async def ship(order: str) -> str:
    return f"{order} shipped"

@step
async def notify(order: str) -> None: ...

"""
OLD = """
@workflow
async def fulfil(order: str) -> str:
    receipt = await charge(order)
    done = await ship(order)
    await paid.receive()
    return done
"""
Version = Callable[..., Any]


@pytest.fixture
def version(project: Path) -> Iterator[Version]:
    """Writes `app.py` with this code, its first `before` made `after`, and imports it anew."""

    def write(code: str, *, before: str = "", after: str = "") -> Any:
        sys.modules.pop("app", None)
        text = (HEAD + dedent(code)).replace(before, after, 1)
        (project / "app.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        # What was compiled a moment ago of a file of the same size and second would be taken.
        for compiled in (project / "__pycache__").glob("app.*"):
            compiled.unlink()
        sys.path.insert(0, str(project))
        return importlib.import_module("app")

    yield write
    sys.modules.pop("app", None)


def begin(module: Any, *ids: str, path: str = "perdure.db") -> None:
    """Start a run of each workflow of a module for each id, and stop when they wait."""

    async def work() -> None:
        async with Harness(path, workflows=workflows_of(module).values()) as t:
            for definition in workflows_of(module).values():
                for id in ids:
                    await t.start(definition(id), id=f"{definition.name}-{id}" if len(ids) > 1 else id)
            await t.settle()

    asyncio.run(work())


def check(perdure: Perdure, *options: str) -> dict[str, Any]:
    """What `deploy-check` says of `app.py`, its exit code looked at."""
    answer = perdure("deploy-check", "app.py", "--json", *options)
    assert answer.code in (0, 1), answer.err
    assert answer.code == (1 if answer.json["groups"] else 0)
    found: dict[str, Any] = answer.json
    return found
