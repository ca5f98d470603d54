"""What a check found wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

IDS_KEPT = 5


@dataclass(slots=True)
class Finding:
    """One thing that is wrong, and where it was met."""

    rule: str
    """`unreadable`, `changed`, `incompatible`, `gap`, `sample`, `missing`, `removed`, `impure`."""
    where: str
    """Which value: `order.placed version 1 of stream orders`."""
    path: str
    """Where in it: `$.items[*].sku`; empty where it is all of it."""
    what: str
    side: str = ""
    """`backward`: the new code cannot read what is stored. `forward`: code that is still deployed cannot
    read what the new code writes."""
    count: int = 1
    """In how many events or runs."""
    ids: list[str] = field(default_factory=list[str])
    """The first of them."""


class Findings:
    """Findings, each counted once for each place where it was met."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, str, str], Finding] = {}

    def add(self, rule: str, where: str, path: str, what: str, *, side: str = "", met_in: str = "") -> None:
        """Something is wrong; `met_in` names the event or run."""
        key = (rule, where, path, what, side)
        finding = self._found.get(key)
        if finding is None:
            finding = self._found[key] = Finding(rule, where, path, what, side, 0)
        finding.count += 1
        if met_in and len(finding.ids) < IDS_KEPT:
            finding.ids.append(met_in)

    def all(self) -> list[Finding]:
        """All, in the order in which they were first met."""
        return list(self._found.values())
