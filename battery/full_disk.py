"""A worker on a disk that fills up, in a process of its own; prints what it saw as JSON.

`python -m battery.full_disk FOLDER [busy]`: FOLDER is a small file system. `busy` is
the control's: an engine that tries again without a pause.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

from perdure import Engine, StoreFull, step, step_info, workflow
from perdure.runtime import committer
from perdure.stores.sqlite import SqliteStore

RUNS = 6
STEPS = 40
PAYLOAD = 20_000
WATCHED_S = 1.5

full = asyncio.Event()
effects: list[str] = []


class _HearsOfFullness(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "is full" in record.getMessage():
            full.set()


@step
async def writes_much() -> str:
    effects.append(step_info().idempotency_key)
    return "x" * PAYLOAD


@workflow
async def fills() -> int:
    return sum([len(await writes_much()) for _ in range(STEPS)])


async def main(folder: Path, *, busy: bool) -> dict[str, object]:
    if busy:
        assert committer._FIRST_WAIT_S > 0
        committer._FIRST_WAIT_S = committer._LONGEST_WAIT_S = 0.0
    logging.getLogger("perdure").addHandler(_HearsOfFullness())
    url = f"sqlite:///{folder / 'runs.db'}"
    async with Engine(url) as engine:
        runs = [await engine.start(fills(), id=f"run-{n}") for n in range(RUNS)]
        await asyncio.wait_for(full.wait(), 30)
        used, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(WATCHED_S)
        share = (time.process_time() - used) / (time.perf_counter() - began)
        try:
            await engine.start(fills(), id="late")
            told = "nothing"
        except StoreFull:
            told = "StoreFull"
        subprocess.run(["mount", "-o", "remount,size=40m", str(folder)], check=True)  # noqa: ASYNC221
        results = await asyncio.wait_for(asyncio.gather(*(run.result() for run in runs)), 60)
        late = [view.id for view in (await engine.list()).runs if view.id == "late"]
    store = SqliteStore(url)
    wrongs = list(store.check())
    store.close()
    return {
        "cpu_percent": 100 * share, "told": told, "late": late, "results": results, "wrongs": wrongs,
        "effects": len(effects), "keys": len({*effects}),
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(asyncio.run(main(Path(sys.argv[1]), busy="busy" in sys.argv)), sys.stdout)
