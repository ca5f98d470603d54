"""The watchdog of `tests/blocks`."""

from __future__ import annotations

from tests.blocks.conftest import watchdog

__all__ = ["watchdog"]
