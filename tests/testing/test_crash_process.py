"""Crashes of real processes by SIGKILL: they find what crashes in this process find, and more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure import PerdureError, workflow
from perdure.testing import Ask, Crashed, CrashFailure, Send, crash_everywhere
from tests.testing import shop

pytestmark = pytest.mark.slow


def is_charged_once(crashed: Crashed[Any]) -> None:
    assert len(shop.effects("charges")) == 1


async def test_a_process_that_is_killed_anywhere_is_followed_by_one_that_ends_well(tmp_path: Path) -> None:
    done = await crash_everywhere(
        shop.careful("17"),
        events=[Ask(shop.move, "the moon"), Send(shop.approval, "ann")],
        setup=lambda: shop.fresh_folder(tmp_path),
        check=is_charged_once,
        process=True,
    )

    assert {"charge_by_key/1:before-effect", "charge_by_key/1:after-effect", "end/1:before-record"} <= {
        *done.spots
    }
    assert set(done.by_kind) == {"before-effect", "after-effect", "before-record", "after-record"}
    assert done.missed == ()


async def test_an_effect_that_is_not_idempotent_is_found(tmp_path: Path) -> None:
    with pytest.raises(CrashFailure, match=r"process=True, crash='charge/1:after-effect'"):
        await crash_everywhere(
            shop.careless("17"),
            setup=lambda: shop.fresh_folder(tmp_path),
            check=is_charged_once,
            kinds=["after-effect"],
            process=True,
        )


async def test_a_value_that_is_kept_in_the_memory_of_the_process_is_found_only_by_a_real_death() -> None:
    await crash_everywhere(shop.keeps_a_price_in_a_global("17"), kinds=["after-record"])

    with pytest.raises(CrashFailure, match="KeyError"):
        await crash_everywhere(
            shop.keeps_a_price_in_a_global("17"), crash="look_up_price/1:after-record", process=True
        )


async def test_a_law_that_is_broken_by_the_second_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shop.FORGETFUL, "yes")

    with pytest.raises(CrashFailure, match="was called again, and its result was on disk"):
        await crash_everywhere(
            shop.keeps_a_price_in_a_global("17"), crash="look_up_price/1:after-record", process=True
        )


async def test_a_workflow_that_no_other_process_can_import_is_refused() -> None:
    @workflow
    async def local() -> None:
        pass

    with pytest.raises(PerdureError, match="cannot be imported by another process"):
        await crash_everywhere(local(), process=True)
