"""Its workflows."""

from perdure import step
from perdure import workflow as durable

from . import audit, flags
from .pricing import quote
from .stock import Shelf


@step
async def charge(cents: int) -> str: ...


@durable
async def checkout(item: str) -> str:
    cents = quote(item)
    if flags.is_on("audit"):
        await audit.write(item)
    shelf = Shelf("main")
    shelf.take(item)
    return await charge(cents)


@durable
async def restock(items: list[str]) -> None:
    from .pricing.rates import refresh

    for item in items:
        refresh(item)
    flags.VALUES["restocked"] = True  # expect: global-mutated
