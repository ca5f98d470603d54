"""Workers and a client on one PostgreSQL store, each a process: what a row does to the server they must bear.

Workers come back as `perdure worker` does: after a lost lease, or a server that could not
be had. The client asks again where it was not answered, with the same ids, and orders
batch after batch until it is told that it is enough.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic

from perdure import Client, Engine, LeaseLost, StoreUnavailable

from . import orders
from .lives import Life, Witness, short_lease
from .orders import Death, Process

LEASE_MS = 1_500
_PAUSE_S = 0.02
_BATCHES_MAX = 250


class Fleet:
    """Several workers and a client."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        workers: int = 2,
        ways: Sequence[str] = (),
        client: str = "",
        lease_ms: int = LEASE_MS,
        patience_s: float = 40.0,
    ) -> None:
        """`ways`: how each worker reaches the store, if not by `url`; `client`: how the client does.

        `patience_s`: how long nothing may be done before that counts as hung.
        """
        self._patience_s = patience_s
        self.witness = Witness(folder, url)
        self._ways = ways or [url] * workers
        self._client_url = client or url
        self._lease_ms = lease_ms
        self._told = mmap.mmap(-1, 8)
        """Whether it is enough, and how many batches were begun; all processes see it."""
        self.workers = [self._worker(place) for place in range(len(self._ways))]
        self.client = self._client()

    def _worker(self, place: int) -> Life:
        serving = partial(serve, self._ways[place], self.witness, self._lease_ms)
        return Life(serving, errors=self._errors_of(f"worker {place}"))

    def _client(self) -> Life:
        return Life(self._order, errors=self._errors_of("the client"))

    def _errors_of(self, process: str) -> Path:
        """Of each its own: two that fail at once would write over each other."""
        return self.witness.errors.with_name(f"errors of {process}")

    async def _order(self) -> None:
        await orders.insist(self._order_all)

    async def _order_all(self) -> None:
        batch = 0
        async with Client(self._client_url) as client:
            while batch == 0 or not self._told[0]:
                assert batch < _BATCHES_MAX, "nobody said that it was enough"
                self._told[1] = batch + 1
                await orders.drive_all(client, self.witness.acknowledged, batch=f"{batch}-", insists=True)
                batch += 1

    def replace_worker(self, place: int) -> None:
        """`kill -9` one worker, and start another."""
        self.workers[place].kill()
        self.workers[place] = self._worker(place)

    def replace_client(self) -> None:
        """`kill -9` the client, and start another; it knows what was ordered."""
        self.client.kill()
        self.client = self._client()

    def live_for(self, seconds: float) -> None:
        """Let some time pass. Raises AssertionError when one that was not to has ended."""
        if self.client.ends_within(seconds):
            self.client.end()  # says why
            raise AssertionError("the client ended by itself")
        self.look_after()

    def live_until_effects(self, count: int) -> float:
        """Let so many more steps take effect. Gives how long that took, in seconds."""
        began, before = monotonic(), len(self.witness.ledger.lines())
        while len(self.witness.ledger.lines()) < before + count:
            self.live_for(0.002)
            assert monotonic() < began + self._patience_s, "I5: nothing more is done"
        return monotonic() - began

    def look_after(self) -> None:
        """Raise AssertionError when a worker has ended."""
        for worker in self.workers:
            if worker.ends_within(0):
                worker.end()  # says why
                raise AssertionError("a worker ended by itself")

    def come_to_the_end(self) -> None:
        """Say that it is enough; all that was ordered must come to its end, and nothing be lost."""
        self._told[0] = 1
        until = monotonic() + self._patience_s
        while not self.client.ends_within(0.05):
            self.look_after()
            assert monotonic() < until, "I5: orders do not come to their end"
        self.client.end()
        self.look_after()
        self.witness.look()
        orders.assert_all_was_done(self.witness, [f"{batch}-" for batch in range(self._told[1])])

    def end(self) -> None:
        """`kill -9` them all."""
        for process in (*self.workers, self.client):
            process.kill()
        self.witness.close()


async def serve(url: str, witness: Witness, lease_ms: int) -> None:
    """A life: run whatever others start, for ever."""
    Process.death, Process.ledger = Death(), witness.ledger
    with short_lease(lease_ms):
        while True:
            try:
                async with Engine(url) as engine:
                    await engine.serve()
            except (LeaseLost, StoreUnavailable):
                await asyncio.sleep(_PAUSE_S)


def told_by(play: Callable[[], object]) -> str:
    """What was noticed of a planted bug, by its last line; empty when nothing was."""
    try:
        play()
    except AssertionError as broken:
        return str(broken).strip().splitlines()[-1][:160]
    return ""
