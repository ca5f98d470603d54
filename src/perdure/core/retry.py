"""When a failed step is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DefinitionError, NonRetryable, NotDecodable, NotSerialisable


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and when a step is tried again.

    The delay before attempt n + 1 is `delay * factor ** (n - 1)` seconds, at most
    `max_delay`; with `jitter` it is drawn evenly between 0 and that ("full
    jitter", Brooker 2015), so that a thousand runs that failed together do not
    come back together.

    An error that is `NonRetryable`, or of a type in `give_up_on`, is not tried
    again and reaches the workflow at once. After the last attempt the workflow
    gets a `StepFailed`; one that lets it pass is parked.
    """

    attempts: int = 10
    delay: float = 1.0
    factor: float = 2.0
    max_delay: float = 100.0
    jitter: bool = True
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        self._check_types()
        if self.attempts < 1:
            raise DefinitionError(
                f"Retry(attempts={self.attempts}): a step is tried at least once.", hint="Use attempts=1."
            )
        if self.delay < 0 or self.max_delay < 0 or self.factor < 1:
            raise DefinitionError(
                f"Retry(delay={self.delay}, factor={self.factor}, max_delay={self.max_delay}): "
                "delays cannot be negative and must not shrink."
            )

    def _check_types(self) -> None:
        # Not all who call have a type checker, and what is wrong here would be met when a step has failed.
        times = (self.delay, self.factor, self.max_delay)
        if type(self.attempts) is not int or not all(type(one) in (int, float) for one in times):
            raise DefinitionError(
                f"Retry(attempts={self.attempts!r}, delay={self.delay!r}, factor={self.factor!r}, "
                f"max_delay={self.max_delay!r}) cannot be.",
                hint="attempts is a whole number, and the others are seconds, or a factor.",
            )
        given = self.give_up_on
        if isinstance(given, type):
            raise DefinitionError(
                f"Retry(give_up_on={given.__name__}): it takes several types.",
                hint=f"Write give_up_on=({given.__name__},).",
            )

    def delay_ms(self, attempt: int, *, drawn: float) -> int:
        """How long to wait after failed attempt number `attempt`; `drawn` is evenly in [0, 1)."""
        # The exponent is bounded: 2.0 ** 5000 is an OverflowError.
        full = min(self.max_delay, self.delay * self.factor ** min(attempt - 1, 500))
        return round(1000 * (full * drawn if self.jitter else full))

    def gives_up_on(self, error: BaseException) -> bool:
        """Whether to try again would not help."""
        return isinstance(error, (NonRetryable, NotSerialisable, NotDecodable, *self.give_up_on))


def check_retry(given: object, where: str) -> None:
    """Raise DefinitionError for what is neither a `Retry` nor None."""
    if given is None or isinstance(given, Retry):
        return
    number = given if isinstance(given, int) else "…"
    raise DefinitionError(
        f"{where}: retry={given!r} is no Retry.", hint=f"Write retry=Retry(attempts={number})."
    )
