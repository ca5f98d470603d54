"""The walk: from each workflow into all code of the project that it calls.

A function is walked once for each way of calling it that makes a difference: with
other functions, sets or objects as arguments. What it gives back is kept, so a
walk ends also where functions call each other in a circle.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from . import calls, hints
from .expressions import evaluate
from .findings import Findings, lines_of
from .frame import Frame, Given, Owner
from .outside import canonical, judge
from .statements import run
from .values import (
    OPAQUE,
    Assigned,
    Class,
    ClassValue,
    Defined,
    Function,
    FunctionValue,
    Imported,
    Instance,
    Known,
    Many,
    Mode,
    Module,
    ModuleValue,
    Outside,
    Pending,
    Scope,
    Value,
    alternatives,
    merge,
    share,
)

_DEPTH_MAX = 30
_WAYS_MAX = 6
"""How many ways of calling a function are told apart."""

_MAKERS = ("__new__", "__init__", "__post_init__", "__attrs_post_init__", "model_post_init")
_FACTORIES = ("default_factory", "factory")


class Walk:
    """Walks workflows and keeps what it finds."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.entries: list[Owner] = []
        self.marked: dict[ast.AST, FunctionValue] = {}
        """Steps and workflows, by their code."""
        self.found_inside: list[Function] = []
        """Functions that were defined inside others while only looking for definitions."""
        self.only_looks = False
        """Whether calls are not followed, since only definitions are looked for."""
        self._results: dict[tuple[object, ...], Value] = {}
        self._ways: dict[Owner, int] = {}
        self._depth = 0
        self._globals: dict[tuple[Module, str], Value | None] = {}
        self._attributes: dict[tuple[ast.ClassDef, str], Value] = {}
        self._made: set[ast.ClassDef] = set()
        self._bases: dict[Class, tuple[Value, ...]] = {}
        self._loaded: dict[ast.AST, frozenset[str]] = {}
        self._reads: set[str] = set()
        self._writes: list[tuple[str, Frame, ast.AST]] = []

    # -- entries ---------------------------------------------------------------------------------

    def walk_workflow(self, function: Function) -> None:
        """Follow a workflow to wherever it leads."""
        owner = Owner(function.node, "workflow")
        self.entries.append(owner)
        module = function.module
        self.findings.people[owner] = (function.name, module)
        scope = Scope(module, "workflow", function.scope)
        frame = Frame(self, scope, owner, function, is_workflow_body=True)
        scope.names.update(self._bind(function, None, Given(is_open=True)))
        self._run(function, frame)

    def look_inside(self, function: Function) -> None:
        """Run through a function only for what it defines."""
        owner = Owner(function.node, "quiet")
        scope = Scope(
            function.module, "quiet", function.scope, self._bind(function, None, Given(is_open=True))
        )
        self._run(function, Frame(self, scope, owner, function))

    def check_hints(self, value: FunctionValue) -> None:
        """Look at what a step or workflow takes and gives."""
        node = value.function.node
        if isinstance(node, ast.Lambda):
            return
        owner = Owner(node, "quiet")
        self.entries.append(owner)
        self.findings.people[owner] = (value.function.name, value.function.module)
        frame = Frame(
            self, Scope(value.function.module, "quiet", value.function.scope), owner, value.function
        )
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        wanted = [(f"{node.name}({argument.arg})", argument.annotation) for argument in arguments]
        for where, hint in [*wanted, (f"The result of {node.name}()", node.returns)]:
            if hint is not None:
                self.check_hint(hint, where, frame)

    def check_hint(self, hint: ast.expr, where: str, frame: Frame) -> None:
        """Look at one hint of something that is stored."""
        if found := hints.unstorable(hint, frame):
            self.report("not-serialisable", frame, hint, f"{where} cannot be stored: {found}.")

    def finish(self) -> None:
        """Put together what steps change and workflows read."""
        for place, frame, node in self._writes:
            if place in self._reads:
                self.report("step-state", frame, node, f"A step changes {place}, which workflow code reads.")

    # -- functions -------------------------------------------------------------------------------

    def enter(self, value: FunctionValue, given: Given, frame: Frame, node: ast.AST) -> Value:
        """Walk a function that is called at `node`; what it returns."""
        function = value.function
        if value.kind == "workflow" or (value.kind == "step" and frame.mode != "step"):
            if value.kind == "step" and frame.mode == "workflow":
                self._walk(function, None, Given(is_open=True), "step", frame, node)
            return Pending(f"{function.name}()", self._result_hint(function))
        if self.only_looks:
            return OPAQUE
        result = self._walk(function, value.bound, given, frame.mode, frame, node)
        if function.is_async and not self._is_generator(function):
            return Pending(f"{function.name}()", result)
        return result

    def _walk(
        self, function: Function, bound: Value | None, given: Given, mode: Mode, frame: Frame, node: ast.AST
    ) -> Value:
        owner = Owner(function.node, mode)
        self._note_call(owner, function.name, function.module, frame, node)
        names = self._bind(function, bound, given)
        key = (function, mode, *names.items())
        if key not in self._results and self._ways.get(owner, 0) >= _WAYS_MAX:
            names = self._bind(function, bound, Given(is_open=True))
            key = (function, mode, *names.items())
        if key in self._results:
            return self._results[key]
        if self._depth >= _DEPTH_MAX:
            return OPAQUE
        self._ways[owner] = self._ways.get(owner, 0) + 1
        self._results[key] = OPAQUE  # what a function that calls itself sees of it
        scope = Scope(function.module, mode, function.scope, names)
        result = self._run(function, Frame(self, scope, owner, function))
        self._results[key] = result
        return result

    def _run(self, function: Function, frame: Frame) -> Value:
        self._depth += 1
        try:
            if isinstance(function.node, ast.Lambda):
                return evaluate(function.node.body, frame)
            run(function.node.body, frame)
        except RecursionError:
            return OPAQUE  # an expression of a thousand parts: nobody wrote it by hand
        finally:
            self._depth -= 1
        result = merge(*frame.returns) if frame.returns else OPAQUE
        return self._result_hint(function) if result == OPAQUE else result

    def _note_call(self, owner: Owner, name: str, module: Module, frame: Frame, node: ast.AST) -> None:
        if frame.mode != "quiet":
            self.findings.people.setdefault(owner, (name, module))
            self.findings.note_call(frame.owner, owner, node, lines_of(node, frame.statement))

    def _bind(self, function: Function, bound: Value | None, given: Given) -> dict[str, Value]:
        """What each parameter has: what is given, or what its hint or its default says."""
        arguments = function.node.args
        quiet = Frame(
            self, Scope(function.module, "quiet", function.scope), Owner(function.node, "quiet"), function
        )
        plain = [*arguments.posonlyargs, *arguments.args]
        defaults = dict(zip([one.arg for one in reversed(plain)], reversed(arguments.defaults), strict=False))
        for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if default is not None:
                defaults[one.arg] = default
        values = [*([bound] if bound is not None else []), *given.args]
        names: dict[str, Value] = {}
        for number, one in enumerate([*plain, *arguments.kwonlyargs]):
            value = given.keywords.get(one.arg, OPAQUE)
            if number < min(len(values), len(plain)):
                value = values[number]
            if value == OPAQUE and one.annotation is not None:
                value = hints.value_of(one.annotation, quiet)
            if value == OPAQUE and one.arg in defaults:
                value = evaluate(defaults[one.arg], quiet)
            if value == OPAQUE and number == 0 and function.owner is not None:
                value = self._self(function, one.arg)
            names[one.arg] = value
        if arguments.vararg is not None:
            rest = values[len(plain) :]
            names[arguments.vararg.arg] = Many(merge(*rest) if rest else OPAQUE)
        if arguments.kwarg is not None:
            names[arguments.kwarg.arg] = Many(OPAQUE, is_dict=True)
        return names

    def _self(self, function: Function, name: str) -> Value:
        assert function.owner is not None
        return (
            Instance(function.owner)
            if name == "self"
            else ClassValue(function.owner)
            if name == "cls"
            else OPAQUE
        )

    def _result_hint(self, function: Function) -> Value:
        if isinstance(function.node, ast.Lambda) or function.node.returns is None:
            return OPAQUE
        scope = Scope(function.module, "quiet", function.scope)
        return hints.value_of(
            function.node.returns, Frame(self, scope, Owner(function.node, "quiet"), function)
        )

    def _is_generator(self, function: Function) -> bool:
        left: list[ast.AST] = list(ast.iter_child_nodes(function.node))
        while left:
            node = left.pop()
            if isinstance(node, (ast.Yield, ast.YieldFrom)):
                return True
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
                left.extend(ast.iter_child_nodes(node))
        return False

    def define(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, frame: Frame) -> Value:
        """What a `def` or `class` makes, with its decorators."""
        scope = frame.scope if frame.function is not None else None
        if isinstance(node, ast.ClassDef):
            return ClassValue(Class(node, frame.scope.module, scope))
        function = Function(node, frame.scope.module, scope)
        if self.only_looks:
            self.found_inside.append(function)
        value: Value = FunctionValue(function)
        for decorator in reversed(node.decorator_list):
            value = self._decorate(value, decorator, frame)
        return value

    def _decorate(self, value: Value, decorator: ast.expr, frame: Frame) -> Value:
        maker = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = hints.name_of(maker, frame)
        if name in ("perdure.step", "perdure.workflow") and isinstance(value, FunctionValue):
            return self.mark(replace(value, kind="step" if name == "perdure.step" else "workflow"))
        if name or (isinstance(value, FunctionValue) and value.kind != "plain"):
            return value
        quiet = Frame(self, Scope(frame.scope.module, "quiet", frame.scope), frame.owner, frame.function)
        result: Value = OPAQUE
        for one in alternatives(evaluate(decorator, quiet)):
            if isinstance(one, FunctionValue) and one.kind == "plain":
                result = self.enter(one, Given((value,)), quiet, decorator)
        return result if isinstance(result, (FunctionValue, Instance)) else value

    def mark(self, value: FunctionValue) -> FunctionValue:
        """A function was made a step or a workflow."""
        self.marked.setdefault(value.function.node, value)
        return value

    def is_loaded(self, function: Function, name: str) -> bool:
        """Whether a function's code ever reads a variable."""
        names = self._loaded.get(function.node)
        if names is None:
            names = self._loaded[function.node] = frozenset(
                node.id
                for node in ast.walk(function.node)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            )
        return name in names

    # -- classes ---------------------------------------------------------------------------------

    def make(self, definition: Class, given: Given, frame: Frame, node: ast.AST) -> Value:
        """Walk what making an object of a class runs."""
        if frame.mode == "quiet":
            return Instance(definition)
        owner = Owner(definition.node, frame.mode)
        self._note_call(owner, definition.node.name, definition.module, frame, node)
        made = Instance(definition)
        for base in self.bases(definition):
            if isinstance(base, Outside) and (rule := judge(canonical(base.name))):
                frame.report(rule, node, f"{definition.node.name} derives from {base.name}.")
        scope = Scope(definition.module, frame.mode, definition.scope)
        inside = Frame(self, scope, owner)
        for name in _MAKERS:
            function = self.method(definition, name)
            if function is not None:
                self.enter(FunctionValue(function, bound=made), given, inside, function.node)
        if not given.is_open:
            self._call_factories(definition, given, inside)
        return made

    def _call_factories(self, definition: Class, given: Given, frame: Frame) -> None:
        """`field(default_factory=uuid4)` runs for each field that is not given."""
        fields = [one for one in definition.node.body if isinstance(one, ast.AnnAssign)]
        for one in fields[len(given.args) :]:
            name = one.target.id if isinstance(one.target, ast.Name) else ""
            if name in given.keywords or not isinstance(one.value, ast.Call):
                continue
            frame.statement = one
            for keyword in one.value.keywords:
                if keyword.arg in _FACTORIES:
                    calls.hand_over(evaluate(keyword.value, frame), keyword.value, frame)

    def bases(self, definition: Class) -> tuple[Value, ...]:
        """The classes that a class derives from."""
        if definition in self._bases:
            return self._bases[definition]
        self._bases[definition] = ()  # a class that is looked for among its own bases
        frame = Frame(
            self, Scope(definition.module, "quiet", definition.scope), Owner(definition.node, "quiet")
        )
        found = self._bases[definition] = tuple(evaluate(base, frame) for base in definition.node.bases)
        return found

    def member(self, definition: Class, name: str, depth: int = 0) -> tuple[ast.stmt, Class] | None:
        """A member of a class or its bases, and the class that has it."""
        for statement in reversed(definition.node.body):
            if _names_of(statement) == name:
                return statement, definition
        if depth < _DEPTH_MAX:
            for base in self.bases(definition):
                if isinstance(base, ClassValue) and (found := self.member(base.definition, name, depth + 1)):
                    return found
        return None

    def method(self, definition: Class, name: str) -> Function | None:
        """A method of a class or of its bases."""
        found = self.member(definition, name)
        if found is None or not isinstance(found[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        node, owner = found[0], found[1]
        return Function(node, owner.module, owner.scope, owner)

    def attribute(self, definition: Class, name: str) -> Value | None:
        """What methods are known to store under `self.name`."""
        if definition.node not in self._made and not self.only_looks:
            self._made.add(definition.node)
            function = self.method(definition, "__init__")
            if function is not None:
                frame = Frame(self, Scope(definition.module, "quiet"), Owner(definition.node, "quiet"))
                self.enter(
                    FunctionValue(function, bound=Instance(definition)),
                    Given(is_open=True),
                    frame,
                    function.node,
                )
        return self._attributes.get((definition.node, name))

    def store(self, definition: Class, name: str, value: Value) -> None:
        """A method stores a value under `self.name`."""
        before = self._attributes.get((definition.node, name))
        self._attributes[definition.node, name] = value if before is None else merge(before, value)

    # -- names at the top of modules -------------------------------------------------------------

    def global_value(self, module: Module, name: str) -> Value | None:
        """What a name at the top of a module means."""
        key = (module, name)
        if key not in self._globals:
            self._globals[key] = None  # a name that is looked for through itself has no value
            only_looked, self.only_looks = self.only_looks, False
            self._globals[key] = self._global_value(module, name)
            self.only_looks = only_looked
        return self._globals[key]

    def _global_value(self, module: Module, name: str) -> Value | None:
        frame = Frame(self, Scope(module, "quiet"), Owner(ast.Module([], []), "quiet"))
        match module.find(name):
            case Known(value=value):
                return value
            case Defined(node=node):
                return self.define(node, frame)
            case Imported(module=whole, name=""):
                other = module.module(whole)
                return ModuleValue(other) if other is not None else Outside(canonical(whole))
            case Imported(module=whole, name=inner):
                other = module.module(whole)
                if other is None:
                    return Outside(canonical(f"{whole}.{inner}"))
                submodule = other.module(f"{whole}.{inner}")
                found = None if other is module else self.global_value(other, inner)
                if submodule is not None and (found is None or found == OPAQUE):
                    return ModuleValue(submodule)
                return found or OPAQUE
            case Assigned(values=values, hint=hint):
                value = merge(*(evaluate(one, frame) for one in values if not _is_none(one)))
                if hint is not None:
                    value = hints.prefer(hints.value_of(hint, frame), value)
                return share(value, f"{module.name}.{name}")
            case None:
                return None

    # -- what comes out --------------------------------------------------------------------------

    def read(self, place: str) -> None:
        """Workflow code reads what stands outside its own variables."""
        self._reads.add(place)

    def write(self, place: str, frame: Frame, node: ast.AST) -> None:
        """A step changes what stands outside its own variables."""
        self._writes.append((place, frame, node))

    def report(self, rule: str, frame: Frame, node: ast.AST, what: str) -> None:
        """Keep a finding."""
        lines = lines_of(node, frame.statement)
        self.findings.add(rule, what, node, lines, frame.scope.module, frame.owner)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _names_of(statement: ast.stmt) -> str:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case _:
            return ""
