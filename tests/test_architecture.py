"""The laws of the house that a program can hold: sizes, who may import whom, one clock, one public list.

All but two tests read the source as trees and import nothing. Modules are named
without the `perdure.` in front; the room of a module is the first part of its
name. Imports inside functions and under `TYPE_CHECKING` count like any other:
a knot that only shows at run time's edge is still a knot.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "src" / "perdure"

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

MAY_IMPORT = {
    "errors": set[str](),
    "core": {"errors"},
    "codec": {"core", "errors"},
    "check": {"errors"},
    "schemas": {"codec", "errors"},
    "stores": {"core", "errors"},
    "runtime": {"codec", "core", "errors", "stores"},
    "blocks": {"check", "codec", "core", "errors", "runtime", "schemas", "stores"},
    "views": {"blocks", "codec", "core", "errors", "runtime", "stores"},
    "doors": {"codec", "core", "errors", "runtime", "stores"},
    "temporal": {"blocks", "codec", "core", "errors", "runtime", "stores"},
    "homes": {"doors", "errors", "runtime", "temporal"},
    "streaming": {"blocks", "codec", "core", "doors", "errors", "stores"},
    "client": {
        "blocks",
        "codec",
        "core",
        "doors",
        "errors",
        "homes",
        "runtime",
        "stores",
        "streaming",
        "views",
    },
    "engine": {"blocks", "client", "codec", "core", "doors", "errors", "homes", "runtime", "stores", "views"},
    "sync": {
        "blocks",
        "client",
        "core",
        "engine",
        "errors",
        "runtime",
        "stores",
        "streaming",
        "views",
    },
    "journals": {"blocks", "codec", "core", "errors", "runtime", "stores"},
    "contracts": {"blocks", "core", "errors", "schemas", "stores"},
    "moving": {"core", "errors", "runtime", "stores"},
    "bridges": {"blocks", "core", "errors", "runtime", "stores"},
    "asyncapi": {"blocks", "bridges", "errors"},
    "faces": {
        "asyncapi",
        "blocks",
        "check",
        "client",
        "contracts",
        "engine",
        "errors",
        "journals",
        "moving",
        "schemas",
        "streaming",
        "views",
    },
    "testing": {
        "blocks",
        "client",
        "codec",
        "core",
        "doors",
        "engine",
        "errors",
        "journals",
        "runtime",
        "stores",
        "views",
    },
}
"""Which rooms a room may import. A new room needs a line here, and so a thought."""

CORE_STDLIB = {
    "__future__", "abc", "asyncio", "binascii", "bisect", "collections", "contextlib", "contextvars",
    "copy", "dataclasses", "datetime", "decimal", "enum", "functools", "gc", "hashlib", "heapq", "inspect",
    "itertools", "math", "operator", "re", "reprlib", "string", "struct", "sys", "textwrap", "traceback",
    "types", "typing", "uuid", "weakref", "zlib", "zoneinfo",
}  # fmt: skip
"""No clock, no randomness, no disk, no thread, no network, no logging."""

CORE_ASYNCIO = {"CancelledError", "Future", "Task", "current_task"}
"""What any file of the core may use of asyncio; none of it starts or waits for anything."""

CORE_ASYNCIO_BY_FILE = {
    "core.ready": {"events"},
    "core.loop": {"AbstractEventLoop", "Handle", "InvalidStateError", "TimerHandle", "events", "tasks"},
}
"""What one file may use besides. A loop also says which loop is the running one, and asks which task runs."""

CLOCK = "runtime.clock"
CHANCE = {
    # In `parked` it is sleep(0), to let others in; a drain waits for steps, the others for another process.
    "asyncio.sleep": {
        CLOCK,
        "client",
        "faces.cli.events",
        "faces.cli.lagging",
        "runtime.driver",
        "runtime.parked",
        "temporal.door",
    },
    "datetime.date.today": {CLOCK},
    "datetime.datetime.now": {CLOCK},
    "datetime.datetime.today": {CLOCK},
    "datetime.datetime.utcnow": {CLOCK},
    "os.getrandom": {CLOCK},
    "os.urandom": {CLOCK},
    # In the second it is Random, seeded by the run; in the third it names a process to its server.
    "random": {CLOCK, "blocks.inside", "stores.postgres.connection"},
    "secrets": {CLOCK},
    "time.monotonic": {CLOCK, "stores.postgres.ear"},  # how long ago it told something
    "time.monotonic_ns": {CLOCK},
    "time.sleep": {CLOCK},
    "time.time": {CLOCK},
    "time.time_ns": {CLOCK, "stores.postgres.store"},  # how far the server's clock is ahead of it
    "uuid.uuid1": {CLOCK},
    "uuid.uuid4": {CLOCK},
}
"""What asks the time or chance, and where that may stand. Simulation depends on there being one place."""


@dataclass(frozen=True)
class Module:
    """One source file of the package."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@cache
def modules() -> dict[str, Module]:
    found = dict[str, Module]()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def imported(module: Module) -> Iterator[tuple[str, str, int]]:
    """(module, name in it or "", line) of each import; our own modules as `.core.records`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _ours(alias.name), "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = _ours(node.module or "")
            if node.level:
                parts = module.package.split(".") if module.package else []
                parts = parts[: len(parts) - node.level + 1] + ([node.module] if node.module else [])
                base = "." + ".".join(parts)
            for alias in node.names:
                yield base, alias.name, node.lineno


def _ours(name: str) -> str:
    return "." + name.removeprefix("perdure").lstrip(".") if is_part_of(name, "perdure") else name


def our_imports(module: Module) -> Iterator[tuple[str, int]]:
    """(module of ours, line) of each import. `from . import records` means the module `records`."""
    for base, name, line in imported(module):
        if base.startswith("."):
            inner = f"{base[1:]}.{name}".strip(".")
            yield (inner if inner in modules() else base[1:]), line


def outside_imports(module: Module) -> Iterator[tuple[str, int]]:
    for base, _, line in imported(module):
        if not base.startswith("."):
            yield base, line


def uses(module: Module) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of all that is used of outside modules: `time.time`, however it was imported."""
    names = dict[str, str]()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(module.tree):
        dotted = _dotted(node) if isinstance(node, ast.Attribute) else ""
        first, _, rest = dotted.partition(".")
        if first in names:
            yield f"{names[first]}.{rest}", node.lineno


def _dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; empty for anything that does not begin with a name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name) if before := _dotted(value):
            return f"{before}.{name}"
        case _:
            return ""


def is_part_of(name: str, whole: str) -> bool:
    return name == whole or name.startswith(whole + ".")


def show(complaints: list[str]) -> str:
    return "\n  ".join(["", *sorted(complaints)])


def test_no_file_is_longer_than_500_lines() -> None:
    lines = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in sources("src", "tests", "battery", "bench", "examples")
    }

    too_long = [f"{path.relative_to(CHECKOUT)}: {n} lines" for path, n in lines.items() if n > FILE_LINES_MAX]

    assert not too_long, show(too_long)


def test_no_function_of_the_package_is_longer_than_60_lines() -> None:
    functions = [
        (module, node)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    too_long = [
        f"{module.name}.{node.name} (line {node.lineno}): {node.end_lineno - node.lineno + 1} lines"
        for module, node in functions
        if node.end_lineno is not None and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]

    assert not too_long, show(too_long)


def test_every_module_says_what_it_holds() -> None:
    silent = [
        module.name or "__init__"
        for module in modules().values()
        if module.tree.body and not ast.get_docstring(module.tree)
    ]

    assert not silent, show(silent)


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {module.room for module in modules().values() if module.room and module.room != "__main__"}

    assert rooms <= MAY_IMPORT.keys(), f"say in MAY_IMPORT what these may import: {rooms - MAY_IMPORT.keys()}"


def test_a_room_imports_only_the_rooms_below_it() -> None:
    allowed = {room: {room, *below} for room, below in MAY_IMPORT.items()}

    wrong = [
        f"{module.name}, line {line}, imports {name or 'the package itself'}"
        for module in modules().values()
        if module.room in allowed
        for name, line in our_imports(module)
        if name.split(".")[0] not in allowed[module.room]
    ]

    assert not wrong, show(wrong)


def test_a_concrete_store_is_named_only_where_a_url_is_opened() -> None:
    concrete = {f"stores.{path.name}" for path in (PACKAGE / "stores").iterdir() if path.is_dir()}

    wrong = [
        f"{module.name}, line {line}, imports {name}"
        for module in modules().values()
        if module.name != "stores.opening"
        for name, line in our_imports(module)
        for store in concrete
        if is_part_of(name, store) and not is_part_of(module.name, store)
    ]

    assert not wrong, show(wrong)


def test_the_core_imports_nothing_that_touches_the_world() -> None:
    core = [module for module in modules().values() if module.room == "core"]

    wrong = [
        f"{module.name}, line {line}, imports {name}"
        for module in core
        for name, line in outside_imports(module)
        if name.split(".")[0] not in CORE_STDLIB | {"msgspec"}
    ]

    assert not wrong, show(wrong)


def test_the_core_uses_of_asyncio_only_what_a_loop_is_made_of() -> None:
    core = [module for module in modules().values() if module.room == "core"]

    wrong = [
        f"{module.name}, line {line}, uses {name}"
        for module in core
        for name, line in uses(module)
        if is_part_of(name, "asyncio")
        if name.split(".")[1] not in CORE_ASYNCIO | CORE_ASYNCIO_BY_FILE.get(module.name, set())
    ]

    assert not wrong, show(wrong)


def test_the_time_and_chance_are_asked_in_one_place() -> None:
    wrong = [
        f"{module.name}, line {line}, uses {name}"
        for module in modules().values()
        for name, line in uses(module)
        for source, places in CHANCE.items()
        if is_part_of(name, source) and module.name not in places
    ]

    assert not wrong, show(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module.name: {name for name, _ in our_imports(module) if name != module.name}
        for module in modules().values()
        if module.name
    }

    circle = None
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " → ".join(error.args[1])

    assert circle is None, circle


@pytest.fixture
def public_names() -> list[str]:
    """What `perdure.__all__` says in the source."""
    top = modules()[""]
    for node in top.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    pytest.fail("src/perdure/__init__.py has no __all__")


def test_the_public_list_is_sorted_and_is_what_the_package_offers(public_names: list[str]) -> None:
    at_once, later = _offered()

    assert public_names == sorted(public_names)
    assert {*at_once, *later} == {name for name in public_names if name != "__version__"}


def test_what_is_loaded_later_is_what_type_checkers_are_told(public_names: list[str]) -> None:
    import perdure

    at_once, later = _offered()

    assert later == perdure._LATER
    assert not {*at_once} & {*later}
    assert all(getattr(perdure, name).__name__ == name for name in later)
    with pytest.raises(AttributeError, match="'perdure' has no attribute 'nothing'"):
        _ = perdure.nothing


def _offered() -> tuple[list[str], dict[str, str]]:
    """The names that the package imports; and those that it imports for type checkers, with their modules."""
    top = modules()[""].tree.body
    inner = [node for block in top if isinstance(block, ast.If) for node in block.body]

    def imports(body: list[ast.stmt]) -> list[tuple[str, str]]:
        found = [node for node in body if isinstance(node, ast.ImportFrom) and node.level]
        return [(alias.asname or alias.name, f".{node.module}") for node in found for alias in node.names]

    return [name for name, _ in imports(top)], dict(imports(inner))


def test_every_public_name_is_used_in_a_test(public_names: list[str]) -> None:
    used = {
        name
        for path in sources("tests")
        if path != Path(__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _names_in(node)
    }

    untested = [name for name in public_names if name not in used | {"__version__"}]

    assert not untested, show(untested)


def _names_in(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
            yield name
        case _:
            pass


def test_importing_the_package_loads_only_msgspec_and_apsw_beside_the_standard_library(
    public_names: list[str],
) -> None:
    # What those two load themselves is theirs: msgspec takes typing_extensions where it is installed.
    program = (
        "import sys, apsw, msgspec; before = {*sys.modules}; import perdure; print(*{*sys.modules} - before)"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert answer.returncode == 0, answer.stderr
    loaded = {name.split(".")[0] for name in answer.stdout.split()}
    assert "perdure" in loaded
    assert loaded - sys.stdlib_module_names == {"perdure"}


def test_importing_the_package_leaves_the_heavy_modules_of_the_standard_library_alone(
    public_names: list[str],
) -> None:
    program = "import sys, perdure; print(*sys.modules)"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert answer.returncode == 0, answer.stderr
    heavy = {"http.client", "multiprocessing", "sqlite3", "unittest", "urllib.request", "xml.etree"}
    assert not heavy & set(answer.stdout.split())
