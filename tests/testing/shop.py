"""Workflows that another process can import, for crashes of real processes. Effects are lines in files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from perdure import Signal, Update, step, step_info, workflow
from perdure.core.execution import Execution

approval = Signal[str]("approval")
move = Update[str, str]("move")
_FOLDER = "SHOP_FOLDER"
FORGETFUL = "SHOP_FORGETS"
prices: dict[str, int] = {}


def fresh_folder(folder: Path) -> Path:
    """An empty folder for the effects, known to this process and its children."""
    for file in folder.glob("*"):
        file.unlink()
    os.environ[_FOLDER] = str(folder)
    return folder


def effects(name: str) -> list[str]:
    """The lines of one file."""
    file = Path(os.environ[_FOLDER]) / name
    return file.read_text().splitlines() if file.exists() else []


def _add(name: str, line: str) -> None:
    with (Path(os.environ[_FOLDER]) / name).open("a") as file:
        file.write(f"{line}\n")


@step
async def charge(order: str) -> str:
    _add("charges", order)
    return f"receipt {order}"


@step
def charge_by_key(order: str) -> str:
    key = step_info().idempotency_key
    if key not in effects("charges"):
        _add("charges", key)
    return f"receipt {order}"


@step
async def look_up_price(order: str) -> None:
    prices[order] = 100


@step
async def bill(order: str) -> int:
    return prices[order]


@workflow
async def careless(order: str) -> str:
    return await charge(order)


@workflow
async def careful(order: str) -> list[str]:
    moved: list[str] = []

    async def on_move(address: str) -> str:
        moved.append(address)
        return "moved"

    move.handle(on_move)
    receipt = await charge_by_key(order)
    await asyncio.sleep(86_400)
    return [receipt, await approval.receive(), *moved]


@workflow
async def keeps_a_price_in_a_global(order: str) -> int:
    await look_up_price(order)
    return await bill(order)


if os.environ.get(FORGETFUL):
    # A fault of the engine, for processes that a test starts: nothing that is on disk is taken up.
    Execution.replay = lambda self, records: None  # type: ignore[method-assign]
