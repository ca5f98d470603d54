"""The trace that an event belongs to: W3C trace context, given, or that of OpenTelemetry's current span.

Law: it is kept as one text, the `traceparent`, and behind a blank the `tracestate`, if there is one. What
came with a message and is no trace context is left out: an event is not refused for it.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from ..errors import PerdureError

_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")


def trace_of(given: str | None) -> str:
    """The `traceparent` that is given; else the current span's, if OpenTelemetry is in use; else empty.

    Raises PerdureError for a text that is none.
    """
    if given is None:
        return _current()
    if given and _FORM.fullmatch(given) is None:
        raise PerdureError(
            f"trace_parent={given!r} is no W3C traceparent.",
            hint="It looks like 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.",
        )
    return given


def trace_from(parent: str, state: str) -> str:
    """That which came with an event; empty if it is none."""
    parent, state = parent.strip(), state.strip()
    if _FORM.fullmatch(parent) is None:
        return ""
    return f"{parent} {state}" if _STATE.fullmatch(state) else parent


def parts_of(trace: str) -> tuple[str, str]:
    """The `traceparent` and the `tracestate` of a trace as it is kept."""
    parent, _, state = trace.partition(" ")
    return parent, state


def _current() -> str:
    # Never imported here: who uses it has it loaded.
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    state = getattr(span, "trace_state", None)
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
    return trace_from(parent, state.to_header() if state else "")
