"""A call: of a step, a function of the project, a class, or something outside.

Steps and workflows are not walked from here: a call of one is a value that wants
to be awaited. All other code of the project that is called is walked as if it
stood in the workflow.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from .frame import Frame, Given, first_values
from .outside import AWAITABLE, ORDER_FREE, ORDERED, canonical, judge, names_in
from .values import (
    OPAQUE,
    ClassValue,
    FunctionValue,
    Instance,
    Many,
    OneOf,
    Opaque,
    Outside,
    OutsideObject,
    Pending,
    SetValue,
    Value,
    alternatives,
    element_of,
    is_set,
    merge,
    share,
)

_FIRST = names_in("""
        functools.partial functools.partialmethod functools.update_wrapper typing.cast copy.copy copy.deepcopy
        dataclasses.replace asyncio.shield contextlib.aclosing contextlib.closing""")
"""Calls that give back their first argument, as far as concerns us (`cast` its second)."""

_TAKES_FUNCTIONS_AWAY = {"thread", "process", "loop"}
"""Who breaks one of these rules hands its functions elsewhere: they belong into a step anyway."""

_CONNECTS = {
    "sqlite3.connect": "sqlite3.Connection",
    "requests.session": "requests.Session",
    "psycopg.connect": "psycopg.Connection",
    "psycopg2.connect": "psycopg2.Connection",
    "asyncpg.connect": "asyncpg.Connection",
    "sqlalchemy.create_engine": "sqlalchemy.Engine",
    "boto3.client": "boto3.Client",
}
"""Functions that give an object whose methods do I/O."""

_LOOPS = {"asyncio.get_running_loop", "asyncio.get_event_loop"}
_CALLS_NOTHING = _FIRST | names_in("""
        builtins.isinstance builtins.issubclass builtins.type builtins.callable perdure.step
        perdure.workflow""")
"""What takes functions and does not call them."""

_HASHES = {"builtins.hash", "builtins.id"}


def call(function: Value, given: Given, frame: Frame, node: ast.Call) -> Value:
    """What a call gives; what it does is walked or judged on the way."""
    results = [_call_one(one, given, frame, node) for one in alternatives(function)]
    return merge(*results)


def _call_one(function: Value, given: Given, frame: Frame, node: ast.Call) -> Value:
    match function:
        case FunctionValue(kind="plain"):
            return frame.walker.enter(function, given, frame, node)
        case FunctionValue():
            pass_on(given, frame, node)
            return frame.walker.enter(function, given, frame, node)
        case ClassValue(definition=definition):
            pass_on(given, frame, node)
            return frame.walker.make(definition, given, frame, node)
        case Instance(definition=definition, shared=shared):
            method = frame.walker.method(definition, "__call__")
            if method is None:
                return OPAQUE
            bound = FunctionValue(method, bound=Instance(definition, shared))
            return frame.walker.enter(bound, given, frame, node)
        case Outside(name=name):
            return _call_outside(canonical(name), given, frame, node)
        case OutsideObject(kind="functools.wraps"):
            return first_values(given.args)
        case OutsideObject(kind=("perdure.step" | "perdure.workflow") as kind):
            return _decorate(kind, given, frame)
        case _:
            pass_on(given, frame, node)
            return OPAQUE


def _call_outside(name: str, given: Given, frame: Frame, node: ast.Call) -> Value:
    rule = judge(name, node)
    if rule is not None:
        frame.report(rule, node, f"{show(name)}() {_DOES[rule]}.")
    is_own_hash = frame.function is not None and frame.function.name.endswith("__hash__")
    if name in _HASHES and not is_own_hash and not all(isinstance(arg, ast.Constant) for arg in node.args):
        frame.report("hash", node, f"{show(name)}() gives another number in each process.")
    if name in ORDERED and not given.takes_any_order:
        for value, arg in zip(given.args, node.args, strict=False):
            check_order(value, arg, frame, f"{show(name)}()")
    if rule not in _TAKES_FUNCTIONS_AWAY and name not in _CALLS_NOTHING:
        pass_on(given, frame, node)
    if name in AWAITABLE:
        result = _SETS_OF_TASKS if name == "asyncio.wait" else OPAQUE
        return Pending(f"{show(name)}()", result)
    return _result(name, given, frame, node)


_SETS_OF_TASKS = Many(SetValue(is_firm=True))
"""`done, pending = await asyncio.wait(…)`: tasks of a run hash by their number."""


def _result(name: str, given: Given, frame: Frame, node: ast.Call) -> Value:
    first = first_values(given.args)
    last = name.rpartition(".")[2]
    if name == "functools.wraps":
        return OutsideObject("functools.wraps")
    if name in ("perdure.step", "perdure.workflow"):
        return _decorate(name, given, frame) if given.args else OutsideObject(name)
    if name in _FIRST:
        return given.args[1] if name == "typing.cast" and len(given.args) > 1 else first
    if name in _LOOPS:
        return OutsideObject("asyncio.loop")
    if name in ("builtins.set", "builtins.frozenset"):
        return SetValue(is_firm=not given.args or not _may_differ(first, node.args[0]))
    if name in ("builtins.list", "builtins.tuple", "builtins.sorted", "builtins.reversed", "builtins.iter"):
        return Many(element_of(first))
    if name == "collections.defaultdict":
        made = _result(first.name, Given(), frame, node) if isinstance(first, Outside) else OPAQUE
        return Many(made, is_dict=True)
    if name == "builtins.dict":
        return Many(OPAQUE, is_dict=True)
    if name in ("builtins.map", "builtins.filter") and given.args:
        elements = tuple(map(element_of, given.args[1:]))
        results = [
            frame.walker.enter(one, Given(elements), frame, node)
            for one in alternatives(first)
            if isinstance(one, FunctionValue)
        ]
        return Many(merge(*results) if results and name == "builtins.map" else OPAQUE)
    if name == "builtins.next":
        return element_of(first)
    if name.startswith("pathlib.Path.") or name in ("pathlib.PurePath", "pathlib.PosixPath"):
        return OutsideObject("pathlib.Path")
    if name in ("asyncio.create_task", "asyncio.ensure_future", "asyncio.TaskGroup.create_task"):
        return OutsideObject("asyncio.Task")
    if name in ("perdure.now", "perdure.uuid", "perdure.random", "perdure.run_info"):
        return OPAQUE
    if name in _CONNECTS:
        return OutsideObject(_CONNECTS[name])
    return OutsideObject(name) if last[:1].isupper() else OPAQUE


def _decorate(name: str, given: Given, frame: Frame) -> Value:
    function = first_values(given.args)
    if not isinstance(function, FunctionValue):
        return OPAQUE
    return frame.walker.mark(replace(function, kind="step" if name == "perdure.step" else "workflow"))


def _may_differ(value: Value, node: ast.expr) -> bool:
    """Whether a set made of this has an order that differs from process to process."""
    if isinstance(value, SetValue):
        return not value.is_firm
    if isinstance(value, Many) and isinstance(value.element, OutsideObject):
        return value.element.kind not in ("asyncio.Task", "builtins.int")
    match node:
        case ast.Call(func=ast.Name(id="range")):
            return False
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return not all(is_firm_element(element, OPAQUE) for element in elements)
        case _:
            return True


def is_firm_element(node: ast.expr, value: Value) -> bool:
    """Whether this hashes the same in each process."""
    if isinstance(value, OutsideObject) and value.kind == "asyncio.Task":
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float, bool))


def check_order(value: Value, node: ast.AST, frame: Frame, taker: str) -> None:
    """Note that something takes a set's elements in the order of the set."""
    if is_set(value):
        frame.report("set-order", node, f"{taker} takes the elements of a set in its order.")


def pass_on(given: Given, frame: Frame, node: ast.Call) -> None:
    """Functions that are given away may be called: they are walked here."""
    nodes = [*node.args, *(keyword.value for keyword in node.keywords)]
    values = [*given.args, *given.keywords.values()]
    for value, where in zip(values, nodes, strict=False):
        hand_over(value, where, frame)


def hand_over(value: Value, node: ast.AST, frame: Frame) -> None:
    """A value leaves for code that is not known, which may call it."""
    for member in alternatives(value):
        if isinstance(member, FunctionValue) and member.kind == "plain":
            frame.walker.enter(member, Given(is_open=True), frame, node)
        elif isinstance(member, Outside) and member.name.rpartition(".")[2][:1].islower():
            name = canonical(member.name)
            rule = None if isinstance(node, ast.Call) else judge(name)
            if rule is not None:
                frame.report(rule, node, f"{show(name)} is handed over to be called: it {_DOES[rule]}.")


def call_method(base: Value, name: str, given: Given, frame: Frame, node: ast.Call) -> Value | None:
    """A method of a list, dict or set; None if it is something else."""
    if (
        name in ("keys", "items")
        and not given.args
        and not isinstance(base, (Instance, OneOf, OutsideObject))
    ):
        return OutsideObject("builtins.dict_keys") if isinstance(base, (Many, Opaque)) else None
    if isinstance(base, SetValue):
        return _set_method(base, name, given, frame, node)
    if isinstance(base, Many):
        pass_on(given, frame, node)
        if name in ("extend", "join", "update"):
            for value, arg in zip(given.args, node.args, strict=False):
                if not base.is_dict or name != "update":
                    check_order(value, arg, frame, f".{name}()")
        if name in ("get", "pop", "setdefault", "popleft"):
            return share(base.element, base.shared) if base.shared else base.element
        return base if name == "copy" else Many(base.element) if name == "values" else OPAQUE
    return None


def _set_method(base: SetValue, name: str, given: Given, frame: Frame, node: ast.Call) -> Value:
    if name == "pop" and not base.is_firm:
        frame.report("set-order", node, "set.pop() takes whichever element comes first.")
    if name in ("union", "intersection", "difference", "symmetric_difference", "copy"):
        return SetValue(base.is_firm and not any(map(is_set, given.args)))
    if name in ("add", "update") and base.is_firm and not base.shared:
        # An empty set that is filled with who knows what has no firm order any more.
        target = node.func.value if isinstance(node.func, ast.Attribute) else None
        firm = all(is_firm_element(arg, value) for arg, value in zip(node.args, given.args, strict=False))
        if isinstance(target, ast.Name) and not firm:
            frame.scope.names[target.id] = SetValue()
    return OPAQUE


def takes_any_order(function: Value) -> bool:
    """Whether what goes into this call comes out without its order."""
    return isinstance(function, Outside) and canonical(function.name) in ORDER_FREE


def show(name: str) -> str:
    """A name as people write it."""
    return name.removeprefix("builtins.").replace("asyncio.loop.", "loop.")


_DOES = {
    "clock": "reads the machine's clock",
    "random": "draws random numbers",
    "uuid": "makes a random id",
    "environment": "tells of the process's surroundings",
    "file": "touches files",
    "network": "uses the network",
    "process": "works with processes",
    "library": "belongs to a library that does I/O",
    "thread": "uses threads",
    "loop": "runs or changes the event loop",
    "blocking-sleep": "blocks the thread",
}


def judge_read(name: str, frame: Frame, node: ast.AST) -> None:
    """A value that is bad to read, without any call: `os.environ`."""
    rule = judge(name)
    if rule is not None:
        frame.report(rule, node, f"{show(name)} {_DOES[rule]}.")
