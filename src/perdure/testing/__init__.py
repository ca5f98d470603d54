"""What tests of durable workflows need: time, chance and faults in the test's hands."""

from __future__ import annotations

from .clock import ManualClock
from .faulty import FaultyStore
from .harness import Harness
from .source import SeededSource

__all__ = ["FaultyStore", "Harness", "ManualClock", "SeededSource"]
