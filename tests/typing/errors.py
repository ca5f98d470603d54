"""What is known of an error once it is caught."""

from __future__ import annotations

from typing import assert_type

from perdure import (
    Attempt,
    PayloadTooLarge,
    PerdureError,
    RunError,
    RunFailed,
    StepFailed,
    StepTimedOut,
    StoreReadOnly,
    StoreUnavailable,
)


def look_at(error: Exception) -> None:
    match error:
        case RunFailed():
            assert_type(error.run_id, str)
            any_run: RunError = error
            look_at(any_run)
        case StepFailed():
            assert_type(error.attempts, tuple[Attempt, ...])
            assert_type(error.step, str)
        case PayloadTooLarge():
            assert_type(error.limit, int)
        case StoreReadOnly():
            nothing_can_be_written: StoreUnavailable = error
            assert_type(nothing_can_be_written.hint, str)
        case StepTimedOut():
            too_late: TimeoutError = error
            look_at(too_late)
        case PerdureError():
            assert_type(error.code, str)
        case _:
            raise error


RunError("gone")  # error: reportCallIssue
