"""Statements, one after another: what they bind, what they iterate, what they catch."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from . import calls, hints
from .expressions import bind_target, evaluate
from .frame import Frame, Given, as_pending
from .project import imports_of
from .values import (
    OPAQUE,
    FunctionValue,
    Instance,
    ModuleValue,
    Outside,
    Pending,
    SetValue,
    Value,
    alternatives,
    element_of,
    merge,
)

_CANCELS = {"builtins.BaseException", "asyncio.CancelledError", "asyncio.exceptions.CancelledError",
            "concurrent.futures.CancelledError"}  # fmt: skip


def run(body: Sequence[ast.stmt], frame: Frame) -> bool:
    """Look at statements in their order; whether the end of them can be reached."""
    for node in body:
        frame.statement = node
        handler = _HANDLERS.get(type(node))
        if handler is not None and not handler(node, frame):
            return False
    return True


def _expression(node: ast.Expr, frame: Frame) -> bool:
    value = evaluate(node.value, frame)
    if pending := as_pending(value):
        frame.report("not-awaited", node, f"{pending.what} is called and never awaited.")
    return True


def _assign(node: ast.Assign, frame: Frame) -> bool:
    value = evaluate(node.value, frame)
    pairs: list[tuple[ast.expr, Value]] = []
    for target in node.targets:
        if _fits(target, node.value):
            assert isinstance(target, ast.Tuple)
            assert isinstance(node.value, ast.Tuple)
            pairs += zip(target.elts, [_known(part, frame) for part in node.value.elts], strict=True)
            continue
        pairs.append((target, value))
        _note_unused(target, value, frame)
    for target, part in pairs:
        bind_target(target, part, frame)
    return True


def _fits(target: ast.expr, value: ast.expr) -> bool:
    """`a, b = c, d`: whether each part on the left has its own on the right."""
    if not isinstance(target, ast.Tuple) or not isinstance(value, ast.Tuple):
        return False
    parts = [*target.elts, *value.elts]
    return len(target.elts) == len(value.elts) and not any(isinstance(part, ast.Starred) for part in parts)


def _known(node: ast.expr, frame: Frame) -> Value:
    """A part of a tuple that was looked at already."""
    return frame.lookup(node.id) if isinstance(node, ast.Name) else OPAQUE


def _note_unused(target: ast.expr, value: Value, frame: Frame) -> None:
    if not isinstance(target, ast.Name) or frame.function is None:
        return
    pending = as_pending(value)
    if pending and not frame.walker.is_loaded(frame.function, target.id):
        frame.report("not-awaited", target, f"{pending.what} is kept in {target.id!r} and never awaited.")


def _hinted_assign(node: ast.AnnAssign, frame: Frame) -> bool:
    hinted = hints.value_of(node.annotation, frame)
    if node.value is not None:
        value = evaluate(node.value, frame)
        _note_unused(node.target, value, frame)
        bind_target(node.target, hints.prefer(hinted, value), frame)
    elif isinstance(node.target, ast.Name):
        frame.bind(node.target.id, hinted, node)
    return True


def _change(node: ast.AugAssign, frame: Frame) -> bool:
    frame.expect_value(evaluate(node.value, frame), node.value)
    if isinstance(node.target, ast.Name):
        before = frame.lookup(node.target.id)
        if node.target.id in frame.scope.names and not isinstance(before, SetValue):
            frame.change_value(before, node)  # `seen += […]` changes the list, whoever else has it
        frame.bind(node.target.id, before, node)
    else:
        bind_target(node.target, OPAQUE, frame)
    return True


def _return(node: ast.Return, frame: Frame) -> bool:
    value = evaluate(node.value, frame)
    if frame.is_workflow_body:
        frame.expect_value(value, node)
    frame.returns.append(value)
    return False


def _raise(node: ast.Raise, frame: Frame) -> bool:
    evaluate(node.exc, frame)
    evaluate(node.cause, frame)
    return False


def _leave(node: ast.Break | ast.Continue, frame: Frame) -> bool:
    return True  # what was bound until here reaches the end of the loop


def _if(node: ast.If, frame: Frame) -> bool:
    frame.expect_value(evaluate(node.test, frame), node.test)
    return _branches(frame, [node.body, node.orelse])


def _branches(frame: Frame, bodies: Sequence[Sequence[ast.stmt]]) -> bool:
    """Look at bodies of which one runs; then each name is what any of them left it."""
    before = dict(frame.scope.names)
    ends: list[dict[str, Value]] = []
    for body in bodies:
        frame.scope.names = dict(before)
        if run(body, frame):
            ends.append(frame.scope.names)
    if not ends:
        frame.scope.names = before
        return False
    frame.scope.names = _join(ends)
    return True


def _join(ends: Sequence[dict[str, Value]]) -> dict[str, Value]:
    """What each name may be after one of several ways."""
    joined = dict(ends[0])
    for end in ends[1:]:
        for name, value in end.items():
            before = joined.get(name, value)
            joined[name] = value if before is value else merge(before, value)
    return joined


def _for(node: ast.For | ast.AsyncFor, frame: Frame) -> bool:
    source = evaluate(node.iter, frame)
    frame.expect_value(source, node.iter)
    if not _only_collects(node.body):
        calls.check_order(source, node.iter, frame, "The loop")
    for part in alternatives(source):
        if isinstance(part, Instance):
            names = ("__aiter__", "__anext__") if isinstance(node, ast.AsyncFor) else ("__iter__", "__next__")
            _call_special(part, names, frame, node)
    bind_target(node.target, element_of(source), frame)
    _branches(frame, [node.body, []])
    run(node.orelse, frame)
    return True


def _only_collects(body: Sequence[ast.stmt]) -> bool:
    """`for x in names: seen.add(x)`: what comes of it has no order either."""
    return all(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in ("add", "discard")
        for node in body
    )


def _while(node: ast.While, frame: Frame) -> bool:
    frame.expect_value(evaluate(node.test, frame), node.test)
    _branches(frame, [node.body, []])
    run(node.orelse, frame)
    for_ever = isinstance(node.test, ast.Constant) and bool(node.test.value)
    return not for_ever or any(isinstance(part, ast.Break) for part in ast.walk(node))


def _with(node: ast.With | ast.AsyncWith, frame: Frame) -> bool:
    special = ("__aenter__", "__aexit__") if isinstance(node, ast.AsyncWith) else ("__enter__", "__exit__")
    for item in node.items:
        value = evaluate(item.context_expr, frame)
        for part in alternatives(value):
            if isinstance(part, Instance):
                _call_special(part, special, frame, item.context_expr)
        _note_suppress(item.context_expr, node, frame)
        if item.optional_vars is not None:
            bind_target(item.optional_vars, value if not isinstance(value, Pending) else OPAQUE, frame)
    return run(node.body, frame)


def _note_suppress(node: ast.expr, block: ast.With | ast.AsyncWith, frame: Frame) -> None:
    if not isinstance(node, ast.Call) or not node.args or not _waits(block.body):
        return
    if hints.name_of(node.func, frame) == "contextlib.suppress":
        for arg in node.args:
            if _catches_cancel(arg, frame) and not _is_own_cancel(block, block.body, frame):
                frame.report(
                    "swallowed-cancel", node, f"suppress({ast.unparse(arg)}) swallows a cancellation."
                )


def _call_special(value: Instance, names: tuple[str, ...], frame: Frame, node: ast.AST) -> None:
    for name in names:
        function = frame.walker.method(value.definition, name)
        if function is not None:
            frame.walker.enter(FunctionValue(function, bound=value), Given(is_open=True), frame, node)


def _try(node: ast.Try | ast.TryStar, frame: Frame) -> bool:
    before = dict(frame.scope.names)
    through = run(node.body, frame) and run(node.orelse, frame)
    ends = [frame.scope.names] if through else []
    for handler in node.handlers:
        kept, frame.scope.names = frame.scope.names, _join([before, frame.scope.names])
        if handler.name is not None:
            frame.scope.names[handler.name] = OPAQUE
        _note_handler(node, handler, frame)
        if run(handler.body, frame):
            ends.append(frame.scope.names)
        frame.scope.names = kept
    if ends:
        frame.scope.names = _join(ends)
    _note_finally(node, frame)
    return run(node.finalbody, frame) and bool(ends)


def _note_handler(node: ast.Try | ast.TryStar, handler: ast.ExceptHandler, frame: Frame) -> None:
    """A cancellation arrives at an await; a handler that takes it must raise."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    if not any(kind is None or _catches_cancel(kind, frame) for kind in kinds):
        return
    if not _waits(node.body) or _raises(handler.body) or _caught_before(node, handler, frame):
        return
    if handler.type is not None and _is_own_cancel(node, node.body, frame):
        return
    what = "A bare except" if handler.type is None else f"except {ast.unparse(handler.type)}"
    frame.report("swallowed-cancel", handler, f"{what} takes a cancellation, and does not raise it again.")


def _caught_before(node: ast.Try | ast.TryStar, handler: ast.ExceptHandler, frame: Frame) -> bool:
    """Whether a handler above lets a cancellation through already."""
    for other in node.handlers[: node.handlers.index(handler)]:
        kinds = other.type.elts if isinstance(other.type, ast.Tuple) else [other.type]
        if any(kind is None or _catches_cancel(kind, frame) for kind in kinds):
            return True
    return False


def _note_finally(node: ast.Try | ast.TryStar, frame: Frame) -> None:
    if not _waits(node.body):
        return
    for part in _within(node.finalbody):
        if isinstance(part, ast.Return):
            frame.report("swallowed-cancel", part, "`return` in a finally block swallows a cancellation.")


def _catches_cancel(kind: ast.expr, frame: Frame) -> bool:
    return hints.name_of(kind, frame) in _CANCELS


def _within(body: Sequence[ast.stmt]) -> list[ast.AST]:
    """All nodes of some statements, without those of functions defined there."""
    found: list[ast.AST] = []
    left: list[ast.AST] = list(body)
    while left:
        node = left.pop()
        found.append(node)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            left.extend(ast.iter_child_nodes(node))
    return found


def _waits(body: Sequence[ast.stmt]) -> bool:
    waiting = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    return any(
        isinstance(node, waiting) or (isinstance(node, ast.comprehension) and node.is_async)
        for node in _within(body)
    )


def _raises(body: Sequence[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Raise) for node in _within(body))


def _is_own_cancel(block: ast.stmt, body: Sequence[ast.stmt], frame: Frame) -> bool:
    """`task.cancel()`, then waiting for that task alone: the cancellation that arrives is its own."""
    if frame.function is None or len(body) != 1:
        return False
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "cancel"
        and node.lineno <= block.lineno
        for node in ast.walk(frame.function.node)
    )


def _match(node: ast.Match, frame: Frame) -> bool:
    evaluate(node.subject, frame)
    for case in node.cases:
        for part in ast.walk(case.pattern):
            name = getattr(part, "name", None) or getattr(part, "rest", None)
            if isinstance(name, str):
                frame.bind(name, OPAQUE, node)
        evaluate(case.guard, frame)
    return _branches(frame, [*(case.body for case in node.cases), []])


def _define(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, frame: Frame) -> bool:
    frame.scope.names[node.name] = frame.walker.define(node, frame)
    return True


def _import(node: ast.Import | ast.ImportFrom, frame: Frame) -> bool:
    for name, binding in imports_of(node, frame.scope.module):
        module = frame.scope.module.module(binding.module)
        value: Value
        if not binding.name:
            value = ModuleValue(module) if module is not None else Outside(binding.module)
        elif module is not None:
            inner = module.module(f"{module.name}.{binding.name}")
            value = frame.walker.global_value(module, binding.name) or (
                ModuleValue(inner) if inner else OPAQUE
            )
        else:
            value = Outside(f"{binding.module}.{binding.name}")
        frame.scope.names[name] = value
    return True


def _global(node: ast.Global, frame: Frame) -> bool:
    frame.scope.global_names.update(node.names)
    return True


def _nonlocal(node: ast.Nonlocal, frame: Frame) -> bool:
    frame.scope.nonlocal_names.update(node.names)
    return True


def _delete(node: ast.Delete, frame: Frame) -> bool:
    for target in node.targets:
        if not isinstance(target, ast.Name) or target.id in frame.scope.global_names:
            bind_target(target, OPAQUE, frame)
    return True


def _assert(node: ast.Assert, frame: Frame) -> bool:
    frame.expect_value(evaluate(node.test, frame), node.test)
    evaluate(node.msg, frame)
    return True


_HANDLERS: dict[type[ast.stmt], Callable[[Any, Frame], bool]] = {
    ast.Expr: _expression,
    ast.Assign: _assign,
    ast.AnnAssign: _hinted_assign,
    ast.AugAssign: _change,
    ast.Return: _return,
    ast.Raise: _raise,
    ast.Break: _leave,
    ast.Continue: _leave,
    ast.If: _if,
    ast.For: _for,
    ast.AsyncFor: _for,
    ast.While: _while,
    ast.With: _with,
    ast.AsyncWith: _with,
    ast.Try: _try,
    ast.TryStar: _try,
    ast.Match: _match,
    ast.FunctionDef: _define,
    ast.AsyncFunctionDef: _define,
    ast.ClassDef: _define,
    ast.Import: _import,
    ast.ImportFrom: _import,
    ast.Global: _global,
    ast.Nonlocal: _nonlocal,
    ast.Delete: _delete,
    ast.Assert: _assert,
}
"""What looks at each kind of statement."""
