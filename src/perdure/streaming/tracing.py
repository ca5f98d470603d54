"""The trace that an event belongs to: a W3C `traceparent`, given, or that of OpenTelemetry's current span."""

from __future__ import annotations

import re
import sys
from typing import Any

from ..errors import PerdureError

_FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_of(given: str | None) -> str:
    """The `traceparent` that is given; else that of the current span, if OpenTelemetry is in use; else empty.

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


def _current() -> str:
    # Never imported here: who uses it has it loaded.
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"
