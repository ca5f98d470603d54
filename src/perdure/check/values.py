"""What can be known of a value without running anything, and the places where names are looked up.

A value here is a guess that is right or says nothing (`Opaque`). `shared` names
the place outside the run's own variables that a value comes from
(`shop.prices.CACHE`): to change such a value is to change what others see.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Kind = Literal["plain", "step", "workflow"]
Mode = Literal["workflow", "step", "quiet"]
"""In which light code is looked at: as workflow code, as a step's, or only for the values it makes."""

CAPTURED = "captured "
"""Before the name in `shared`, of a variable of the workflow that a step inside of it sees."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """Nothing is known."""

    shared: str = ""


@dataclass(frozen=True, slots=True)
class Outside:
    """A name that is not of the project: `time.time`, `builtins.open`."""

    name: str


@dataclass(frozen=True, slots=True)
class OutsideObject:
    """An object of a class that is not of the project."""

    kind: str
    shared: str = ""


@dataclass(frozen=True, slots=True)
class ModuleValue:
    """A module of the project."""

    module: Module


@dataclass(frozen=True, slots=True)
class FunctionValue:
    """A function, step or workflow of the project; `bound` is what a method has for `self`."""

    function: Function
    kind: Kind = "plain"
    bound: Value | None = None


@dataclass(frozen=True, slots=True)
class ClassValue:
    """A class of the project."""

    definition: Class


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a class of the project."""

    definition: Class
    shared: str = ""


@dataclass(frozen=True, slots=True)
class SetValue:
    """A set; `is_firm` when its order is the same in each process, as with numbers and tasks."""

    is_firm: bool = False
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Many:
    """A list, tuple or dict; `element` is an item, and of a dict a value."""

    element: Value
    is_dict: bool = False
    shared: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """What awaits being awaited: `charge(order)`."""

    what: str
    result: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several."""

    members: tuple[Value, ...]


Value = (
    Opaque
    | Outside
    | OutsideObject
    | ModuleValue
    | FunctionValue
    | ClassValue
    | Instance
    | SetValue
    | Many
    | Pending
    | OneOf
)

OPAQUE = Opaque()
_ALTERNATIVES_MAX = 12


def merge(*values: Value) -> Value:
    """What is known when any of these may be meant."""
    found: dict[Value, None] = {}
    for value in values:
        for member in value.members if isinstance(value, OneOf) else (value,):
            found[member] = None
    if len(found) == 1:
        return next(iter(found))
    sets = [member for member in found if isinstance(member, SetValue)]
    if sets and len(sets) == len(found):
        # `set()` on one way, and filled on another: it is as little firm as the least.
        return min(sets, key=lambda member: member.is_firm)
    return OneOf(tuple(found)) if 1 < len(found) <= _ALTERNATIVES_MAX else OPAQUE


def alternatives(value: Value) -> tuple[Value, ...]:
    """The values that one may stand for."""
    return value.members if isinstance(value, OneOf) else (value,)


def shared_of(value: Value) -> str:
    """Where a value comes from, if not from the run's own variables."""
    if isinstance(value, (Opaque, OutsideObject, Instance, SetValue, Many)):
        return value.shared
    return ""


def share(value: Value, place: str) -> Value:
    """The same value, known to come from `place`."""
    if isinstance(value, (Opaque, OutsideObject, Instance, SetValue, Many)):
        return value if value.shared == place else replace(value, shared=place)
    if isinstance(value, OneOf):
        return OneOf(tuple(share(member, place) for member in value.members))
    return value


def is_set(value: Value) -> bool:
    """Whether this is surely a set whose order may differ."""
    return all(isinstance(member, SetValue) and not member.is_firm for member in alternatives(value))


def is_container(value: Value) -> bool:
    """Whether this is surely a list, dict or set."""
    return all(
        isinstance(member, (SetValue, Many))
        or (isinstance(member, OutsideObject) and member.kind.startswith(("collections.", "builtins.")))
        for member in alternatives(value)
    )


def element_of(value: Value) -> Value:
    """What iterating gives."""
    if isinstance(value, Many) and not value.is_dict:
        return share(value.element, value.shared) if value.shared else value.element
    if isinstance(value, OneOf):
        return merge(*map(element_of, value.members))
    return Opaque(shared_of(value))


# -- definitions ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Defined:
    """A name that a `def` or `class` gives."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Imported:
    """A name that an import gives: a module, or `name` in it."""

    module: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A variable: what is assigned to it anywhere at the top of its module."""

    values: tuple[ast.expr, ...]
    hint: ast.expr | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A name of which the value is known already."""

    value: Value


Binding = Defined | Imported | Assigned | Known


class Module(Protocol):
    """A module as the walk sees it."""

    @property
    def name(self) -> str:
        """`shop.orders`."""
        ...

    @property
    def path(self) -> str:
        """As it is shown to people."""
        ...

    def find(self, name: str) -> Binding | None:
        """What the module's own code says of a name."""
        ...

    def module(self, name: str) -> Module | None:
        """Another module of the project, by its whole name."""
        ...

    def absolute(self, node: ast.ImportFrom) -> str:
        """The whole name of the module that a `from … import` means."""
        ...

    def names(self) -> tuple[str, ...]:
        """The public names that `import *` would take."""
        ...

    def column(self, line: int, offset: int) -> int:
        """The column, from 1 and in characters, of what begins at this many bytes."""
        ...

    def allows(self, rule: str, first: int, last: int) -> bool:
        """Whether a comment on these lines allows a rule to be broken."""
        ...


@dataclass(slots=True, eq=False)
class Scope:
    """The variables of one call of a function."""

    module: Module
    mode: Mode
    parent: Scope | None = None
    names: dict[str, Value] = field(default_factory=dict[str, "Value"])
    global_names: set[str] = field(default_factory=set[str])
    nonlocal_names: set[str] = field(default_factory=set[str])


@dataclass(frozen=True, slots=True)
class Function:
    """A function's code, and the scope that it was defined in (None at the top of a module)."""

    node: FunctionNode
    module: Module
    scope: Scope | None = None
    owner: Class | None = None

    @property
    def name(self) -> str:
        """For people: `Ledger.add`."""
        own = "lambda" if isinstance(self.node, ast.Lambda) else self.node.name
        return f"{self.owner.node.name}.{own}" if self.owner is not None else own

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Class:
    """A class's code."""

    node: ast.ClassDef
    module: Module
    scope: Scope | None = None
