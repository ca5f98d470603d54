"""A worker on a machine whose clock is an hour off: on a server all go by the server's clock."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from perdure import Client, Engine, RunStatus
from tests.runtime.wrong_clock import sleeps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libfaketime is loaded on Linux"),
]


def environment(hours: str) -> dict[str, str]:
    """A process with this finds the wall clock off by that, and the monotonic one as it is."""
    spec = find_spec("libfaketime")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return {
        **os.environ, "LD_PRELOAD": str(library), "FAKETIME": hours, "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }  # fmt: skip


@pytest.mark.parametrize(("hours", "off"), [("+1h", 3_600), ("-1h", -3_600)])
async def test_timers_fire_by_the_clock_of_the_server_and_a_warning_names_the_difference(
    postgres_url: str, hours: str, off: int
) -> None:
    async with Engine(postgres_url, workflows=[sleeps]) as right:
        for id, seconds in (("long", 3_000.0), ("short", 0.5)):
            await right.start(sleeps(seconds), id=id)

    command = [sys.executable, "-m", "tests.runtime.wrong_clock", postgres_url]
    process = await asyncio.to_thread(
        subprocess.run, command, env=environment(hours), capture_output=True, text=True, timeout=60
    )

    assert process.returncode == 0, process.stderr
    skew_s, slept_s = (float(said) for said in process.stdout.split())
    assert abs(skew_s - off) < 60
    assert 0.5 <= slept_s < 60
    warned = re.search(r"clock is off by (\S+) s from that of store .*; the store's is used", process.stderr)
    assert warned is not None
    assert abs(float(warned[1]) - off) < 60
    async with Client(postgres_url) as client:
        assert await (await client.get("long")).status() is RunStatus.RUNNING
        short = await (await client.get("short")).info()
        fresh = await (await client.get("fresh")).info()
    assert fresh.created_at >= short.created_at
    assert (fresh.created_at - short.created_at).total_seconds() < 60
