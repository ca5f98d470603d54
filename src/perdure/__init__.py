"""Perdure: backends that do not lose their place.

Workflows that survive crashes, deploys and month-long waits, in one file beside
your program. Start with `@step`, `@workflow` and `Engine`; see the README.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .blocks.child import Child, start_child
from .blocks.inside import compensate, continue_as_new, now, patched, random, run_info, uuid
from .blocks.signal import Signal
from .blocks.starting import start_within
from .blocks.state import State
from .blocks.step import Step, StepCall, step, step_info
from .blocks.update import Update
from .blocks.workflow import Workflow, WorkflowCall, workflow
from .client import Client, Run
from .core.host import RunFacts
from .core.retry import Retry
from .engine import Engine
from .errors import (
    Attempt,
    Backpressure,
    BoundaryError,
    BrokerUnavailable,
    CommitsLost,
    ConflictError,
    DefinitionError,
    DeterminismWarning,
    DuplicateConflict,
    ForeignError,
    HeartbeatTimedOut,
    JournalMismatch,
    LeaseLost,
    NonRetryable,
    NotAwaited,
    NotDecodable,
    NotHandled,
    NotParked,
    NotSerialisable,
    OutsideRun,
    PayloadTooLarge,
    PerdureError,
    PositionGone,
    RunCancelled,
    RunClosed,
    RunDamaged,
    RunError,
    RunFailed,
    RunNotFound,
    RunParked,
    RunTerminated,
    RunTimedOut,
    SchemaError,
    StepError,
    StepFailed,
    StepProcessDied,
    StepTimedOut,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreLocked,
    StoreMoved,
    StoreNotOurs,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnreachable,
    StoreVersionError,
    StreamError,
    SubscriptionNotFound,
    UnknownEvent,
    UpdateRefused,
    WorkerKilled,
    WorkflowNotRegistered,
)
from .runtime.attempt import StepInfo

if TYPE_CHECKING:
    from .blocks.casting import downcast, upcast
    from .blocks.cloudevents import CloudEvent
    from .blocks.event import Appended, Event, event
    from .blocks.handler import Handler
    from .blocks.join import Join, Joined
    from .blocks.shadow import Held, Shadow
    from .blocks.stream import Stream
    from .blocks.window import Aggregation, Late, Window
    from .core.holding import Effect
    from .core.standing import Holdup
    from .streaming.event_time import EventTime
    from .streaming.forking import Comparison, Difference
    from .streaming.lagging import Gauge, Lag, LagStatus, LaneLag, gauges
    from .streaming.parked import Note, ParkedDetails, ParkedEvent, Redriving, SubscriptionStatus
    from .streaming.reading import StreamPage
    from .streaming.seeking import Seek, SeekNote
    from .streaming.subscription import Subscription
    from .views import RunPage, RunStatus, RunView

__version__ = "0.1.0"

_LATER = {
    "downcast": ".blocks.casting",
    "upcast": ".blocks.casting",
    "CloudEvent": ".blocks.cloudevents",
    "Appended": ".blocks.event",
    "Event": ".blocks.event",
    "event": ".blocks.event",
    "Handler": ".blocks.handler",
    "Join": ".blocks.join",
    "Joined": ".blocks.join",
    "Stream": ".blocks.stream",
    "Aggregation": ".blocks.window",
    "Late": ".blocks.window",
    "Window": ".blocks.window",
    "Effect": ".core.holding",
    "Held": ".blocks.shadow",
    "Holdup": ".core.standing",
    "Shadow": ".blocks.shadow",
    "Comparison": ".streaming.forking",
    "Difference": ".streaming.forking",
    "EventTime": ".streaming.event_time",
    "Gauge": ".streaming.lagging",
    "Lag": ".streaming.lagging",
    "LagStatus": ".streaming.lagging",
    "LaneLag": ".streaming.lagging",
    "gauges": ".streaming.lagging",
    "Note": ".streaming.parked",
    "ParkedDetails": ".streaming.parked",
    "ParkedEvent": ".streaming.parked",
    "Redriving": ".streaming.parked",
    "SubscriptionStatus": ".streaming.parked",
    "StreamPage": ".streaming.reading",
    "Seek": ".streaming.seeking",
    "SeekNote": ".streaming.seeking",
    "Subscription": ".streaming.subscription",
    "RunPage": ".views",
    "RunStatus": ".views",
    "RunView": ".views",
}
"""Loaded when they are first asked for: who has no streams does not wait for them."""

__all__ = [
    "Aggregation", "Appended", "Attempt", "Backpressure", "BoundaryError", "BrokerUnavailable", "Child",
    "Client", "CloudEvent", "CommitsLost", "Comparison", "ConflictError", "DefinitionError",
    "DeterminismWarning", "Difference", "DuplicateConflict", "Effect", "Engine", "Event", "EventTime",
    "ForeignError", "Gauge", "Handler", "HeartbeatTimedOut", "Held", "Holdup", "Join", "Joined",
    "JournalMismatch", "Lag", "LagStatus", "LaneLag", "Late", "LeaseLost", "NonRetryable", "NotAwaited",
    "NotDecodable", "NotHandled", "NotParked", "NotSerialisable", "Note", "OutsideRun", "ParkedDetails",
    "ParkedEvent", "PayloadTooLarge", "PerdureError", "PositionGone", "Redriving", "Retry", "Run",
    "RunCancelled", "RunClosed", "RunDamaged", "RunError", "RunFacts", "RunFailed", "RunNotFound",
    "RunPage", "RunParked", "RunStatus", "RunTerminated", "RunTimedOut", "RunView", "SchemaError", "Seek",
    "SeekNote", "Shadow", "Signal", "State", "Step", "StepCall", "StepError", "StepFailed", "StepInfo",
    "StepProcessDied", "StepTimedOut", "StoreCorrupt", "StoreError", "StoreFull", "StoreInUse",
    "StoreLocked", "StoreMoved", "StoreNotOurs", "StoreReadOnly", "StoreUnavailable", "StoreUnreachable",
    "StoreVersionError", "Stream", "StreamError", "StreamPage", "Subscription", "SubscriptionNotFound",
    "SubscriptionStatus", "UnknownEvent", "Update", "UpdateRefused", "Window", "WorkerKilled", "Workflow",
    "WorkflowCall", "WorkflowNotRegistered", "compensate", "continue_as_new", "downcast", "event",
    "gauges", "now", "patched", "random", "run_info", "start_child", "start_within", "step", "step_info",
    "upcast", "uuid", "workflow",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(module, __name__), name)
    return found


def __dir__() -> list[str]:
    return __all__
