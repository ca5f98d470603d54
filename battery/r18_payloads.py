"""Row 18: payloads that are awkward: at the limit, past it, or not JSON at all.

A fixed corpus goes through a real engine: a step returns the value, the engine is
killed, and the next one reads it. What cannot be kept is refused by name when it is
given, and never comes back as something else. Then Hypothesis makes values, which
go through the codec and the store's rows, at the border of a row and a blob too.
"""

from __future__ import annotations

import asyncio
import json
import math
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from perdure import Run, step, workflow
from perdure.codec.json import MAX_PAYLOAD, decoder, encode
from perdure.core.records import Kind, NewRun, Record
from perdure.errors import NotSerialisable, RunFailed
from perdure.stores.base import Batch
from perdure.stores.sqlite import SqliteStore
from perdure.stores.sqlite.blobs import INLINE_BYTES_MAX
from perdure.testing import Harness
from perdure.testing.disk import FaultyDisk

from .life import what_was_noticed
from .row import Control, Counted, Row, Trials, Work

_EXAMPLES = 100
_QUOTES = 2


def _nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


def _circle() -> object:
    circle: list[object] = []
    circle.append(circle)
    return circle


KEPT: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "empty text": lambda: "",
    "empty bytes": lambda: b"",
    "empty list": list,
    "2^53 + 1": lambda: 2**53 + 1,
    "2^63 - 1": lambda: 2**63 - 1,
    "-2^63": lambda: -(2**63),
    "2^64 - 1": lambda: 2**64 - 1,
    "a small float": lambda: 5e-324,
    "minus zero": lambda: -0.0,
    "a null character": lambda: "a\x00b",
    "any plane": lambda: "é\u2028\U0001f600",
    "a row's largest": lambda: "x" * (INLINE_BYTES_MAX - _QUOTES),
    "a blob's smallest": lambda: "x" * (INLINE_BYTES_MAX - _QUOTES + 1),
    "200 levels": lambda: _nested(199),
    "limit - 1": lambda: "x" * (MAX_PAYLOAD - _QUOTES - 1),
    "limit": lambda: "x" * (MAX_PAYLOAD - _QUOTES),
}
REFUSED: dict[str, Callable[[], object]] = {
    "limit + 1": lambda: "x" * (MAX_PAYLOAD - _QUOTES + 1),
    "not a number": lambda: math.nan,
    "infinity": lambda: [1.0, math.inf],
    "minus infinity": lambda: {"a": -math.inf},
    "a lone surrogate": lambda: "\ud800",
    "a surrogate key": lambda: {"\udfff": 1},
    "100,000 levels": lambda: _nested(100_000),
    "a circle": _circle,
    "keys that are one as text": lambda: {1: "a", "1": "b"},
    "a function": lambda: print,
}
chosen = ""


@step
async def returns_it() -> Any:
    return (KEPT | REFUSED)[chosen]()


@workflow
async def passes_it_on() -> Any:
    return await returns_it()


def run(work: Work) -> Counted:
    totals = Counter[str]()
    names = [*KEPT, *REFUSED]

    def trial(seed: int, folder: Path) -> None:
        if seed < len(names):
            asyncio.run(_through_engine(names[seed], folder))
            totals["values of the corpus"] += 1
        else:
            _made_up(seed, folder)
            totals["values made up"] += _EXAMPLES

    counted = work.counted(trial, controls=_controls, figures=totals)
    return Counted(
        totals["values of the corpus"] + totals["values made up"],
        counted.failures, counted.controls, counted.notes, totals,
    )  # fmt: skip


async def _through_engine(name: str, folder: Path) -> None:
    global chosen  # noqa: PLW0603 (a recorded step has no other way to a value that cannot be an argument)
    chosen = name
    before = _peak_bytes()
    async with Harness(folder / "runs.db", workflows=[passes_it_on]) as harness:
        run = await harness.start(passes_it_on(), id="one")
        if name in REFUSED:
            refusal = await _refusal(run)
            assert isinstance(refusal, NotSerialisable), f"{name}: {refusal!r}"
            assert "returns_it" in str(refusal), f"{name}: the error does not name the step"
            return
        await run.result()
        await harness.crash()
        found = await (await harness.get("one", passes_it_on)).result()
    expected = KEPT[name]()
    expected = json.loads(json.dumps(expected)) if not isinstance(expected, bytes) else ""
    assert found == expected, f"{name} came back as {str(found)[:100]}"
    assert math.copysign(1, found) == -1 if name == "minus zero" else True, "minus zero came back as zero"
    grown = _peak_bytes() - before
    assert grown < 16 * MAX_PAYLOAD, f"{name}: {grown:,} bytes of memory"


async def _refusal(run: Run[Any]) -> BaseException | None:
    """Why a run failed; None when it did not."""
    try:
        await run.result()
    except RunFailed as error:
        return error.__cause__
    return None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
_sizes = st.integers(0, 2_000) | st.integers(INLINE_BYTES_MAX - 2, INLINE_BYTES_MAX + 2)


def _made_up(seed: int, folder: Path, change: Callable[[bytes], bytes] = lambda data: data) -> None:
    """Each value is refused by name, or comes back equal; so do bytes through the rows of a store."""
    with FaultyDisk():
        store = SqliteStore(folder / "runs.db")
        lease = store.acquire("w", now_ms=0, ttl_ms=10_000)
        new = NewRun("one", "w", b"1", b"s" * 16, 1, "3.11")
        number = store.commit(lease, Batch(starts=[new])).starts[0].run.number
        written: list[bytes] = []

        @hypothesis.seed(seed)
        @hypothesis.settings(max_examples=_EXAMPLES, database=None, deadline=None)
        @hypothesis.given(_values, _sizes)
        def check(value: object, size: int) -> None:
            try:
                data = encode(value, "value")
            except NotSerialisable:
                _expect_reason(value)
                data = b"x" * size
            else:
                assert decoder(Any)(change(data)) == value, f"{value!r} came back as something else"
            written.append(data)
            record = Record(len(written) - 1, Kind.STEP, "k", 0, 1, data, number)
            store.commit(lease, Batch(records=[record]))

        try:
            check()
            assert [record.payload for record in store.records(number)] == written, "the store changed bytes"
        finally:
            store.close()


def _expect_reason(value: object) -> None:
    """A value may be refused only for what JSON cannot hold."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:  # UnicodeEncodeError is one
        return
    assert _has_large_number(value), f"{value!r} was refused, and JSON can hold it"


def _has_large_number(value: object) -> bool:
    match value:
        case bool():
            return False
        case int():
            return not -(2**63) <= value < 2**64
        case list():
            return any(map(_has_large_number, value))
        case dict():
            return any(map(_has_large_number, value.values()))
        case _:
            return False


def _controls(work: Work) -> Sequence[Control]:
    def lossy(seed: int) -> None:
        with work.fresh_folder("control") as folder:
            _made_up(seed, folder, lambda data: data.replace(b"1", b"2"))

    noticed = what_was_noticed(lossy, range(2))
    return [
        Control("a codec that changes a digit", len(noticed) == 2, f"noticed in {len(noticed)} of 2 trials")
    ]


ROW = Row(
    18,
    "awkward payloads",
    fault="Values at the limits and past them: size, depth, numbers, text that is no text.",
    how="A corpus through a real engine that is killed; values of Hypothesis through codec and rows.",
    holds=[
        "a value comes back equal, or is refused by name when it is given",
        "the borders of row, blob and limit are exact",
        "memory stays below 16 times the limit",
    ],
    trials=Trials(push=len(KEPT) + len(REFUSED) + 20, long=200, release=2_000),
    run=run,
)
