"""Chance that a test can repeat: the same seed gives the same bytes and numbers."""

from __future__ import annotations

from hashlib import blake2b


class SeededSource:
    """A `Source` of which every draw follows from the seed."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed.to_bytes(16, "big", signed=True)
        self._drawn = 0

    def bytes(self, count: int) -> bytes:
        """That many bytes; never the same twice, as with a real source."""
        found = b""
        while len(found) < count:
            self._drawn += 1
            found += blake2b(self._drawn.to_bytes(8, "big"), key=self._seed).digest()
        return found[:count]

    def draw(self) -> float:
        """A number evenly in [0, 1)."""
        return (int.from_bytes(self.bytes(8), "big") >> 11) / (1 << 53)
