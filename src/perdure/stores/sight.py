"""What a worker sees when it glances at the store: whether it is worth looking closer."""

from __future__ import annotations

from typing import NamedTuple


class Sight(NamedTuple):
    """A hint: what it says no to may be there the next moment, what it says yes to may be gone."""

    runs: bool
    """Whether there may be something to claim, or a lease to end."""
    messages: bool
    """Whether something may have been sent to the runs of this lease."""
    events: bool = False
    """Whether there may be events that were not read, lanes to claim or to give up, a lease to end, or a
    subscription that stands otherwise."""
    awaited: bool = False
    """Whether there may be events to give to runs that wait for them."""


class Reading(NamedTuple):
    """How far a worker has read a stream for one of its subscriptions."""

    subscription: int
    stream: str
    after: int
    """Up to this position; past all where it has no lane of it."""
    is_whole: bool = False
    """Whether the subscription's lanes are not shared among workers."""
    edition: int = 0
    """Of the subscription, as the worker knows it."""
