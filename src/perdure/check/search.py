"""A whole check: the workflows and steps of some files are found, followed and told of.

It looks into every file that is asked for, and into those of the project that
their workflows reach.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import hints
from .findings import Finding, Hop
from .frame import Frame, Owner
from .project import Project, SourceModule, files_of
from .values import ClassValue, Function, FunctionValue, Scope, Value
from .walk import Walk

_MESSAGES = {"perdure.Signal", "perdure.State", "perdure.Update"}
_MARKS = ("async def", "perdure", "@step")
"""A file that defines workflows or steps has one of these somewhere in its text."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check came to."""

    findings: tuple[Finding, ...]
    files: int
    """How many files were asked for."""
    workflows: int
    steps: int
    unreadable: tuple[tuple[str, str], ...]
    """Files that could not be read, and why."""


def check(places: Iterable[str]) -> Report:
    """Check files, folders and modules. None of their code is run.

    Raises Unreadable for a place that is not there. A file that is no Python is told of in the report.
    """
    files: dict[Path, None] = {}
    roots: list[Path] = []
    for place in places:
        found, folders = files_of(place)
        files.update(dict.fromkeys(file.resolve() for file in found))
        roots += folders
    here = Path.cwd()
    project = Project([*roots, here, here / "src"])
    walk = Walk()
    modules = [module for file in files if _may_define(file) and (module := project.load(file)) is not None]
    for module in modules:
        look(module, walk)
    follow(walk)
    found_all = [*walk.findings.settle(walk.entries), *_wrong_comments(project)]
    kinds = [value.kind for value in walk.marked.values()]
    return Report(
        tuple(sorted(found_all)),
        len(files),
        kinds.count("workflow"),
        kinds.count("step"),
        tuple(sorted(project.unreadable.items())),
    )


def _may_define(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True  # reading it again tells why
    return any(mark in text for mark in _MARKS)


def look(module: SourceModule, walk: Walk) -> None:
    """Find the steps and workflows that a file defines, also those inside functions."""
    frame = Frame(walk, Scope(module, "quiet"), Owner(module.tree, "quiet"))
    walk.only_looks = True
    for node in ast.walk(module.tree):
        match node:
            case ast.Assign(value=ast.Call() as made) | ast.AnnAssign(value=ast.Call() as made):
                _look_at_message(made, frame, walk)
            case _:
                pass
    for name in dict.fromkeys(_top_names(module)):
        walk.found_inside += _functions_of(walk.global_value(module, name), module)
    while walk.found_inside:
        _look_inside(walk.found_inside.pop(), walk)
    walk.only_looks = False


def _top_names(module: SourceModule) -> list[str]:
    names = [*module.names(), *(node.name for node in module.tree.body if isinstance(node, _NAMED))]
    return [name for name in names if name]


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NAMED = (*_FUNCTIONS, ast.ClassDef)


def _functions_of(value: Value | None, module: SourceModule) -> list[Function]:
    """The functions behind a name of this module, of a class its methods."""
    if isinstance(value, FunctionValue) and value.function.module is module:
        return [value.function]
    if isinstance(value, ClassValue) and value.definition.module is module:
        inside = [node for node in value.definition.node.body if isinstance(node, _FUNCTIONS)]
        return [Function(node, module, None, value.definition) for node in inside]
    return []


def _look_inside(function: Function, walk: Walk) -> None:
    """A function that defines others is run through without following its calls."""
    node = function.node
    if isinstance(node, ast.Lambda) or not any(
        isinstance(one, _NAMED) for one in ast.walk(node) if one is not node
    ):
        return
    walk.look_inside(function)


def _look_at_message(node: ast.Call, frame: Frame, walk: Walk) -> None:
    """`Signal[Callback]("done")`: what it carries is stored too."""
    if not isinstance(node.func, ast.Subscript) or hints.name_of(node.func.value, frame) not in _MESSAGES:
        return
    inner = node.func.slice
    walk.entries.append(frame.owner)
    walk.findings.people[frame.owner] = ("module", frame.scope.module)
    for hint in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
        walk.check_hint(hint, f"What {ast.unparse(node.func)} carries", frame)


def follow(walk: Walk) -> None:
    """Follow each workflow, also those that come to light on the way."""
    done: set[ast.AST] = set()
    while left := [value for node, value in walk.marked.items() if node not in done]:
        for value in left:
            done.add(value.function.node)
            walk.check_hints(value)
            if value.kind == "workflow":
                walk.walk_workflow(value.function)
    walk.finish()


def _wrong_comments(project: Project) -> list[Finding]:
    found: list[Finding] = []
    for module in project.modules():
        for one in module.allowances:
            if one.wrong:
                place = (module.path, one.line, one.column + 1)
                message = f"This comment allows nothing: {one.wrong}."
                found.append(
                    Finding(*place, "allow-comment", message, one.line, one.column + 2, (Hop("", *place),))
                )
    return found
