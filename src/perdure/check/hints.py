"""Type hints as values, and which of them can never be stored.

The codec refuses such a hint when the program runs; here it is found before.
What the codec would not refuse is not refused here either: a list of callables may be empty.
"""

from __future__ import annotations

import ast

from .frame import Frame
from .outside import canonical, names_in
from .values import (
    OPAQUE,
    Class,
    ClassValue,
    Instance,
    Many,
    Outside,
    OutsideObject,
    Scope,
    SetValue,
    Value,
    merge,
)

_SETS = {
    "builtins.set",
    "builtins.frozenset",
    "typing.Set",
    "typing.FrozenSet",
    "typing.AbstractSet",
    "typing.MutableSet",
}
_LISTS = {
    f"typing.{name}"
    for name in ("List", "Sequence", "Iterable", "Collection", "Tuple", "MutableSequence", "Iterator")
} | {"builtins.list", "builtins.tuple"}
_DICTS = {
    "builtins.dict",
    "typing.Dict",
    "typing.Mapping",
    "typing.MutableMapping",
    "collections.defaultdict",
}
_WRAPPERS = {
    f"typing.{name}" for name in ("Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly")
}
_FIRM = {"builtins.int", "builtins.bool", "builtins.float", "asyncio.Task", "asyncio.Future"}
_NOTHING = {
    "builtins.None",
    "typing.Any",
    "builtins.object",
    "builtins.str",
    "builtins.int",
    "builtins.float",
}

_NEVER_STORED = frozenset(
    f"typing.{name}"
    for name in names_in("""
        Callable Generator AsyncGenerator Iterator AsyncIterator AsyncIterable Awaitable Coroutine IO TextIO
        BinaryIO Type Pattern Match ContextManager AsyncContextManager""")
) | names_in("""
        builtins.type builtins.complex builtins.range builtins.slice builtins.BaseException
        builtins.Exception builtins.ValueError io.TextIOWrapper io.BytesIO io.StringIO io.BufferedReader
        io.BufferedWriter io.FileIO socket.socket logging.Logger contextvars.ContextVar contextvars.Context
        types.SimpleNamespace types.ModuleType types.FunctionType re.Pattern re.Match fractions.Fraction
        collections.deque sqlite3.Connection sqlite3.Cursor random.Random subprocess.Popen ssl.SSLContext
        queue.Queue datetime.tzinfo concurrent.futures.Future concurrent.futures.Executor
        concurrent.futures.ThreadPoolExecutor asyncio.AbstractEventLoop perdure.Engine perdure.Client
        perdure.Child perdure.Step perdure.Workflow perdure.Signal perdure.State perdure.Update""")
_NEVER_STORED_BELOW = tuple(
    names_in("""
        asyncio.Lock asyncio.Queue asyncio.Event asyncio.Task asyncio.Future asyncio.Semaphore
        asyncio.Condition asyncio.StreamReader asyncio.StreamWriter threading. multiprocessing.
        sqlalchemy.engine. sqlalchemy.Engine sqlalchemy.Connection sqlalchemy.orm.Session
        sqlalchemy.ext.asyncio. psycopg.Connection psycopg.AsyncConnection psycopg2.extensions.
        asyncpg.Connection asyncpg.Pool redis.Redis redis.asyncio. httpx.Client httpx.AsyncClient
        requests.Session aiohttp.ClientSession""")
)
_PLAIN_DECORATED = ("dataclass", "define", "frozen", "attrs", "s", "mutable")


def value_of(hint: ast.expr | None, frame: Frame) -> Value:
    """What a hint promises of a value."""
    match hint:
        case ast.Constant(value=str(text)):
            return value_of(_parse(text), frame)
        case ast.Name() | ast.Attribute():
            return _plain(_resolve(hint, frame), frame)
        case ast.Subscript(value=base, slice=inner):
            return _subscript(name_of(base, frame), base, inner, frame)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            parts = [part for part in (left, right) if not _is_none(part)]
            return merge(*(value_of(part, frame) for part in parts)) if parts else OPAQUE
        case _:
            return OPAQUE


def prefer(hinted: Value, value: Value) -> Value:
    """Of what a hint says and what the code puts there, what tells more."""
    says_little = value == OPAQUE or (isinstance(value, Many) and value.element == OPAQUE)
    return hinted if hinted != OPAQUE and (says_little or isinstance(hinted, (SetValue, Instance))) else value


def _subscript(name: str, base: ast.expr, inner: ast.expr, frame: Frame) -> Value:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name in _WRAPPERS and parts:
        return value_of(parts[0], frame)
    if name in ("typing.Optional", "typing.Union"):
        return merge(*(value_of(part, frame) for part in parts if not _is_none(part)))
    if name in _SETS and parts:
        return SetValue(all(name_of(part, frame) in _FIRM for part in parts[:1]))
    if name in _LISTS and parts:
        return Many(merge(*(value_of(part, frame) for part in parts if not _is_dots(part))))
    if name in _DICTS and len(parts) == 2:
        return Many(value_of(parts[1], frame), is_dict=True)
    return _plain(_resolve(base, frame), frame)


def _plain(value: Value, frame: Frame) -> Value:
    if isinstance(value, ClassValue):
        return Instance(value.definition)
    if not isinstance(value, Outside):
        return OPAQUE
    name = canonical(value.name)
    if name in _SETS:
        return SetValue()
    if name in _LISTS:
        return Many(OPAQUE)
    if name in _DICTS:
        return Many(OPAQUE, is_dict=True)
    if name == "typing.Self" and frame.function is not None and frame.function.owner is not None:
        return Instance(frame.function.owner)
    if name in _NOTHING or name.startswith("typing."):
        return OPAQUE
    return OutsideObject(name)


def _resolve(node: ast.expr, frame: Frame) -> Value:
    """What a dotted name in a hint means: no more than names are looked at."""
    if isinstance(node, ast.Name):
        return frame.lookup(node.id) if frame.mode == "quiet" else _quietly(node.id, frame)
    if isinstance(node, ast.Attribute):
        base = _resolve(node.value, frame)
        if isinstance(base, Outside):
            return Outside(canonical(f"{base.name}.{node.attr}"))
        module = getattr(base, "module", None)
        if module is not None:
            return frame.walker.global_value(module, node.attr) or OPAQUE
    return OPAQUE


def _quietly(name: str, frame: Frame) -> Value:
    scope = frame.scope
    while scope.parent is not None and name not in scope.names:
        scope = scope.parent
    found = scope.names.get(name) or frame.walker.global_value(frame.scope.module, name)
    return found if found is not None else Outside(f"builtins.{name}")


def name_of(node: ast.expr, frame: Frame) -> str:
    """The whole name of something outside that is written as a dotted name; else nothing."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        parsed = _parse(node.value)
        return "" if parsed is None else name_of(parsed, frame)
    if isinstance(node, ast.Subscript):
        return name_of(node.value, frame)
    value = _resolve(node, frame)
    return canonical(value.name) if isinstance(value, Outside) else ""


def _parse(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


# -- what cannot be stored -----------------------------------------------------------------------


def unstorable(hint: ast.expr | None, frame: Frame, seen: frozenset[str] = frozenset()) -> str:
    """What in a hint can never be written as JSON and read back, as people write it; else nothing."""
    match hint:
        case ast.Constant(value=str(text)):
            return unstorable(_parse(text), frame, seen)
        case ast.Subscript(value=base, slice=inner) if name_of(base, frame) in _WRAPPERS:
            return unstorable(inner.elts[0] if isinstance(inner, ast.Tuple) else inner, frame, seen)
        case ast.Name() | ast.Attribute() | ast.Subscript():
            base = hint.value if isinstance(hint, ast.Subscript) else hint
            value = _resolve(base, frame)
            if isinstance(value, ClassValue):
                return _unstorable_class(value.definition, frame, seen)
            name = canonical(value.name) if isinstance(value, Outside) else ""
            never = name in _NEVER_STORED or name.startswith(_NEVER_STORED_BELOW)
            return ast.unparse(hint) if never else ""
        case _:
            return ""


def _unstorable_class(definition: Class, frame: Frame, seen: frozenset[str]) -> str:
    """A plain class, or a dataclass that must have a field which cannot be stored."""
    node = definition.node
    if node.name in seen:
        return ""
    if not node.decorator_list and not node.bases and not node.keywords:
        return f"{node.name}, which is a plain class"
    names = {_last(decorator) for decorator in node.decorator_list}
    if not names & set(_PLAIN_DECORATED):
        return ""
    inside = Frame(frame.walker, Scope(definition.module, "quiet", definition.scope), frame.owner)
    for field in node.body:
        if not isinstance(field, ast.AnnAssign) or field.value is not None:
            continue
        if found := unstorable(field.annotation, inside, seen | {node.name}):
            return f"{node.name}.{ast.unparse(field.target)}: {found}"
    return ""


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
