"""The fixtures of `tests/blocks`: an engine on a temporary file, with time in the test's hands."""

from __future__ import annotations

from tests.blocks.conftest import flying, harness, watchdog

__all__ = ["flying", "harness", "watchdog"]
