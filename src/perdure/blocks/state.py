"""`State`: a value that a run publishes, readable from anywhere."""

from __future__ import annotations

from .signal import Named, T, standing_host


class State(Named[T]):
    """A typed value that a run publishes: `status = State[str]("status")`.

    Read with `await run.state(status)` and followed with `run.watch(status)`, from
    any process, also when no worker runs. What is read is on disk. A watcher sees
    the latest value; ones in between may be passed over.
    """

    def set(self, value: T) -> None:
        """Publish a value; it can be read once the run's next commit is on disk.

        Raises NotSerialisable, and OutsideRun where no run stands.
        """
        standing_host(f"State {self.name!r}: set()").publish(self.name, self.encode(value))
