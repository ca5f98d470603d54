"""Row 11: the network between a worker and the server stands still, breaks, is slow, or goes one way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

from .fleet import Fleet, told_by
from .planted import without_the_fence_on_postgres
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server
from .ways import Way, Weather

_LEASE_MS = 400
_LONGEST_S = 2 * _LEASE_MS / 1_000
_EFFECTS_BETWEEN = 8
_FLAPS = 6
_SEEDS_FOR_A_CONTROL = 10
_PATIENCE_OF_A_CONTROL_S = 8.0
_WEATHERS = (Weather.CUT, Weather.DEAF, Weather.MUTE, Weather.SLOW, Weather.BROKEN)


def _run(work: Work, server: Server) -> Counted:
    figures = {"cuts": 0.0, "s from the end of a cut to the next effect, at worst": 0.0}

    def trial(seed: int, folder: Path) -> None:
        _cut_again_and_again(server, f"trial_{seed}", seed, folder, figures)

    def controls(work: Work) -> Sequence[Control]:
        broken = ""
        for seed in range(_SEEDS_FOR_A_CONTROL):
            with work.fresh_folder() as folder, without_the_fence_on_postgres():
                play = partial(_cut_again_and_again, server, f"control_{seed}", seed, folder, dict(figures))
                broken = told_by(partial(play, patience_s=_PATIENCE_OF_A_CONTROL_S))
            if broken:
                break
        return [Control("a commit does not look at the fence", bool(broken), broken or "nothing")]

    return work.counted(trial, controls=controls, figures=figures)


def _cut_again_and_again(
    server: Server,
    schema: str,
    seed: int,
    folder: Path,
    figures: dict[str, float],
    *,
    patience_s: float = 40.0,
) -> None:
    """One worker behind a network of that kind, and one that is well."""
    draw = chance(seed)
    url = server.store_url(schema)
    way = Way(server, folder)
    fleet = Fleet(folder, url, ways=[way.url(schema), url], lease_ms=_LEASE_MS, patience_s=patience_s)
    cuts, longest = figures
    try:
        weathers = [*_WEATHERS, "flaps"]
        draw.shuffle(weathers)
        for weather in weathers:
            fleet.live_until_effects(draw.randrange(1, _EFFECTS_BETWEEN))
            _have(weather, way, fleet, draw)
            fleet.witness.look()
            figures[longest] = max(figures[longest], fleet.live_until_effects(1))
            figures[cuts] += 1
        fleet.come_to_the_end()
    finally:
        fleet.end()
        way.end()


def _have(weather: object, way: Way, fleet: Fleet, draw: Random) -> None:
    """Have that weather for a while; then it is clear, and what was under way is lost or comes through."""
    if isinstance(weather, Weather):
        way.weather = weather
        fleet.live_for(draw.random() * _LONGEST_S)
        if draw.random() < 0.5:
            _reset_all(way, fleet)
        way.weather = Weather.CLEAR
        return
    for _ in range(_FLAPS):
        fleet.live_for(draw.random() * _LONGEST_S / 10)
        _reset_all(way, fleet)
        way.weather = Weather.CLEAR


def _reset_all(way: Way, fleet: Fleet) -> None:
    way.weather = Weather.BROKEN
    fleet.live_for(0.02)


ROW = Row(
    number=11,
    name="network cut",
    fault="The network between a worker and the PostgreSQL server stands still, carries one way only, is "
    "slow, resets connections, or comes and goes; another worker has a network that is well.",
    how="A proxy, each kind once in a trial, for up to two leases; afterwards what was under way comes "
    "through, or its connections are reset.",
    holds=(
        "nothing acknowledged is lost, and nothing is written twice",
        "a step on record is not done again: who lost the lease meanwhile writes nothing",
        "both workers go on by themselves",
        "every run comes to its right end",
    ),
    trials=Trials(push=1, long=150, release=1_500),
    run=with_a_server(_run),
)
