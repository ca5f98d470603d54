"""What a transaction of a worker looks at before it writes: see `lease` for how that is held."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import LeaseLost
from ..base import Lease


class Fence(NamedTuple):
    """What a transaction looks at before it writes."""

    space: int
    """Where the locks of this store's leases are."""
    lease: Lease
    url: str

    def lost(self) -> LeaseLost:
        """The error for a lease that has ended."""
        return LeaseLost(
            f"Worker '{self.lease.worker}' no longer holds its lease on store '{self.url}': it was "
            "released, or another worker found it over. Nothing was written.",
            hint="Other workers go on with its runs. Open the store again to take part.",
        )

    def lost_unanswered(self) -> LeaseLost:
        """The same, where it cannot be known any more whether the last commit was written."""
        return LeaseLost(
            f"Worker '{self.lease.worker}' lost its lease on store '{self.url}' while the connection was "
            "broken. Its last commit, whose answer did not come, may have been written or not.",
            hint="Other workers go on with its runs, from what is there. Open the store again to take part.",
        )


class FenceShut(Exception):
    """A message that was to be a whole transaction did not pass the fence, and nothing of it was written."""
