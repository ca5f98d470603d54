"""The order of sets."""

import asyncio
from collections.abc import Set as AnySet
from dataclasses import dataclass, field

from perdure import step, workflow


@dataclass
class Order:
    id: str
    tags: set[str] = field(default_factory=set)


@step
async def note(text: str) -> None: ...


@step
async def find_names() -> set[str]: ...


@workflow
async def loops_over_a_literal() -> None:
    for name in {"ann", "bob"}:  # expect: set-order
        await note(name)


@workflow
async def loops_over_a_call(names: list[str]) -> None:
    for name in set(names):  # expect: set-order
        await note(name)


@workflow
async def loops_over_a_parameter(names: frozenset[str]) -> None:
    for name in names:  # expect: set-order
        await note(name)


@workflow
async def loops_over_a_field(order: Order) -> None:
    for tag in order.tags:  # expect: set-order
        await note(tag)


@workflow
async def loops_over_a_result() -> None:
    names = await find_names()
    for name in names:  # expect: set-order
        await note(name)


@workflow
async def makes_a_list(names: list[str], known: list[str]) -> list[str]:
    return list(set(names) - set(known))  # expect: set-order


@workflow
async def compares_keys(before: dict[str, int], after: dict[str, int]) -> None:
    for name in before.keys() - after.keys():  # expect: set-order
        await note(name)


@workflow
async def gathers(names: set[str]) -> None:
    await asyncio.gather(*[note(name) for name in names])  # expect: set-order


@workflow
async def spreads(names: set[str]) -> list[str]:
    return [*names, "end"]  # expect: set-order


@workflow
async def pops(names: set[str]) -> None:
    while names:
        await note(names.pop())  # expect: set-order


@workflow
async def unpacks(pair: set[str]) -> str:
    first, _ = pair  # expect: set-order
    return first


@workflow
async def joins(names: AnySet[str]) -> str:
    return ", ".join(names)  # expect: set-order


@workflow
async def takes_the_next(names: set[str]) -> str:
    return next(iter(names))  # expect: set-order


@workflow
async def writes_it_out(names: set[str]) -> None:
    await note(f"for {names}")  # expect: set-order


def each(names):
    for name in names:  # expect: set-order via hands_a_set_over > each
        yield name


@workflow
async def hands_a_set_over() -> None:
    for name in each({"ann", "bob"}):
        await note(name)


@workflow
async def fills_a_set(orders: list[Order]) -> None:
    seen = set()
    for order in orders:
        seen.add(order.id)
    for name in seen:  # expect: set-order
        await note(name)


@workflow
async def hashes(order: Order) -> int:
    return hash(order.id) % 4  # expect: hash


@workflow
async def identifies(order: Order) -> str:
    return f"order-{id(order)}"  # expect: hash
