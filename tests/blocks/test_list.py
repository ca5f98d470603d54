"""Listing runs: filters and pages."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from perdure import RunNotFound, RunPage, RunStatus, RunView, workflow
from perdure.testing import Harness


@workflow
async def is_listed(fails: bool) -> None:
    if fails:
        raise ValueError("unlisted")


@workflow
async def is_listed_too() -> None: ...


def ids(page: RunPage) -> list[str]:
    return [view.id for view in page.runs]


@pytest.fixture
async def listed(harness: Harness) -> Harness:
    for number in range(5):
        await harness.start(
            is_listed(number == 3), id=f"order-{number}", tags={"parity": "odd" if number % 2 else "even"}
        )
        await harness.advance(60)
    await harness.start(is_listed_too(), id="other", tags={"parity": "odd", "shop": "pears"})
    await harness.settle()
    return harness


async def test_runs_are_listed_newest_first(listed: Harness) -> None:
    page = await listed.engine.list()

    assert ids(page) == ["other", "order-4", "order-3", "order-2", "order-1", "order-0"]
    assert page.next is None


async def test_pages_follow_each_other_without_gap_or_overlap(listed: Harness) -> None:
    first = await listed.engine.list(limit=4)
    second = await listed.engine.list(limit=4, before=first.next)

    assert ids(first) + ids(second) == ids(await listed.engine.list())
    assert second.next is None


async def test_runs_are_found_by_workflow_status_tags_prefix_and_time(listed: Harness) -> None:
    engine = listed.engine
    created = [view.created_at for view in reversed((await engine.list()).runs)]

    assert ids(await engine.list(workflow=is_listed_too)) == ["other"]
    assert ids(await engine.list(status=RunStatus.FAILED)) == ["order-3"]
    assert ids(await engine.list(status=(RunStatus.RUNNING, RunStatus.PARKED))) == []
    assert ids(await engine.list(tags={"parity": "odd", "shop": "pears"})) == ["other"]
    assert ids(await engine.list(tags={"parity": "odd"}, id_prefix="order-")) == ["order-3", "order-1"]
    assert ids(await engine.list(created_after=created[1], created_before=created[3])) == [
        "order-2",
        "order-1",
    ]


async def test_a_view_says_what_a_run_is_and_why_it_failed(listed: Harness) -> None:
    view: RunView = await listed.engine.info("order-3")

    assert (view.workflow, view.status, view.error) == ("is_listed", RunStatus.FAILED, "ValueError: unlisted")
    assert view.tags == {"parity": "odd"}
    assert view.created_at.tzinfo is UTC
    assert isinstance(view.ended_at, datetime)


async def test_a_run_that_is_not_there_is_not_found(harness: Harness) -> None:
    with pytest.raises(RunNotFound, match="'nobody'"):
        await harness.engine.get("nobody")
    with pytest.raises(RunNotFound):
        await harness.engine.info("nobody")
