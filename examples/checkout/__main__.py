"""Orders that are charged, reserved, approved and announced, while everything around them fails.

    python -m examples.checkout

Seven orders, against a real HTTP service in a process of its own. At the end
the service's books say whether the engine told the truth.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from ..command import perdure_command
from .audit import Claim, audit
from .client import read_books
from .scenes import SCENES, STOCK, Ending, open_shop


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.checkout",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=Path, help="keep the runs in this new file, to look at them later")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    try:
        if options.store is None:
            with TemporaryDirectory() as folder:
                return asyncio.run(tell_story(f"sqlite:///{folder}/checkout.db", console))
        store: Path = options.store.resolve()
        if store.exists():
            # The service starts with empty books each time: yesterday's orders would not be in them.
            parser.error(
                f"{store} is there already. Each story needs a new file: remove it, or name another."
            )
        outcome = asyncio.run(tell_story(f"sqlite:///{store}", console))
        console.print(f"\nThe runs: {perdure_command()} list --store {shlex.quote(str(store))}")
        return outcome
    except KeyboardInterrupt:
        console.print("\nStopped. The service's books are gone with it; start again with a new file.")
        return 130


async def tell_story(store: str, console: Console) -> int:
    """Play all scenes, then read the books. Returns 0 when every claim holds."""
    endings: list[Ending] = []
    async with open_shop(store) as shop:
        for scene in SCENES:
            console.print(f"\n[bold]{scene.title}[/]. {scene.story}")
            ending = await scene.play(shop)
            books = await asyncio.to_thread(read_books, shop.url)
            show_scene(ending, books, console)
            endings.append(ending)
        books = await asyncio.to_thread(read_books, shop.url)
    claims = audit(books, delivered={each.order: each.delivered for each in endings}, stock=STOCK)
    console.print("\n[bold]The service's own books[/]")
    for claim in claims:
        show_claim(claim, console)
    return 0 if all(claim.holds for claim in claims) else 1


def show_scene(ending: Ending, books: dict[str, Any], console: Console) -> None:
    """What the service was asked on behalf of this order, and how the order ended."""
    asked: dict[str, list[str]] = {}
    for request in books["requests"]:
        if request["order"] == ending.order:
            asked.setdefault(request["path"], []).append(request["outcome"])
    for path, outcomes in asked.items():
        console.print(f"  {path:14} {' · '.join(outcomes)}", style="dim")
    word, style = ("delivered", "green") if ending.delivered else ("not delivered", "yellow")
    console.print(f"  [{style}]{ending.order} {word}[/]: {ending.said}")


def show_claim(claim: Claim, console: Console) -> None:
    mark, style = ("holds", "green") if claim.holds else ("FAILS", "bold red")
    console.print(f"  [{style}]{mark}[/]  {claim.text}")
    console.print(f"         {claim.found}", style="dim")


if __name__ == "__main__":
    sys.exit(main())
