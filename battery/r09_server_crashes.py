"""Row 9: the PostgreSQL server crashes, or breaks connections, while workers commit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from perdure.stores.postgres.link import Link

from .fleet import Fleet, told_by
from .planted import replaced
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server

_STRIKES = 6
_EFFECTS_BETWEEN = 15
_SEEDS_FOR_A_CONTROL = 5
_PLANTED = "`synchronous_commit` is off"
_RESTART, _KILL, _BREAK = _WAYS = (
    "restart -m immediate",
    "kill -9 of a backend",
    "pg_terminate_backend in a COMMIT",
)
_LONGEST = "s to the next effect, at worst"


def _run(work: Work, server: Server) -> Counted:
    struck = _nothing_yet()
    # Commits take a millisecond longer, as on a slower disk: else none is ever met in its middle.
    server.set("commit_delay", "1000")
    server.set("commit_siblings", "0")

    def trial(seed: int, folder: Path) -> None:
        _strike_again_and_again(server, seed, folder, struck)

    def controls(work: Work) -> Sequence[Control]:
        broken = ""
        for seed in range(_SEEDS_FOR_A_CONTROL):
            with work.fresh_folder() as folder, not_waiting_for_the_disk():
                play = partial(_strike_again_and_again, server, seed, folder, _nothing_yet())
                broken = told_by(partial(play, store="control"))
            if broken:
                break
        return [Control(_PLANTED, bool(broken), broken or "nothing")]

    return work.counted(trial, controls=controls, figures=struck)


def _nothing_yet() -> dict[str, float]:
    return dict.fromkeys((*_WAYS, _LONGEST), 0)


def _strike_again_and_again(
    server: Server, seed: int, folder: Path, struck: dict[str, float], *, store: str = "trial"
) -> None:
    draw = chance(seed)
    fleet = Fleet(folder, server.store_url(f"{store}_{seed}"))
    try:
        ways = list(_WAYS) * (_STRIKES // len(_WAYS))
        draw.shuffle(ways)
        for way in ways:
            fleet.live_until_effects(draw.randrange(1, _EFFECTS_BETWEEN))
            struck[way] += _strike(server, way, draw)
            fleet.witness.look()
            longest_s = max(struck[_LONGEST], fleet.live_until_effects(1))
            struck[_LONGEST] = longest_s
        fleet.come_to_the_end()
    finally:
        fleet.end()


def _strike(server: Server, way: str, draw: Random) -> bool:
    """Whether there was something to strike at."""
    if way == _RESTART:
        server.crash_and_start()
        return True
    return server.kill_a_backend(draw) if way == _KILL else server.end_a_commit()


def not_waiting_for_the_disk() -> AbstractContextManager[None]:
    """Commits are acknowledged before they are on disk, by every connection that is made."""
    before = Link.__init__

    def hurry(self: Link, *arguments: Any) -> None:
        before(self, *arguments)
        self.do("SET synchronous_commit = off")

    return replaced(Link, __init__=hurry)


ROW = Row(
    number=9,
    name="server crashes",
    fault="The PostgreSQL server crashes, or breaks connections off, while two workers commit.",
    how="`pg_ctl restart -m immediate`, SIGKILL of a backend, and pg_terminate_backend in the middle of a "
    "COMMIT, at random instants, six in each trial.",
    holds=(
        "nothing acknowledged is lost, and nothing is written twice",
        "a step on record is not done again, and one that is interrupted has the same idempotency key",
        "the workers go on by themselves",
        "every run comes to its right end",
    ),
    trials=Trials(push=1, long=100, release=500),
    run=with_a_server(_run),
)
