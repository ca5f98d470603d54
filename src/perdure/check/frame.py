"""One function while it is walked: its variables, who asked, and what is said of it.

Nothing is reported in the quiet mode, in which code is only looked at for the
values that it makes; and in a step's code only what the workflow could see of it.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .values import (
    CAPTURED,
    OPAQUE,
    Class,
    Function,
    FunctionValue,
    Mode,
    Module,
    Outside,
    Pending,
    Scope,
    Value,
    alternatives,
    share,
    shared_of,
)

_BUILTINS = frozenset(dir(builtins))


class Owner(NamedTuple):
    """The function or class whose code something stands in, and in which light it is looked at."""

    node: ast.AST
    mode: Mode


@dataclass(frozen=True, slots=True)
class Given:
    """What a call gives."""

    args: tuple[Value, ...] = ()
    keywords: Mapping[str, Value] = field(default_factory=dict[str, Value])
    is_open: bool = False
    """Whether there is more behind a `*` or `**`."""
    takes_any_order: bool = False
    """Whether what the call gives loses its order at once: `sorted(map(…))`."""


class Walker(Protocol):
    """What the walk offers to those that look at single statements and expressions."""

    def enter(self, value: FunctionValue, given: Given, frame: Frame, node: ast.AST) -> Value:
        """Walk a function that is called at `node`; what it returns."""
        ...

    def make(self, definition: Class, given: Given, frame: Frame, node: ast.AST) -> Value:
        """Walk what making an object of a class runs."""
        ...

    def global_value(self, module: Module, name: str) -> Value | None:
        """What a name at the top of a module means."""
        ...

    def define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, frame: Frame) -> Value:
        """What a `def` or `class` inside a function makes."""
        ...

    def mark(self, value: FunctionValue) -> FunctionValue:
        """A function was made a step or a workflow."""
        ...

    def method(self, definition: Class, name: str) -> Function | None:
        """A method of a class or of its bases."""
        ...

    def member(self, definition: Class, name: str) -> tuple[ast.stmt, Class] | None:
        """A member of a class or its bases, and the class that has it."""
        ...

    def attribute(self, definition: Class, name: str) -> Value | None:
        """What methods are known to store under `self.name`."""
        ...

    def store(self, definition: Class, name: str, value: Value) -> None:
        """A method stores a value under `self.name`."""
        ...

    def bases(self, definition: Class) -> tuple[Value, ...]:
        """The classes that a class derives from."""
        ...

    def read(self, place: str) -> None:
        """Workflow code reads what stands outside its own variables."""
        ...

    def write(self, place: str, frame: Frame, node: ast.AST) -> None:
        """A step changes what stands outside its own variables."""
        ...

    def report(self, rule: str, frame: Frame, node: ast.AST, what: str) -> None:
        """Keep a finding."""
        ...

    def is_loaded(self, function: Function, name: str) -> bool:
        """Whether a function's code ever reads a variable."""
        ...


@dataclass(slots=True)
class Frame:
    """One function as it is walked."""

    walker: Walker
    scope: Scope
    owner: Owner
    function: Function | None = None
    returns: list[Value] = field(default_factory=list[Value])
    takes_any_order: bool = False
    """Whether the iteration that is looked at now goes into something that has no order."""
    is_workflow_body: bool = False
    statement: ast.stmt | None = None
    """The one that is looked at now."""

    @property
    def mode(self) -> Mode:
        return self.scope.mode

    def report(self, rule: str, node: ast.AST, what: str) -> None:
        """Keep a finding, unless this is not workflow code."""
        if self.scope.mode == "workflow":
            self.walker.report(rule, self, node, what)

    def lookup(self, name: str) -> Value:
        """What a name means here."""
        value = self._lookup(name)
        if self.scope.mode == "workflow":
            for member in alternatives(value):
                if place := shared_of(member):
                    self.walker.read(place)
        return value

    def _lookup(self, name: str) -> Value:
        scope: Scope | None = self.scope
        while scope is not None:
            if name in scope.global_names:
                break
            if name in scope.names:
                value = scope.names[name]
                return share(value, CAPTURED + name) if self._is_captured_from(scope) else value
            scope = scope.parent
        found = self.walker.global_value(self.scope.module, name)
        if found is not None:
            return found
        return Outside(f"builtins.{name}") if name in _BUILTINS else OPAQUE

    def _is_captured_from(self, scope: Scope) -> bool:
        return self.scope.mode == "step" and scope.mode == "workflow"

    def bind(self, name: str, value: Value, node: ast.AST) -> None:
        """Give a variable a value."""
        scope: Scope | None = self.scope
        if name in scope.global_names:
            self.change(f"{self.scope.module.name}.{name}", node)
            return
        if name in scope.nonlocal_names:
            while scope is not None and (scope is self.scope or name not in scope.names):
                scope = scope.parent
            if scope is None:
                return
            if self._is_captured_from(scope):
                self.change(CAPTURED + name, node)
        scope.names[name] = value

    def change_value(self, value: Value, node: ast.AST) -> None:
        """Note that a value is changed: that is bad if it is not the run's own."""
        for member in alternatives(value):
            if place := shared_of(member):
                self.change(place, node)
                return

    def change(self, place: str, node: ast.AST) -> None:
        """Note that what stands at a shared place is changed."""
        if self.scope.mode == "step":
            if place.startswith(CAPTURED):
                what = (
                    f"A step changes {place.removeprefix(CAPTURED)!r}, a variable of the workflow around it."
                )
                self.walker.report("step-state", self, node, what)
            else:
                self.walker.write(place, self, node)
        elif not place.startswith(CAPTURED):
            self.report("global-mutated", node, f"{place} is changed, which all runs of the process share.")

    def expect_value(self, value: Value, node: ast.AST) -> None:
        """Note that a value is used as such: a call that was not awaited has none."""
        if pending := as_pending(value):
            self.report("not-awaited", node, f"{pending.what} is used as a value, and is not awaited.")


def as_pending(value: Value) -> Pending | None:
    """A call that surely is not awaited yet, if this is one."""
    members = alternatives(value)
    first = members[0] if members else OPAQUE
    return first if isinstance(first, Pending) and all(isinstance(one, Pending) for one in members) else None


def child_scope(frame: Frame) -> Frame:
    """The frame of a comprehension."""
    scope = Scope(frame.scope.module, frame.scope.mode, frame.scope)
    return Frame(frame.walker, scope, frame.owner, frame.function, frame.returns, statement=frame.statement)


def first_values(values: Sequence[Value]) -> Value:
    """The first of some arguments."""
    return values[0] if values else OPAQUE
