"""What lies outside a run's own variables, and is changed."""

from collections import defaultdict

from perdure import step, workflow

COUNT = 0
CACHE: dict[str, int] = {}
SEEN = []
BY_ITEM = defaultdict(list)
done = False


class Ledger:
    entries: list[str] = []

    def __init__(self) -> None:
        self.total = 0

    def add(self, cents: int) -> None:
        self.total += cents  # expect: global-mutated via adds_to_the_shared_ledger > Ledger.add


class Totals:
    runs = 0


ledger = Ledger()


@step
async def note(text: str) -> None: ...


@workflow
async def counts() -> int:
    global COUNT
    COUNT += 1  # expect: global-mutated
    return COUNT


@workflow
async def caches(name: str) -> int:
    CACHE[name] = len(name)  # expect: global-mutated
    return CACHE[name]


@workflow
async def collects(name: str) -> None:
    SEEN.append(name)  # expect: global-mutated


@workflow
async def collects_by_item(item: str, name: str) -> None:
    BY_ITEM[item].append(name)  # expect: global-mutated


@workflow
async def collects_under_another_name(name: str) -> None:
    seen = SEEN
    seen.extend([name])  # expect: global-mutated


@workflow
async def counts_in_a_class() -> None:
    Totals.runs += 1  # expect: global-mutated


@workflow
async def adds_to_the_shared_ledger() -> None:
    ledger.add(3)


@workflow
async def adds_to_the_list_of_a_class() -> None:
    mine = Ledger()
    mine.entries.append("one")  # expect: global-mutated


def forget() -> None:
    CACHE.clear()  # expect: global-mutated via forgets > forget


@workflow
async def forgets() -> None:
    forget()


@workflow
async def counts_in_a_step() -> int:
    tries = 0

    @step
    async def attempt() -> None:
        nonlocal tries
        tries += 1  # expect: step-state via counts_in_a_step > attempt

    await attempt()
    return tries


@workflow
async def collects_in_a_step() -> list[str]:
    found: list[str] = []

    @step
    def look() -> None:
        found.append("one")  # expect: step-state via collects_in_a_step > look

    await look()
    return found


@step
async def finish() -> None:
    global done
    done = True  # expect: step-state via looks_whether_it_is_done > finish


@workflow
async def looks_whether_it_is_done() -> str:
    await finish()
    return "done" if done else "open"


@workflow
async def calls_the_bare_step() -> None:
    await note.fn("hello")  # expect: step-inline
