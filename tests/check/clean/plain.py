"""What workflow code may do, though it looks as if it might not."""

import asyncio
import hashlib
import json
import logging
import math
import os.path
import random as chance
import time
import uuid as ids
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import perdure
from perdure import NonRetryable, Signal, State, now, patched, random, step, uuid, workflow

if TYPE_CHECKING:
    from requests import Session

log = logging.getLogger(__name__)
approval = Signal[str]("approval")
status = State[str]("status")
LIMIT = 10
PRICES = {"tea": 3, "coffee": 4}
KINDS = {"tea", "coffee"}
ROOT = Path("/srv")


class Size(Enum):
    SMALL = 1
    LARGE = 2


@dataclass
class Order:
    id: str
    tags: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)
    made_at: datetime = field(default_factory=lambda: datetime.fromtimestamp(0, tz=UTC))
    key: str = field(default_factory=lambda: ids.uuid4().hex)


@step
async def note(text: str) -> str:
    print(time.time(), ids.uuid4(), os.environ.get("HOME"))
    return text


@step
def read(name: str) -> str:
    with open(name) as file:
        return file.read()


@workflow
async def uses_the_runs_own_time_and_chance() -> str:
    began = now()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 60
    dice = random().randint(1, 6)
    random().shuffle([1, 2])
    return f"{began} {deadline} {dice} {uuid()} {perdure.now()}"


@workflow
async def draws_from_a_seeded_source(seed: int) -> float:
    source = chance.Random(seed)
    return source.random() + source.choice([1.0, 2.0])


@workflow
async def computes_with_dates(day: date) -> str:
    later = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=3)
    return f"{later.isoformat()} {day.strftime('%Y')} {datetime.fromisoformat('2026-01-01')}"


@workflow
async def makes_ids_from_names(name: str) -> str:
    return str(ids.uuid5(ids.NAMESPACE_DNS, name)) + hashlib.sha256(name.encode()).hexdigest()


@workflow
async def sorts_a_set(names: set[str]) -> None:
    for name in sorted(names):
        await note(name)
    assert "ann" in names
    log.info("%s of %s", len(names), names)
    print(f"there are {names}")


@workflow
async def asks_a_set(names: set[str], known: set[str]) -> int:
    total = sum(len(name) for name in names)
    if any(name.startswith("a") for name in names) or names <= known or not names:
        total += len(names & known)
    lengths = {len(name) for name in names}
    best = max(names, default="")
    return total + max(lengths) + len(best) + len(Counter(names))


@workflow
async def keeps_numbers_and_tasks_in_sets() -> None:
    for n in {1, 2, 3}:
        await note(str(n))
    tasks = {asyncio.create_task(note(str(n))) for n in range(3)}
    done, pending = await asyncio.wait(tasks)
    for task in done:
        task.result()
    for task in pending:
        task.cancel()
    for n in set(range(3)):
        await note(str(n))


@workflow
async def copies_a_set(names: set[str]) -> set[str]:
    seen: set[str] = set()
    for name in names:
        seen.add(name)
    seen |= names
    return seen.union(names)


@workflow
async def narrows_a_set_to_a_list(names: set[str]) -> None:
    names = sorted(names)
    for name in names:
        await note(name)


@workflow
async def loops_over_a_dict(prices: dict[str, int]) -> None:
    for name, cents in prices.items():
        await note(f"{name}: {cents}")
    for name in prices:
        await note(name)
    for name in PRICES.keys():
        await note(name)
    for size in Size:
        await note(size.name)


@workflow
async def reads_globals(item: str) -> int:
    if item not in KINDS:
        raise NonRetryable(f"no {item}")
    return PRICES[item] * LIMIT + PRICES.get("tea", 0)


@workflow
async def changes_what_is_its_own(order: Order) -> list[str]:
    seen: list[str] = []
    by_item: dict[str, list[str]] = defaultdict(list)
    order.tags.add("seen")
    order.lines.append("one")
    by_item["tea"].append(order.id)
    prices = dict(PRICES)
    prices["milk"] = 1
    seen += ["two"]
    other = replace(order, id="two", key="k")
    other.lines = [*order.lines]
    return sorted(seen)


@workflow
async def counts_in_a_nested_function() -> int:
    total = 0

    def add(n: int) -> None:
        nonlocal total
        total += n

    for n in range(3):
        add(n)
    return total


@workflow
async def takes_parts_of_paths(place: Path) -> str:
    name = place.with_suffix(".md").name
    return os.path.join(str(place.parent), name) + str(PurePath(name) / "x") + str(ROOT / "shop")


@workflow
async def formats() -> str:
    return json.dumps({"a": math.pi, "b": str(Decimal("1.5"))}) + time.strftime("%Y", time.gmtime(0))


@workflow
async def publishes() -> str:
    status.set("waiting")
    who = await approval.receive()
    if patched("greet"):
        await note(who)
    return who


@workflow
async def compares_identities(a: Order, b: Order) -> bool:
    return id(a) == id(b) or a is b


@workflow
async def knows_its_order_key(order: Order) -> Order:
    return Order("two", {"a"}, [], now(), str(uuid()))


@workflow
async def catches_what_it_may(order: Order) -> str:
    try:
        await note(order.id)
    except (ValueError, TimeoutError) as error:
        await note(str(error))
    except Exception:
        log.exception("no")
    except BaseException:
        await note("undo")
        raise
    with suppress(ValueError):
        await note("two")
    try:
        json.loads("{")
    except:
        pass
    return order.id


@workflow
async def stops_its_own_task() -> None:
    task = asyncio.create_task(asyncio.sleep(math.inf))
    await note("on the way")
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@workflow
async def loses_the_order_at_once(names: set[str]) -> int:
    lengths = sorted(map(len, names)) + sorted(list(names), key=str.lower)
    return len(lengths) + sum(map(len, filter(None, names))) + len(set(enumerate(sorted(names))))


@workflow
async def remembers_by_identity(orders: list[Order]) -> int:
    seen: set[int] = set()
    by_id: dict[int, str] = {}
    for order in orders:
        if id(order) not in seen:
            seen.add(id(order))
            by_id[id(order)] = order.id
    return len(seen)


class Key:
    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)


@workflow
async def has_keys(name: str) -> int:
    return len({Key(name): 1})
