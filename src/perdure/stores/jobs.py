"""What the stores share of jobs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CRASHES_BEFORE_SUSPECT: Final = 2
"""So many workers died of a job before no two such are run side by side; the statements have it too."""


def with_one_suspect(found: Iterable[tuple[int, int, str, int]]) -> list[tuple[int, str]]:
    """(run, key) of jobs found as (time, run, key, crashes); of those that workers died of only the first."""
    chosen: list[tuple[int, str]] = []
    has_suspect = False
    for _, run, key, crashes in found:
        if crashes < CRASHES_BEFORE_SUSPECT or not has_suspect:
            chosen.append((run, key))
            has_suspect = has_suspect or crashes >= CRASHES_BEFORE_SUSPECT
    return chosen
