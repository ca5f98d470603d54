"""What crosses to Temporal and back: JSON by our own codec, as `json/plain` payloads.

On our side of the converter a value is bytes of JSON; to Temporal it is plain JSON, which
its web pages and command line show. The second argument of a workflow or activity says
what is ours alone: a client that starts a workflow without it starts a run all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.common import RawValue
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError, FailureError

from ..codec.failures import describe_failure, encode_failure, failure_type
from ..errors import PayloadTooLarge

PAYLOAD_MAX = 2 * 1024 * 1024
"""Bytes of one value: Temporal's own limit, unless the cluster has another."""

PARKED = "perdure.parked"
ENDED = "perdure.ended"
TAGS = "perdure.tags"
GENERATION = "perdure.generation"
OUR_KEYS = frozenset((PARKED, ENDED, TAGS, GENERATION))
"""What is ours in a workflow's memo; the rest are published states."""

RESUME = "perdure.resume"
"""The signal that makes a parked run go on."""

_AGAIN_MS = 1_000
_VERSION = "perdure-version"
_AT = "perdure-at-ms"
_ENCODING = {"encoding": b"json/plain"}


class JsonPayloads(PayloadConverter):
    """Bytes of JSON as payloads, and back."""

    def to_payloads(self, values: Sequence[Any]) -> list[Payload]:
        return [_to_payload(value) for value in values]

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        if type_hints and RawValue in type_hints:
            return [RawValue(payload) for payload in payloads]
        return [payload.data for payload in payloads]


def _to_payload(value: Any) -> Payload:
    if isinstance(value, bytes):
        return json_payload(value)
    if isinstance(value, RawValue):
        return value.payload
    return PayloadConverter.default.to_payloads([value])[0]  # Temporal's own: the answers to its queries


class OurFailures(DefaultFailureConverter):
    """Errors with our own form of them in the details, so that they come back as themselves."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        if not isinstance(exception, FailureError):
            # Nobody has decided that this is the end: Temporal may try again.
            exception = as_failure(encode_failure(exception), again_ms=_AGAIN_MS)
        super().to_failure(exception, payload_converter, failure)


CONVERTER = DataConverter(payload_converter_class=JsonPayloads, failure_converter_class=OurFailures)


def json_payload(data: bytes) -> Payload:
    """JSON as a payload."""
    return Payload(metadata=_ENCODING, data=data)


def state_payload(data: bytes, *, version: int, at_ms: int) -> RawValue:
    """A published value as it stands in the memo; people see only the value."""
    marks = {_VERSION: str(version).encode(), _AT: str(at_ms).encode()}
    return RawValue(Payload(metadata={**_ENCODING, **marks}, data=data))


def state_marks(metadata: Mapping[str, bytes]) -> tuple[int, int]:
    """Version and time of a published value; (0, 0) for a payload that is not one."""
    return int(metadata.get(_VERSION, b"0")), int(metadata.get(_AT, b"0"))


def as_failure(failure: bytes, *, again_ms: int | None = None) -> ApplicationError:
    """A failure of ours as Temporal shows it; our own form of it, whole, is in the details.

    `again_ms`: of a step's attempt, when the next is made; None: this was the last.
    """
    name, _, message = describe_failure(failure).partition(": ")
    return ApplicationError(
        message or name,
        failure,
        type=failure_type(failure).partition(":")[2] or name,
        non_retryable=again_ms is None,
        next_retry_delay=None if again_ms is None else timedelta(milliseconds=again_ms),
    )


def seed_of(what: str, seed: bytes) -> bytes:
    """A seed of its own for something that comes of what has this seed."""
    return blake2b(what.encode(), key=seed, digest_size=16).digest()


def activity_id(key: str, times_parked: int) -> str:
    """The id of a step's activity: the call's key, and once the run has parked, another than before."""
    # The one before it may not have ended yet, and Temporal takes no two of one id.
    return f"{key}~{times_parked}" if times_parked else key


def key_of(activity_id: str) -> str:
    """The call's key, of an activity's id."""
    key, mark, times = activity_id.rpartition("~")
    return key if mark and times.isdigit() else activity_id


def fit(data: bytes, where: str) -> bytes:
    """The same bytes. Raises PayloadTooLarge for what Temporal would not take."""
    if len(data) > PAYLOAD_MAX:
        raise PayloadTooLarge(where, size=len(data), limit=PAYLOAD_MAX)
    return data


class Beginning(msgspec.Struct, omit_defaults=True):
    """The second argument of a workflow: what a run knows from its first moment, beside its input."""

    seed: str = ""
    """16 bytes in hex, of which idempotency keys and random numbers are made. It survives a reset."""
    generation: int = 1
    timeout_ms: int | None = None
    """For the whole run, from its start."""
    deadline_ms: int | None = None
    """Of a run that continues one that had it."""
    on_parent_close: str = "cancel"
    parent_key: str = ""
    """Of a child: the call's key in its parent."""
    signals: list[tuple[str, msgspec.Raw]] = []
    """What the run before this one left unreceived."""


class Asked(msgspec.Struct):
    """The second argument of an activity: what a step may know, beside its arguments."""

    step: str
    """`module:qualified name`"""
    key: str
    """The call's place in the run."""
    seed: str
    """16 bytes in hex: the idempotency key is made of it."""


class Beats(msgspec.Struct, omit_defaults=True):
    """The details of an activity's heartbeat: what the next attempt has to know."""

    said: msgspec.Raw = msgspec.Raw(b"null")
    """What the step's `heartbeat()` said."""
    failed: list[tuple[int, str, int]] = []
    """Each failed attempt: its number, its error, when."""
    excused: int = 0
    """Attempts that ended because their worker was stopped."""


class Ended(msgspec.Struct, omit_defaults=True):
    """In the memo of a run that ended badly: what Temporal itself has no word for."""

    status: str
    error: str = ""
