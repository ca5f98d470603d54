"""The places at which a run can be crashed, and their names: `charge/1:after-effect`.

A spot is a moment and what goes wrong there. The moment's name is made of what
happens (a step, a signal, the start of a workflow …) and of which one of its kind
it is, so that it is the same in each run of the same program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, get_args

from ...core.records import Kind, MessageKind, Record
from ...errors import PerdureError
from ...stores.base import Batch

Fault = Literal[
    "before-effect",
    "after-effect",
    "before-record",
    "after-record",
    "zombie",
    "twice",
    "due-while-down",
    "clock-forward",
    "clock-back",
]
"""What goes wrong; docs/guides/testing.md says what each means."""

FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)
DEATHS: Final[tuple[Fault, ...]] = ("before-effect", "after-effect", "before-record", "after-record")
"""The worker dies: what pairs are made of."""

_MEANINGS: Final[dict[Fault, str]] = {
    "before-effect": "The worker died when {} was about to be called.",
    "after-effect": "The worker died when {} had come to its end, and what came of it was not on disk yet.",
    "before-record": "The worker died before {} was on disk.",
    "after-record": "The worker died when {} was on disk, and nobody had heard of it yet.",
    "zombie": "The worker stood still before {} was on disk, another took over, and then it woke up.",
    "twice": "{} was done twice, with the same id.",
    "due-while-down": "The worker died at {}, and what it waited for was due when the next one came.",
    "clock-forward": "The clock was set forward before {} was on disk.",
    "clock-back": "The clock was set back an hour before {} was on disk.",
}

_SENT: Final = {
    MessageKind.SIGNAL: "send-",
    MessageKind.UPDATE: "ask-",
    MessageKind.CANCEL: "send-cancel",
    MessageKind.CHILD_ENDED: "child-end",
}


class Spot(NamedTuple):
    """One moment, and one fault."""

    moment: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.moment}:{self.fault}"

    def explain(self) -> str:
        """What happened there, for a person."""
        return _MEANINGS[self.fault].format(f"'{self.moment}'")


def read_spots(text: str) -> tuple[Spot, ...]:
    """Read `charge/1:after-effect`, or several with commas between. Raises PerdureError for anything else."""
    spots: list[Spot] = []
    for part in text.split(","):
        moment, _, fault = part.strip().rpartition(":")
        if not moment or fault not in FAULTS:
            raise PerdureError(
                f"{part.strip()!r} names no crash.",
                hint=f"Write moment:kind, as in 'charge/1:after-effect'; the kinds are {', '.join(FAULTS)}.",
            )
        spots.append(Spot(moment, fault))
    return tuple(spots)


def write_spots(spots: Sequence[Spot]) -> str:
    """As `read_spots` reads them."""
    return ", ".join(str(spot) for spot in spots)


class Names:
    """Names moments in the order in which they come; made anew for each crash run."""

    def __init__(self, subscription: Callable[[int], str] = str) -> None:
        """`subscription` gives `orders/ship` for the number of one."""
        self._counts = Counter[str]()
        self._calls: dict[tuple[int, str], str] = {}
        self._subscription = subscription

    def count(self, what: str) -> str:
        """`approval/1`, then `approval/2` …"""
        self._counts[what] += 1
        return f"{what}/{self._counts[what]}"

    def of_call(self, run: int, key: str, attempt: int = 1) -> str:
        """A step's or child's call: the same name in each life; `flaky/1~2` is its second attempt."""
        name = self._calls.get((run, key))
        if name is None:
            name = self._calls[run, key] = self.count(_name_in(key))
        return name if attempt == 1 else f"{name}~{attempt}"

    def of_batch(self, batch: Batch) -> str:
        """What a commit is about; empty for one of mere upkeep."""
        if batch.records:
            return self._of_record(min(batch.records, key=_steps_first))
        if batch.handlings:
            handling = batch.handlings[0]
            return self.of_event(handling.subscription, handling.position)
        if batch.starts:
            return self.count(f"start-{batch.starts[0].workflow}")
        if batch.ends:
            return self.count("end")
        if batch.messages:
            message = batch.messages[0]
            sent = _SENT.get(MessageKind(message.kind), "send-")
            return self.count(sent + message.name if sent.endswith("-") else sent)
        if batch.replies:
            return self.count("answer")
        if batch.states:
            return self.count(f"state-{batch.states[0].name}")
        if batch.attempts:
            return self.count(f"attempt-{_name_in(batch.attempts[0].key)}")
        return self._of_streams(batch) or (self.count("wake") if batch.wakes else "")

    def _of_streams(self, batch: Batch) -> str:
        """What a commit is about that has to do with events alone."""
        if batch.appends:
            return self.count(f"append-to-{batch.appends[0].stream}")
        for what, kept in (
            ("windows", batch.windows),
            ("parked", batch.dead),
            ("done", batch.lanes),
            ("watch", batch.watches),
        ):
            if kept:
                return self.count(f"{what}-{self._subscription(kept[0].subscription)}")
        return ""

    def of_event(self, subscription: int, position: int) -> str:
        """`orders/ship/3`: what handler `ship` does with the third event of stream `orders`."""
        return f"{self._subscription(subscription)}/{position}"

    def _of_record(self, record: Record) -> str:
        kind = record.kind
        if kind in _ANSWERS:
            return self.of_call(record.run, record.key)
        if kind == Kind.TICK:
            return self.count("timer")
        if kind == Kind.CHILD_STARTED:
            return self.count(f"started-{_name_in(record.key)}")
        if kind == Kind.CANCEL:
            return self.count("cancel")
        if kind == Kind.PATCH:
            return self.count(f"patch-{record.key}")
        return self.count(record.key.rpartition("/")[0] if kind == Kind.UPDATE else record.key)


_STEPS: Final = (Kind.STEP, Kind.STEP_FAILED)
_ANSWERS: Final = (*_STEPS, Kind.CHILD, Kind.CHILD_FAILED)


def _steps_first(record: Record) -> int:
    return 0 if record.kind in _STEPS else 1


def is_one_effect(batch: Batch) -> bool:
    """Whether a commit is of one step or handler and of nothing else: then its effect is the only one."""
    if batch.handlings:
        return len(batch.handlings) == 1 and not batch.records
    return len(batch.records) == 1 and batch.records[0].kind in _STEPS


def _name_in(key: str) -> str:
    """`charge` of `0/3/charge`."""
    return key.removesuffix("/end").split("/", 2)[-1]
