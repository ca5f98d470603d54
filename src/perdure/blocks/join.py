"""`Joined`, and what makes it of two streams: `Join`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

from ..codec.json import encode
from ..core.events import EventPage, EventRow, NewEvent, SubscriptionRow
from ..core.joins import JoinRules, Pair
from ..core.positions import position_text
from ..core.retry import Retry
from ..core.windows import Missed, WindowRow
from ..errors import DefinitionError
from ..runtime.joiner import JoinDefinition, Joiner
from ..runtime.subscriptions import Served
from ..runtime.windower import Result
from ..stores.base import Store
from .event import event, moment
from .handler import Handler, Source, page_of
from .options import Seconds, as_text, to_ms
from .window import Lates, Results, late_event, time_rules

if TYPE_CHECKING:
    from ..runtime.driver import Driver

L = TypeVar("L")
R = TypeVar("R")

Unmatched = Literal["none", "left", "right", "both"]
_UNMATCHED = {"none": (False, False), "left": (True, False), "right": (False, True), "both": (True, True)}


@event("joined")
@dataclass(frozen=True, slots=True)
class Joined(Generic[L, R]):
    """Two events of a key that happened within a time of each other: an event of `Join.results`."""

    key: str
    left: L | None
    """None if there was none, where it is asked for those without a partner."""
    right: R | None
    left_time: datetime | None
    """When it happened."""
    right_time: datetime | None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two streams: its name, the type of event, and how that is read."""

    stream: str
    type: str
    source: Source
    has_key: bool


class Join(Handler[Any], JoinDefinition, Generic[Results, Lates]):
    """A join of two streams; made by `Stream.join`."""

    results: Results
    """The stream of its pairs: events of type `Joined`."""
    late: Lates
    """The stream of events that came too late, or whose time cannot be: events of type `Late`."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        *,
        name: str,
        within: Seconds,
        unmatched: Unmatched,
        out_of_order: Seconds,
        idle_after: Seconds | None,
        max_future_skew: Seconds,
        streams: tuple[Results, Lates],
    ) -> None:
        left, right = self._sides = sides
        where = f"{left.stream}.join({name!r})"
        for side in sides:
            if not side.has_key:
                raise DefinitionError(
                    f"{where}: stream {side.stream!r} has no key, and pairs are of one key."
                )
        if unmatched not in _UNMATCHED:
            raise DefinitionError(f"{where}: unmatched={unmatched!r} is none of {', '.join(_UNMATCHED)}.")
        times = time_rules(
            where, out_of_order=out_of_order, idle_after=idle_after, max_future_skew=max_future_skew
        )
        self.join_rules = JoinRules(
            **times, within_ms=to_ms(within, f"{where}: within") or 0, unmatched=_UNMATCHED[unmatched]
        )
        self.results, self.late = streams
        self._where = where
        super().__init__(
            left.stream, _refuse, types=frozenset({left.type}), source=left.source,
            name=as_text(name, "A join's name"), concurrency=1, order="stream", retry=_ONCE, from_start=True,
        )  # fmt: skip
        self.other = right.stream

    def check(self, store: Store) -> None:
        """Raise DefinitionError if events that either stream keeps cannot be read."""
        for side in self._sides:
            side.source.check_chains(store)

    def serve(self, driver: Driver, row: SubscriptionRow) -> Served:
        """Pair events in this worker; for the runtime."""
        return Joiner(driver, self, row)

    def side_page(self, side: int, store: Store, *, after: int, limit: int) -> EventPage:
        of = self._sides[side]
        return page_of(of.source, of.stream, store, after=after, limit=limit)

    def takes(self, side: int, event: EventRow) -> bool:
        return event.type == self._sides[side].type

    def state(self, side: int, event: EventRow) -> bytes:
        return encode(self._sides[side].source.versions.decode(event), f"{self._where}: event")

    def paired(self, pair: Pair, now_ms: int) -> Result:
        left, right = pair.left, pair.right
        # Not read again: what was written is what it waited as.
        payload = msgspec.json.encode(
            {
                "key": pair.key,
                "left": _raw(left),
                "right": _raw(right),
                "left_time": None if left is None else moment(left.start_ms),
                "right_time": None if right is None else moment(right.start_ms),
            }
        )
        times = [row.start_ms for row in (left, right) if row is not None]
        name = "/".join("" if row is None else position_text(row.place // 2) for row in (left, right))
        source = f"{self.stream}/{self.name}"
        return self.results.name, NewEvent(
            name, source, "joined", 1, pair.key, max(times), now_ms, "", payload, True
        )

    def aside(self, side: int, event: EventRow, missed: Missed, now_ms: int) -> Result:
        source = f"{self._sides[side].stream}/{self.name}"
        return self.late.name, late_event(event, missed, event.time_ms, now_ms, source=source)

    def __repr__(self) -> str:
        return f"<join {self.name} of streams {self.stream} and {self.other}>"


_ONCE = Retry(attempts=1)


def _raw(row: WindowRow | None) -> msgspec.Raw | None:
    return None if row is None or row.state is None else msgspec.Raw(row.state)


def _refuse(event: Any) -> None:
    raise AssertionError("a join is no handler")
