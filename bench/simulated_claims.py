"""`python -m bench.simulated_claims`: what many workers ask of one PostgreSQL server, simulated.

A thousand machines are not at hand; what one of them asks is known, and how long the server takes
for it was measured. Here workers look, claim, renew and die in simulated time, in front of a server
with so many cores, first come, first served. Nothing of Perdure runs. The same seed gives the
same figures. What follows from them: docs/internals/internet-scale.md.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from .measure import percentile

# Measured on one core, round trip included, with a server that does nothing else: so these are upper bounds.
LOOK_MS = 0.37
"""A look for runs that finds nothing, without the leases."""
LEASES_MS, LEASE_MS = 0.05, 0.0015
"""To see who is alive: the statement, and for each worker a row and a lock that is tried."""
MESSAGES_MS = 0.15
CLAIM_MS, CLAIMED_MS = 1.0, 0.02
"""A claim, and each run that it takes."""
SUBMIT_MS = 0.5
WAKE_MS = 0.02
"""What it costs the server to tell one listener."""
TELL_LOCK_MS = 0.1
"""How long who tells holds the server's one lock for that."""
RENEW_MS = 0.3

TICK_S, MESSAGES_EVERY, RENEW_S = 1.0, 5, 5.0
DEAF_TICK_S = 0.25
PAUSE_S, DOUBT_S = 0.02, 0.4
PAGE = 200
STATEMENTS = {"look": 7, "messages": 2, "claim": 8, "submit": 4, "renew": 4, "tell": 1}
"""How many statements each is."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated."""

    workers: int
    starts_per_second: float = 0.0
    cores: int = 16
    seconds: float = 8.0
    deaths: int = 0
    """Workers that die at once, half way through."""
    runs_of_each: int = 100
    """Due runs that a worker has in hand when it dies."""
    hint_reaches: int | None = None
    """How many workers a hint wakes; None: all, as it is now."""
    leases_every: int = 1
    """Every so many looks a worker looks who is alive."""
    deaf: bool = False
    """Behind a pooler: no hints, and looks four times a second."""
    seed: int = 1


@dataclass(slots=True)
class Found:
    """What came of it."""

    statements: int = 0
    busy_s: float = 0.0
    looks_s: list[float] = field(default_factory=list[float])
    taken_up_s: list[float] = field(default_factory=list[float])
    """From the start of a run, or the death of its worker, to its claim."""
    waits_s: list[float] = field(default_factory=list[float])
    """For the lock of those that tell; nothing else that a worker does waits for another."""
    in_vain: int = 0
    """Claims that found that others had been quicker."""
    left: int = 0
    """Runs that nobody had claimed at the end."""
    claims: dict[int, int] = field(default_factory=dict[int, int])
    """Runs of each worker."""


@dataclass(slots=True)
class _Worker:
    ticks: int
    is_looking: bool = False
    looks_again: bool = False
    is_alive: bool = True


class _Simulation:
    """Events in the order of their times; the server's cores, each free from a time on."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.found = Found()
        self._draw = random.Random(setting.seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self._cores = [0.0] * setting.cores
        self._workers = [_Worker(self._draw.randrange(1_000)) for _ in range(setting.workers)]
        self._free: list[float] = []
        """When each free run came to be due."""
        self._tell_lock_s = 0.0
        """When it is free."""
        self._dead: list[float] = []
        """When each worker died whose lease nobody has ended yet."""
        self._alive = setting.workers

    def run(self) -> Found:
        tick_s = DEAF_TICK_S if self.setting.deaf else TICK_S
        for number in range(len(self._workers)):
            self._at(self._draw.uniform(0, tick_s), lambda now, n=number: self._tick(n, now))
            self._at(self._draw.uniform(0, RENEW_S), lambda now, n=number: self._renew(n, now))
        if self.setting.starts_per_second:
            self._at(0.0, self._start)
        if self.setting.deaths:
            self._at(self.setting.seconds / 2, self._die)
        while self._events and self._events[0][0] < self.setting.seconds:
            now, _, event = heapq.heappop(self._events)
            event(now)
        self.found.left = len(self._free) + len(self._dead) * self.setting.runs_of_each
        return self.found

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def _serve(self, what: str, now: float, cost_ms: float) -> float:
        """Have the server do something: when it is done."""
        began = max(now, heapq.heappop(self._cores))
        done = began + self._draw.uniform(0.7, 1.3) * cost_ms / 1_000
        heapq.heappush(self._cores, done)
        self.found.statements += STATEMENTS[what]
        self.found.busy_s += done - began
        return done

    # -- what a worker does ----------------------------------------------------------------------

    def _tick(self, number: int, now: float) -> None:
        worker = self._workers[number]
        if not worker.is_alive:
            return
        worker.ticks += 1
        self._at(now + (DEAF_TICK_S if self.setting.deaf else TICK_S), lambda at: self._tick(number, at))
        if self.setting.deaf or worker.ticks % MESSAGES_EVERY == 0:
            self._serve("messages", now, MESSAGES_MS)
        self._look(number, now)

    def _renew(self, number: int, now: float) -> None:
        if self._workers[number].is_alive:
            self._serve("renew", now, RENEW_MS)
            self._at(now + RENEW_S, lambda at: self._renew(number, at))

    def _look(self, number: int, now: float) -> None:
        worker = self._workers[number]
        if worker.is_looking or not worker.is_alive:
            worker.looks_again = True
            return
        worker.is_looking = True
        sees_leases = worker.ticks % self.setting.leases_every == 0
        cost_ms = LOOK_MS + (LEASES_MS + LEASE_MS * self._alive if sees_leases else 0)
        done = self._serve("look", now, cost_ms)
        self.found.looks_s.append(done - now)
        self._at(done, lambda at: self._seen(number, at, sees_leases=sees_leases))

    def _seen(self, number: int, now: float, *, sees_leases: bool) -> None:
        if sees_leases and self._dead:  # looked at once more, a moment later
            self._at(now + DOUBT_S, lambda at: self._claim(number, at))
        elif self._free:
            self._claim(number, now)
        else:
            self._rest(number, now)

    def _claim(self, number: int, now: float) -> None:
        done = self._serve("claim", now, CLAIM_MS)
        self._at(done, lambda at: self._claimed(number, at))

    def _claimed(self, number: int, now: float) -> None:
        for died_s in self._dead:
            self._free += [died_s] * self.setting.runs_of_each
        self._dead.clear()
        share = min(PAGE, -(-len(self._free) // max(1, self._alive)))
        taken, self._free = self._free[:share], self._free[share:]
        self.found.claims[number] = self.found.claims.get(number, 0) + len(taken)
        self.found.taken_up_s += [now - due_s for due_s in taken]
        if taken:
            self._serve("claim", now, CLAIMED_MS * len(taken))
            self._at(now + PAUSE_S, lambda at: self._look(number, at))
        else:
            self.found.in_vain += 1
        self._rest(number, now)

    def _rest(self, number: int, now: float) -> None:
        worker = self._workers[number]
        worker.is_looking = False
        if worker.looks_again:
            worker.looks_again = False
            self._look(number, now)

    # -- what happens to them --------------------------------------------------------------------

    def _start(self, now: float) -> None:
        self._at(now + self._draw.expovariate(self.setting.starts_per_second), self._start)
        self._at(self._serve("submit", now, SUBMIT_MS), self._started)

    def _started(self, now: float) -> None:
        self._free.append(now)
        if self.setting.deaf:
            return
        reaches = min(self.setting.hint_reaches or len(self._workers), len(self._workers))
        locked = max(now, self._tell_lock_s)
        self._tell_lock_s = locked + TELL_LOCK_MS / 1_000
        self.found.waits_s.append(locked - now)
        told = self._serve("tell", self._tell_lock_s, WAKE_MS * reaches)
        for number in self._draw.sample(range(len(self._workers)), reaches):
            if self._workers[number].is_looking:
                self._workers[number].looks_again = True
            else:
                self._at(told, lambda at, n=number: self._hear(n, at))

    def _hear(self, number: int, now: float) -> None:
        self._serve("messages", now, MESSAGES_MS)
        self._look(number, now)

    def _die(self, now: float) -> None:
        for worker in self._workers[: self.setting.deaths]:
            worker.is_alive = False
            self._dead.append(now)
        self._alive -= self.setting.deaths


def simulate(setting: Setting) -> Found:
    """What comes of a setting; the same each time."""
    return _Simulation(setting).run()


# -- the table ---------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulated_claims", description=__doc__)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args(arguments)
    base = Setting(1, cores=options.cores, seconds=options.seconds)
    for title, settings in _chapters(base):
        print(f"\n{title}\n{_HEAD}")
        for setting in settings:
            print(_line(setting, simulate(setting)))


def _chapters(base: Setting) -> Sequence[tuple[str, Sequence[Setting]]]:
    sizes = [replace(base, workers=workers) for workers in (10, 30, 100, 300, 1_000, 3_000)]
    busy = [replace(one, starts_per_second=rate) for rate in (10, 100, 1_000) for one in sizes[:-1]]
    thousand = replace(base, workers=1_000, starts_per_second=100)
    mended = replace(thousand, hint_reaches=3, leases_every=1_000)
    return (
        ("Idle", sizes),
        ("Runs are started; every worker hears of each", busy),
        ("One worker dies, with 100 runs in hand", [replace(one, deaths=1) for one in sizes]),
        ("A tenth of 1,000 workers die at once", [replace(base, workers=1_000, deaths=100)]),
        ("Behind a pooler, where nobody hears", [replace(one, deaf=True) for one in busy[5:10]]),
        (
            "1,000 workers, 100 starts a second: as it is, hints to three, leases seldom, both",
            [thousand, replace(thousand, hint_reaches=3), replace(thousand, leases_every=1_000), mended],
        ),
        (
            "Both: more starts, and a death",
            [*(replace(mended, starts_per_second=rate) for rate in (1_000, 3_000)),
             replace(mended, starts_per_second=0, deaths=1)],
        ),
    )  # fmt: skip


_HEAD = (
    "workers  starts/s  statements/s   busy   look p50    p99   taken up p50     p99"
    "  lock wait p99  in vain/run  most/mean  left"
)


def _line(setting: Setting, found: Found) -> str:
    taken = found.taken_up_s or [0.0]
    shares = found.claims.values()
    mean = sum(shares) / setting.workers
    most = f"{max(shares) / mean:9.1f}" if mean else f"{'-':>9}"
    return (
        f"{setting.workers:7,}  {setting.starts_per_second:8,.0f}"
        f"  {found.statements / setting.seconds:12,.0f}"
        f"  {min(1.0, found.busy_s / setting.seconds / setting.cores):5.0%}"
        f"  {1_000 * percentile(found.looks_s, 0.5):6.1f} ms {1_000 * percentile(found.looks_s, 0.99):6.0f}"
        f"  {1_000 * percentile(taken, 0.5):9,.0f} ms  {1_000 * percentile(taken, 0.99):6,.0f}"
        f"  {1_000 * percentile(found.waits_s or [0.0], 0.99):10.1f} ms"
        f"  {found.in_vain / max(1, len(found.taken_up_s)):11.1f}  {most}  {found.left:4,}"
    )


if __name__ == "__main__":
    main()
