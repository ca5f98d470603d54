"""What `--help` of a command shows as examples. A test parses each of them."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "worker": (
        "perdure worker shop",
        "perdure worker shop --processes 4 --store postgresql://shop@db.example.com/shop",
    ),
    "events": (
        "perdure events orders --from 2h",
        "perdure events orders --key 17 --json",
        "perdure events orders --from latest --follow",
    ),
    "lag": (
        "perdure lag --watch",
        "perdure lag orders/ship",
        "perdure lag --check --json",
    ),
    "seek": (
        "perdure seek orders/ship --to 2h",
        'perdure seek orders/ship --to earliest --reason "wrong sums" --yes',
        "perdure seek orders/ship --event placed-17 --yes",
    ),
    "unsubscribe": ("perdure unsubscribe orders/ship --yes",),
    "asyncapi": (
        "perdure asyncapi shop --yaml",
        "perdure asyncapi shop --check asyncapi.yaml",
    ),
    "dead list": (
        "perdure dead list",
        "perdure dead list orders/ship --key 17",
        "perdure dead list orders/ship --reason unreadable --json",
    ),
    "dead show": ("perdure dead show orders/ship 0000000000005",),
    "dead edit": (
        'perdure dead edit orders/ship 0000000000005 \'{"order": "17"}\' --reason typo',
        "perdure dead edit orders/ship 0000000000005 @mended.json --reason typo",
    ),
    "dead redrive": (
        "perdure dead redrive orders/ship --key 17",
        "perdure dead redrive orders/ship 0000000000005 --yes",
        'perdure dead redrive orders/ship --all --rate 10 --reason "mended" --yes',
    ),
    "dead discard": ('perdure dead discard orders/ship --key 17 --reason "a test order" --yes',),
    "dead stop": ("perdure dead stop orders/ship --reason maintenance",),
    "dead resume": ("perdure dead resume orders/ship",),
    "schema check": (
        "perdure schema check shop --store sqlite:///shop.db",
        "perdure schema check shop --against schemas",
    ),
    "schema samples": ("perdure schema samples shop --store sqlite:///shop.db --to schemas",),
    "schema diff": ("perdure schema diff shop --store sqlite:///shop.db",),
    "schema history": ("perdure schema history orders",),
}


def epilog(command: str) -> str | None:
    """The end of a command's help."""
    lines = EXAMPLES.get(command)
    # The first line keeps click from filling the paragraph.
    return None if lines is None else "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
