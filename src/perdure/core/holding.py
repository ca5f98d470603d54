"""What a shadow of a handler does through Perdure: written down, and not done.

While its function runs, in its task and all that it begins, `held_here` gives the list to which everything
goes that would write to the store. Who would write asks for that first.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from .events import Append, Placed
from .records import Message, MessageKind, NewRun


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a handler would have done."""

    kind: Literal["append", "start", "send"]
    where: str
    """The stream, the workflow, or the number of the run."""
    id: str
    """Of the event or the run; empty: it was to be drawn."""
    source: str
    """Of the event."""
    type: str
    """Of the event; or the name of the signal, or `cancel`, `terminate` or `resume`."""
    key: str
    """Of the event."""
    data: str
    """The event, the input or the signal's value, as JSON."""


class Holding:
    """What one attempt would have done, in order."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.drawn: set[str] = set()
        """Ids that were drawn for it: what has one of them was given none."""

    def append(self, append: Append) -> list[Placed]:
        """Events would be appended. They have no place."""
        for one in append.events:
            name = one.id if one.is_resent else ""
            self._note("append", append.stream, name, one.source, one.type, one.key, one.payload)
        return [Placed(0, False) for _ in append.events]

    def start(self, new: NewRun, *, is_named: bool) -> None:
        """A run would be started; `is_named`: by an id that the handler gave."""
        self._note("start", new.workflow, new.id if is_named else "", "", "", "", new.input)

    def send(self, message: Message) -> None:
        """A signal would be sent; or that a run is to be cancelled, say."""
        kind = MessageKind(message.kind)
        what = message.name if kind is MessageKind.SIGNAL else kind.name.lower()
        self._note("send", str(message.run), message.request, "", what, "", message.payload or b"null")

    def _note(
        self,
        kind: Literal["append", "start", "send"],
        where: str,
        id: str,
        source: str,
        type: str,
        key: str,
        data: bytes,
    ) -> None:
        self.effects.append(Effect(kind, where, id, source, type, key, data.decode()))


held_here: ContextVar[Holding | None] = ContextVar("perdure_held_here", default=None)
"""Set while the function of a shadow runs, and nowhere else."""
