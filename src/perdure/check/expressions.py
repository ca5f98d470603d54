"""What an expression gives, as far as one can know; what it does is walked or judged on the way."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from . import calls, hints
from .frame import Frame, Given, child_scope
from .outside import MUTATORS, READ_AS_VALUES, canonical
from .values import (
    OPAQUE,
    Class,
    ClassValue,
    Function,
    FunctionValue,
    Instance,
    Many,
    ModuleValue,
    OneOf,
    Opaque,
    Outside,
    OutsideObject,
    Pending,
    Scope,
    SetValue,
    Value,
    alternatives,
    element_of,
    is_container,
    is_set,
    merge,
    share,
    shared_of,
)

_PATH_PARTS = ("parent", "joinpath", "with_name", "with_suffix", "with_stem", "relative_to")
_BY_KEY = {"get", "add", "discard", "remove", "pop", "setdefault"}
"""Methods that look a value up, and nothing more."""

_PROPERTIES = {"property", "cached_property"}
_QUIET_TAKERS = {"print", "debug", "info", "warning", "error", "exception", "critical", "log"}
_SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)


def evaluate(node: ast.expr | None, frame: Frame) -> Value:
    """What an expression gives."""
    handler = _HANDLERS.get(type(node))
    if handler is not None:
        return handler(node, frame)
    if node is not None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                evaluate(child, frame)
    return OPAQUE


def _name(node: ast.Name, frame: Frame) -> Value:
    value = frame.lookup(node.id)
    _judge_value(value, node, frame)
    return value


def _judge_value(value: Value, node: ast.AST, frame: Frame) -> None:
    if isinstance(value, Outside) and canonical(value.name) in READ_AS_VALUES:
        calls.judge_read(canonical(value.name), frame, node)


def _attribute(node: ast.Attribute, frame: Frame) -> Value:
    base = evaluate(node.value, frame)
    frame.expect_value(base, node)
    value = merge(*(member_of(one, node.attr, frame, node) for one in alternatives(base)))
    _judge_value(value, node, frame)
    return value


def member_of(base: Value, name: str, frame: Frame, node: ast.AST) -> Value:
    """What `base.name` gives."""
    match base:
        case Outside(name=before):
            return Outside(f"{before}.{name}")
        case OutsideObject(kind="pathlib.Path") if name in _PATH_PARTS:
            return base
        case OutsideObject(kind=kind):
            return Outside(f"{kind}.{name}")
        case ModuleValue(module=module):
            found = frame.walker.global_value(module, name)
            if found is not None:
                _note_read(found, frame)
                return found
            inner = module.module(f"{module.name}.{name}")
            return ModuleValue(inner) if inner is not None else OPAQUE
        case Instance():
            return _instance_member(base, name, frame, node)
        case ClassValue():
            return _class_member(base, name, frame)
        case FunctionValue(kind="step") if name == "fn":
            frame.report("step-inline", node, f"{base.function.name}.fn is the bare function of a step.")
            return replace(base, kind="plain")
        case FunctionValue(kind="workflow") if name == "fn":
            return replace(base, kind="plain")
        case _:
            return Opaque(shared_of(base))


def _note_read(value: Value, frame: Frame) -> None:
    if frame.mode == "workflow":
        for member in alternatives(value):
            if place := shared_of(member):
                frame.walker.read(place)


def _instance_member(base: Instance, name: str, frame: Frame, node: ast.AST) -> Value:
    found = frame.walker.member(base.definition, name)
    if found is not None and isinstance(found[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
        method, owner = found[0], found[1]
        names = {_last(decorator) for decorator in method.decorator_list}
        function = Function(method, owner.module, owner.scope, owner)
        if names & _PROPERTIES:
            return frame.walker.enter(FunctionValue(function, bound=base), Given(), frame, node)
        if "staticmethod" in names:
            return FunctionValue(function)
        return FunctionValue(function, bound=ClassValue(base.definition) if "classmethod" in names else base)
    value = frame.walker.attribute(base.definition, name)
    if found is not None:
        value = _declared(*found, name, value, frame)
    if value is None:
        return Opaque(base.shared)
    return share(value, base.shared) if base.shared else value


def _declared(
    statement: ast.stmt, owner: Class, name: str, stored: Value | None, frame: Frame
) -> Value | None:
    """What the class body says of `self.name`; `stored` is what its methods put there."""
    inside = Frame(frame.walker, Scope(owner.module, "quiet", owner.scope), frame.owner)
    is_own = bool(owner.node.decorator_list or owner.node.bases)  # a dataclass: each object has its own
    if isinstance(statement, ast.AnnAssign) and (is_own or statement.value is None):
        hinted = hints.value_of(statement.annotation, inside)
        return hinted if stored is None else hints.prefer(hinted, stored)
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and stored is None:
        place = f"{owner.module.name}.{owner.node.name}.{name}"
        value = share(evaluate(statement.value, inside), place)
        _note_read(value, frame)
        return value
    return stored


def _class_member(base: ClassValue, name: str, frame: Frame) -> Value:
    found = frame.walker.member(base.definition, name)
    if found is None:
        outside = [one for one in frame.walker.bases(base.definition) if isinstance(one, Outside)]
        return Outside(f"{outside[0].name}.{name}") if outside else OPAQUE
    statement, owner = found
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        names = {_last(decorator) for decorator in statement.decorator_list}
        bound = base if "classmethod" in names else None
        return FunctionValue(Function(statement, owner.module, owner.scope, owner), bound=bound)
    if isinstance(statement, ast.ClassDef):
        return OPAQUE
    value: Value = OPAQUE
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
        inside = Frame(frame.walker, Scope(owner.module, "quiet", owner.scope), frame.owner)
        value = evaluate(statement.value, inside)
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or _is_enum(base, frame):
        return value
    value = share(value, f"{owner.module.name}.{owner.node.name}.{name}")
    _note_read(value, frame)
    return value


def _is_enum(base: ClassValue, frame: Frame) -> bool:
    return any(
        isinstance(one, Outside) and one.name.startswith("enum.")
        for one in frame.walker.bases(base.definition)
    )


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# -- calls ---------------------------------------------------------------------------------------


def _call(node: ast.Call, frame: Frame) -> Value:
    func = node.func
    into_any_order, frame.takes_any_order = frame.takes_any_order, False
    if isinstance(func, ast.Name) and func.id == "super" and frame.function is not None:
        return _super(frame)
    if isinstance(func, ast.Attribute):
        base = evaluate(func.value, frame)
        given = _arguments(node, frame, any_order=False, into_any_order=into_any_order)
        if func.attr in MUTATORS and is_container(base):
            frame.change_value(base, node)
        if func.attr == "join" and node.args:
            calls.check_order(given.args[0], node.args[0], frame, "join()")
        found = calls.call_method(base, func.attr, given, frame, node)
        if found is not None:
            return found
        function = merge(*(member_of(one, func.attr, frame, func) for one in alternatives(base)))
        _judge_value(function, func, frame)
        return calls.call(function, given, frame, node)
    function = evaluate(func, frame)
    any_order = into_any_order or calls.takes_any_order(function)
    given = _arguments(node, frame, any_order=any_order, into_any_order=into_any_order)
    return calls.call(function, given, frame, node)


def _super(frame: Frame) -> Value:
    function = frame.function
    if function is None or function.owner is None:
        return OPAQUE
    for base in frame.walker.bases(function.owner):
        if isinstance(base, ClassValue):
            return Instance(base.definition)
        if isinstance(base, Outside):
            return OutsideObject(base.name)
    return OPAQUE


def _arguments(node: ast.Call, frame: Frame, *, any_order: bool, into_any_order: bool) -> Given:
    values: list[Value] = []
    is_open = False
    quiet = _last(node.func) in _QUIET_TAKERS
    for arg in node.args:
        if isinstance(arg, ast.Starred):
            inner = evaluate(arg.value, frame)
            if not any_order:
                calls.check_order(inner, arg, frame, "`*`")
            is_open = True
            values.append(OPAQUE)
            continue
        frame.takes_any_order = any_order or (quiet and isinstance(arg, ast.JoinedStr))
        values.append(_key(arg, frame) if _last(node.func) in _BY_KEY else evaluate(arg, frame))
        frame.takes_any_order = False
    keywords: dict[str, Value] = {}
    for keyword in node.keywords:
        value = evaluate(keyword.value, frame)
        if keyword.arg is None:
            is_open = True
        else:
            keywords[keyword.arg] = value
    return Given(tuple(values), keywords, is_open, into_any_order)


# -- other expressions ---------------------------------------------------------------------------


def _await(node: ast.Await, frame: Frame) -> Value:
    value = evaluate(node.value, frame)
    return merge(*(one.result if isinstance(one, Pending) else OPAQUE for one in alternatives(value)))


def _lambda(node: ast.Lambda, frame: Frame) -> Value:
    owner = frame.function.owner if frame.function is not None else None
    return FunctionValue(Function(node, frame.scope.module, frame.scope, owner))


def _set(node: ast.Set, frame: Frame) -> Value:
    values = [evaluate(element, frame) for element in node.elts]
    return SetValue(all(calls.is_firm_element(*pair) for pair in zip(node.elts, values, strict=True)))


def _sequence(node: ast.List | ast.Tuple, frame: Frame) -> Value:
    values: list[Value] = []
    for element in node.elts:
        if isinstance(element, ast.Starred):
            inner = evaluate(element.value, frame)
            calls.check_order(inner, element, frame, "`*`")
            values.append(element_of(inner))
        else:
            values.append(evaluate(element, frame))
    return Many(merge(*values)) if values else Many(OPAQUE)


def _dict(node: ast.Dict, frame: Frame) -> Value:
    for key in node.keys:
        evaluate(key, frame)
    values = [evaluate(value, frame) for value in node.values]
    return Many(merge(*values), is_dict=True) if values else Many(OPAQUE, is_dict=True)


def _subscript(node: ast.Subscript, frame: Frame) -> Value:
    base = evaluate(node.value, frame)
    frame.expect_value(base, node)
    _key(node.slice, frame)
    if isinstance(base, Outside):  # `Signal[str]`
        return base
    if isinstance(node.slice, ast.Slice):
        return base
    if isinstance(base, Many):
        return share(base.element, base.shared) if base.shared else base.element
    return base if isinstance(base, ClassValue) else element_of(base)


def _binary(node: ast.BinOp, frame: Frame) -> Value:
    left, right = evaluate(node.left, frame), evaluate(node.right, frame)
    for value, side in ((left, node.left), (right, node.right)):
        frame.expect_value(value, side)
    if isinstance(node.op, ast.Div) and isinstance(left, OutsideObject) and left.kind == "pathlib.Path":
        return left
    if isinstance(node.op, _SET_OPERATORS) and (_is_settish(left) or _is_settish(right)):
        return SetValue(all(isinstance(value, SetValue) and value.is_firm for value in (left, right)))
    if isinstance(node.op, ast.Add) and isinstance(left, Many):
        return left
    return OPAQUE


def _is_settish(value: Value) -> bool:
    return isinstance(value, SetValue) or value == OutsideObject("builtins.dict_keys")


def _compare(node: ast.Compare, frame: Frame) -> Value:
    for operand in (node.left, *node.comparators):
        frame.expect_value(_key(operand, frame), operand)
    return OPAQUE


def _key(node: ast.expr, frame: Frame) -> Value:
    """What is compared or looked up: of `seen.add(id(a))` only counts whether it is the same."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "id":
        for arg in node.args:
            evaluate(arg, frame)
        return OPAQUE
    return evaluate(node, frame)


def _either(node: ast.BoolOp, frame: Frame) -> Value:
    values = [evaluate(value, frame) for value in node.values]
    for value, operand in zip(values, node.values, strict=True):
        frame.expect_value(value, operand)
    return merge(*values)


def _conditional(node: ast.IfExp, frame: Frame) -> Value:
    frame.expect_value(evaluate(node.test, frame), node.test)
    return merge(evaluate(node.body, frame), evaluate(node.orelse, frame))


def _not(node: ast.UnaryOp, frame: Frame) -> Value:
    frame.expect_value(evaluate(node.operand, frame), node.operand)
    return OPAQUE


_REPR = ord("r")


def _formatted(node: ast.JoinedStr, frame: Frame) -> Value:
    is_only_said, frame.takes_any_order = frame.takes_any_order, False
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            value = evaluate(part.value, frame)
            if not is_only_said and part.conversion != _REPR:
                frame.expect_value(value, part.value)
                calls.check_order(value, part.value, frame, "An f-string")
    return OPAQUE


def _walrus(node: ast.NamedExpr, frame: Frame) -> Value:
    value = evaluate(node.value, frame)
    frame.bind(node.target.id, value, node)
    return value


def _comprehension(node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, frame: Frame) -> Value:
    any_order, frame.takes_any_order = frame.takes_any_order, False
    inner = child_scope(frame)
    asks = any(isinstance(part, ast.Await) for part in ast.walk(node))
    for generator in node.generators:
        source = evaluate(generator.iter, inner)
        frame.expect_value(source, generator.iter)
        if asks or not (any_order or isinstance(node, ast.SetComp)):
            calls.check_order(source, generator.iter, frame, "A comprehension")
        bind_target(generator.target, element_of(source), inner)
        for condition in generator.ifs:
            inner.expect_value(evaluate(condition, inner), condition)
    if isinstance(node, ast.DictComp):
        evaluate(node.key, inner)
        return Many(evaluate(node.value, inner), is_dict=True)
    element = evaluate(node.elt, inner)
    if isinstance(node, ast.SetComp):
        return SetValue(calls.is_firm_element(node.elt, element))
    return Many(element)


def _yielded(node: ast.Yield | ast.YieldFrom, frame: Frame) -> Value:
    value = evaluate(node.value, frame)
    if isinstance(node, ast.YieldFrom):
        calls.check_order(value, node, frame, "`yield from`")
        frame.returns.append(value)
    else:
        frame.returns.append(Many(value))
    return OPAQUE


def bind_target(target: ast.expr, value: Value, frame: Frame) -> None:
    """Give what stands left of `=`, or after `for`, a value."""
    match target:
        case ast.Name(id=name):
            frame.bind(name, value, target)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            if is_set(value):
                calls.check_order(value, target, frame, "Unpacking")
            for element in elements:
                bind_target(element, element_of(value), frame)
        case ast.Starred(value=inner):
            bind_target(inner, Many(value), frame)
        case ast.Attribute(value=owner, attr=name):
            _bind_attribute(evaluate(owner, frame), name, value, frame, target)
        case ast.Subscript(value=owner, slice=inner):
            _key(inner, frame)
            frame.change_value(evaluate(owner, frame), target)
        case _:
            pass


def _bind_attribute(owner: Value, name: str, value: Value, frame: Frame, node: ast.AST) -> None:
    match owner:
        case ModuleValue(module=module):
            frame.change(f"{module.name}.{name}", node)
        case ClassValue(definition=definition):
            frame.change(f"{definition.module.name}.{definition.node.name}.{name}", node)
        case Instance(definition=definition):
            frame.walker.store(definition, name, value)
            frame.change_value(owner, node)
        case OneOf():
            pass
        case _:
            frame.change_value(owner, node)


_HANDLERS: dict[type[ast.expr | None], Callable[[Any, Frame], Value]] = {
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Call: _call,
    ast.Await: _await,
    ast.Lambda: _lambda,
    ast.Set: _set,
    ast.List: _sequence,
    ast.Tuple: _sequence,
    ast.Dict: _dict,
    ast.Subscript: _subscript,
    ast.BinOp: _binary,
    ast.Compare: _compare,
    ast.BoolOp: _either,
    ast.IfExp: _conditional,
    ast.UnaryOp: _not,
    ast.JoinedStr: _formatted,
    ast.NamedExpr: _walrus,
    ast.ListComp: _comprehension,
    ast.SetComp: _comprehension,
    ast.GeneratorExp: _comprehension,
    ast.DictComp: _comprehension,
    ast.Yield: _yielded,
    ast.YieldFrom: _yielded,
    ast.Constant: lambda node, frame: OPAQUE,
}
"""What looks at each kind of expression; of others, only the parts are looked at."""
