"""The short form of the check, when a workflow is decorated: its own body, and functions beside it.

Names mean what they mean in the live module, so nothing but the source of these
functions is read, and nothing of other modules. It is silent where there is no
source, it costs a few milliseconds at most, and it never raises anything of its
own: what it finds is a `DeterminismWarning` at the place where it stands.
"""

from __future__ import annotations

import ast
import linecache
import os
import sys
import textwrap
import types
import warnings
from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from typing import Any, cast

from ..errors import DeterminismWarning
from .findings import Finding
from .outside import canonical
from .project import Allowance, is_allowed, read_allowances
from .rules import RULES
from .values import (
    OPAQUE,
    Binding,
    Function,
    FunctionValue,
    Known,
    Many,
    Module,
    Opaque,
    Outside,
    OutsideObject,
    Scope,
    SetValue,
    Value,
)
from .walk import Walk

_LINES_MAX = 150
"""How many lines of one workflow, with what it calls, are looked at: five milliseconds at the most dense."""

_NO_TYPES: dict[str, Any] = {"type_params": []} if sys.version_info >= (3, 12) else {}

_KEPT = 1_000
_found: dict[tuple[str, int], tuple[Finding, ...]] = {}
"""By file and hash of the code: one that is defined again is not looked at again."""


def warn(function: Callable[..., Any]) -> None:
    """Look at a workflow's function, and warn of what would not replay the same."""
    for finding in find(function):
        rule = RULES[finding.rule]
        text = f"{function.__qualname__}: {finding.message} [{rule.id}] {rule.fix}"
        registry = function.__globals__.setdefault("__warningregistry__", {})
        warnings.warn_explicit(
            text, DeterminismWarning, finding.path, finding.line, function.__module__, registry
        )


def find(function: Callable[..., Any]) -> tuple[Finding, ...]:
    """What is found; the same again for code that was looked at before."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return ()
    key = (code.co_filename, hash(code))
    if key not in _found:
        if len(_found) >= _KEPT:
            _found.clear()
        try:
            _found[key] = _look(function)
        except Exception:
            # A check that cannot tell has nothing to say; the program must start.
            _found[key] = ()
    return _found[key]


def forget() -> None:
    """Look at all code anew."""
    _found.clear()


def _look(function: Any) -> tuple[Finding, ...]:
    module = LiveModule(function)
    node = module.parse(function)
    if node is None:
        return ()
    names = dict[str, Value]()
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        names[name] = module.closed_over(name, cell)
    walk = Walk()
    walk.walk_workflow(Function(node, module, Scope(module, "workflow", None, names)))
    return tuple(walk.findings.settle(walk.entries))


class LiveModule:
    """The module of a function as it is while the function is being decorated."""

    def __init__(self, function: Any) -> None:
        self.name: str = function.__module__
        self.path: str = function.__code__.co_filename
        self._globals: dict[str, Any] = function.__globals__
        self._lines_left = _LINES_MAX
        self._allowances: list[Allowance] = []
        self._indents: dict[int, int] = {}
        """By line, how much was cut off on the left."""

    def find(self, name: str) -> Binding | None:
        """What a global name means now."""
        return Known(self._value(name, self._globals[name])) if name in self._globals else None

    def closed_over(self, name: str, cell: types.CellType) -> Value:
        """What a name of the function around means now."""
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return OPAQUE
        known = self._value(name, value)
        # Containers of the function around are as likely its own result as anybody's state.
        return OPAQUE if isinstance(known, (SetValue, Many, Opaque)) else known

    def module(self, name: str) -> Module | None:
        """Other modules are not looked into."""
        return None

    def absolute(self, node: ast.ImportFrom) -> str:
        """The whole name of the module that a `from … import` means."""
        package = str(self._globals.get("__package__") or "").split(".")
        base = package[: len(package) - node.level + 1] if node.level else []
        return ".".join([*base, *([node.module] if node.module else [])])

    def names(self) -> tuple[str, ...]:
        """Nobody imports all names of it here."""
        return ()

    def column(self, line: int, offset: int) -> int:
        """The column, from 1, in the file."""
        return offset + self._indents.get(line, 0) + 1

    def allows(self, rule: str, first: int, last: int) -> bool:
        """Whether a comment on these lines allows a rule to be broken."""
        return is_allowed(self._allowances, rule, first, last)

    def parse(self, function: Any) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The tree of a function of this file; None where its source cannot be had."""
        code: types.CodeType = function.__code__
        first, last = code.co_firstlineno, _last_line(code)
        lines = linecache.getlines(code.co_filename, self._globals)[first - 1 : last]
        self._lines_left -= len(lines)
        if not lines or self._lines_left < 0:
            return None
        text = "".join(lines)
        cut = textwrap.dedent(text)
        node = ast.parse("\n" * (first - 1) + cut).body[0]
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name != code.co_name:
            return None
        indent = len(lines[0]) - len(cut.partition("\n")[0]) - 1
        self._indents.update(dict.fromkeys(range(first, last + 1), max(0, indent)))
        for one in read_allowances(cut):
            self._allowances.append(replace(one, line=one.line + first - 1))
        return node

    def _value(self, name: str, value: Any) -> Value:
        kind = cast(type[Any], type(value))  # of Any, type() is not known to be a type
        is_ours = kind.__module__.startswith("perdure.")
        place = f"{self.name}.{name}"
        match value:
            case types.ModuleType():
                return Outside(canonical(value.__name__))
            case types.FunctionType():
                return self._function(value)
            case types.MethodType() | types.BuiltinMethodType():
                return Outside(canonical(_name_of_method(value)))
            case type():
                return OPAQUE if value.__module__ == self.name else Outside(_whole_name(value))
            case dict():
                return Many(OPAQUE, is_dict=True, shared=place)
            case list():
                return Many(OPAQUE, shared=place)
            case set() | frozenset():
                elements: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]
                return SetValue(is_firm=all(isinstance(one, int) for one in elements), shared=place)
            case _ if value is os.environ:
                return Outside("os.environ")
            case _ if value is sys.argv:
                return Outside("sys.argv")
            case _ if is_ours and hasattr(value, "fn"):
                return self._stub(value)
            case _ if kind.__module__ in (self.name, "builtins"):
                return Opaque(place)
            case _:
                return OutsideObject(_whole_name(kind), place)

    def _function(self, function: types.FunctionType) -> Value:
        if function.__globals__ is not self._globals:
            return Outside(_whole_name(function))
        node = None if function.__closure__ else self.parse(function)
        return OPAQUE if node is None else FunctionValue(Function(node, self))

    def _stub(self, definition: Any) -> Value:
        """A step or workflow: that its calls must be awaited is all that matters here."""
        name = str(definition.fn.__name__)
        no_arguments = ast.arguments([], [], None, [], [], None, [])
        node = ast.FunctionDef(name, no_arguments, [], [], **_NO_TYPES)
        kind = "step" if type(definition).__name__ == "Step" else "workflow"
        return FunctionValue(Function(node, self), kind)


_end_line = itemgetter(1)


def _last_line(code: types.CodeType) -> int:
    ends: map[int | None] = map(_end_line, code.co_positions())
    last = max(filter(None, ends), default=0)
    inner = [_last_line(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    return max([last, code.co_firstlineno, *inner])


def _whole_name(value: Any) -> str:
    name = canonical(f"{value.__module__}.{value.__qualname__}")
    return "pathlib.Path" if name in ("pathlib.PosixPath", "pathlib.WindowsPath") else name


def _name_of_method(value: Any) -> str:
    owner = value.__self__
    if isinstance(owner, types.ModuleType):
        return f"{owner.__name__}.{value.__name__}"
    if owner is getattr(sys.modules.get("random"), "_inst", None):
        return f"random.{value.__name__}"
    kind: Any = owner if isinstance(owner, type) else type(owner)
    return f"{kind.__module__}.{kind.__qualname__}.{value.__name__}"
