"""Row 10: the primary server is lost and its standby takes over; and the old primary comes back.

With a synchronous standby nothing may be lost. An asynchronous one that lags has lost the last
commits: there each worker must notice, write nothing, and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

from perdure import CommitsLost
from perdure.core.records import Kind, NewRun, Record
from perdure.stores.base import Batch, Lease
from perdure.stores.postgres import PostgresStore, connection

from .fleet import Fleet, told_by
from .planted import replaced
from .row import Control, Counted, Row, Trials, Work, chance
from .servers import Server, with_a_server

_EFFECTS = 12
_PATIENCE_S = 30.0
_PATIENCE_OF_A_CONTROL_S = 3.0
_SAID = "has lost commits"


def _run(work: Work, server: Server) -> Counted:
    def trial(seed: int, folder: Path) -> None:
        draw = chance(seed)
        if seed % 2:
            _lose_commits(server, f"trial_{seed}", folder, draw)
        else:
            _take_over(server, f"trial_{seed}", folder, draw)

    def controls(work: Work) -> Sequence[Control]:
        lags = _control(work, server, "the standby lags, and a commit does not wait for it", looks=True)
        with replaced(connection, _has=lambda *of: True):
            believes = _control(work, server, "a worker does not ask for its last commit", looks=False)
        return [lags, believes]

    return work.counted(trial, controls=controls)


def _take_over(primary: Server, schema: str, folder: Path, draw: Random) -> None:
    """With a synchronous standby nothing is lost; and the old primary, when it is back, is refused."""
    primary.store_url(schema)
    standby = primary.make_standby(folder / "standby")
    primary.set("synchronous_standby_names", "*")
    fleet = Fleet(folder, f"{_either(primary, standby)}&schema={schema}")
    try:
        fleet.live_until_effects(draw.randrange(1, _EFFECTS))
        primary.crash()
        standby.promote()
        fleet.live_until_effects(_EFFECTS)
        fleet.come_to_the_end()
    finally:
        fleet.end()
        primary.start()
        primary.set("synchronous_standby_names", "")
    _refuse_the_old_one(primary, standby, schema)


def _lose_commits(
    primary: Server,
    schema: str,
    folder: Path,
    draw: Random,
    *,
    looks: bool = False,
    patience_s: float = _PATIENCE_S,
) -> None:
    """A standby that has not had the last commits takes over. `looks`: the witness looks what is lost."""
    primary.store_url(schema)
    standby = primary.make_standby(folder / "standby")
    fleet = Fleet(folder, f"{_either(primary, standby)}&schema={schema}")
    try:
        fleet.live_until_effects(draw.randrange(1, _EFFECTS))
        standby.crash()  # from here on it follows no more
        _live_until_each_has_recorded(fleet, primary, schema)
        fleet.witness.look()
        primary.crash()
        standby.start()
        standby.promote()
        if looks:
            fleet.witness.look()
        for worker in fleet.workers:
            assert worker.ends_within(patience_s), "I1: a worker went on where its commits are lost"
            with suppress(AssertionError):  # it has failed, and should have
                worker.end()
            said = worker.errors.read_text()
            assert _SAID in said, f"a worker ended for another reason: {said[-1_000:]}"
    finally:
        fleet.end()
        standby.crash()
        primary.start()


def _live_until_each_has_recorded(fleet: Fleet, server: Server, schema: str) -> None:
    """A worker that has recorded nothing since the standby stood still has lost nothing, and may go on."""
    ((now,),) = server.query("SELECT pg_current_xact_id()::text")
    who_has = (
        f"SELECT DISTINCT run.lease FROM {schema}.record JOIN {schema}.run ON run.number = record.run "
        f"WHERE record.xmin::text::int8 > {now}"
    )
    while len(server.query(who_has)) < len(fleet.workers):
        fleet.live_until_effects(1)
    fleet.live_until_effects(_EFFECTS)  # and each has been told


def _either(primary: Server, standby: Server) -> str:
    """The URL of the one that takes writes; the first one if both do."""
    hosts = f"{primary.sockets},{standby.sockets}"
    return f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"


def _refuse_the_old_one(old: Server, new: Server, schema: str) -> None:
    """Two servers take writes now. A worker of the new one that comes to the old one writes nothing there."""
    store = PostgresStore(f"{_either(new, old)}&schema={schema}")
    lease = store.acquire("worker", now_ms=0, ttl_ms=60_000)
    run = _start(store, lease, "before")
    store.commit(lease, Batch(records=[_record(run, 0)]))
    before = old.query(f"SELECT count(*) FROM {schema}.record")
    new.crash()  # and now the old one is found
    try:
        store.commit(lease, Batch(records=[_record(run, 1)]))
    except CommitsLost:
        pass
    else:
        raise AssertionError("I1: a worker went on at a server that has lost its commits")
    finally:
        store.close()
    assert old.query(f"SELECT count(*) FROM {schema}.record") == before, "I6: it wrote there"


def _start(store: PostgresStore, lease: Lease, run_id: str) -> int:
    run = NewRun(run_id, "checkout", b"null", b"s" * 16, 1_000, "3.11")
    (outcome,) = store.commit(lease, Batch(starts=[run])).starts
    return outcome.run.number


def _record(run: int, seq: int) -> Record:
    return Record(seq, Kind.STEP, f"0/{seq}/charge", 7, 1_000 + seq, b"1", run)


def _control(work: Work, server: Server, planted: str, *, looks: bool) -> Control:
    with work.fresh_folder() as folder:
        play = partial(
            _lose_commits,
            server,
            "control_lags" if looks else "control_believes",
            folder,
            chance(work.seed),
            looks=looks,
        )
        broken = told_by(partial(play, patience_s=_PATIENCE_OF_A_CONTROL_S))
    return Control(planted, "I1" in broken, broken or "nothing")


ROW = Row(
    number=10,
    name="failover",
    fault="The primary server is lost in the middle of commits, its standby takes over, and the old primary "
    "comes back as if nothing had been.",
    how="Two servers, streaming replication, `pg_ctl promote`: in one half of the trials the standby is "
    "synchronous, in the other it lags, and has not had the last commits.",
    holds=(
        "synchronous: nothing acknowledged is lost, and the workers go on by themselves",
        "lagging: each worker notices that its commits are lost, and stops with an error that says so",
        "a worker that comes to the old primary writes nothing there",
    ),
    trials=Trials(push=2, long=40, release=200),
    run=with_a_server(_run),
)
