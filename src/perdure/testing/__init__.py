"""What tests of durable workflows need: time, chance, steps and faults in the test's hands."""

from __future__ import annotations

from ..journals.replay import Replayed, replay
from .clock import ManualClock
from .crashing.everywhere import crash_everywhere
from .crashing.explorer import Crashed, Crashes, CrashFailure
from .crashing.world import Effect
from .disk import Fault, FaultyDisk
from .events import Append, Ask, Cancel, Event, Send, Wait
from .explore import (
    Answer,
    Exploration,
    Explored,
    ScheduleFailed,
    ScheduleImpossible,
    StepCalled,
    choose,
    explore,
)
from .faulty import FaultyStore
from .harness import Harness
from .journals import JournalStep
from .overriding import Override, override
from .source import SeededSource

__all__ = [
    "Answer", "Append", "Ask", "Cancel", "CrashFailure", "Crashed", "Crashes", "Effect", "Event",
    "Exploration", "Explored", "Fault", "FaultyDisk", "FaultyStore", "Harness", "JournalStep",
    "ManualClock", "Override", "Replayed", "ScheduleFailed", "ScheduleImpossible", "SeededSource",
    "Send", "StepCalled", "Wait", "choose", "crash_everywhere", "explore", "override", "replay",
]  # fmt: skip
