"""What was found, each with the shortest chain of calls that leads there."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .frame import Owner
from .values import Module

Lines = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hop:
    """One function on the way, and where in it the way goes on."""

    function: str
    path: str
    line: int
    column: int


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One breach of a rule."""

    path: str
    line: int
    column: int
    """Counted from 1, in characters, as editors do."""
    rule: str
    message: str
    end_line: int
    end_column: int
    chain: tuple[Hop, ...]
    """From the workflow to the function where it stands; the last hop is the finding's own place."""


@dataclass(frozen=True, slots=True)
class _Raw:
    """A finding before its chain is known."""

    rule: str
    what: str
    node: ast.AST
    lines: Lines
    """Where a comment may allow it."""
    module: Module
    owner: Owner


@dataclass(slots=True)
class Findings:
    """What a walk keeps: findings, and who calls whom."""

    raw: dict[tuple[str, int, int, str], _Raw] = field(default_factory=dict[tuple[str, int, int, str], _Raw])
    people: dict[Owner, tuple[str, Module]] = field(default_factory=dict[Owner, tuple[str, Module]])
    """The name and module of each function that was walked."""
    calls: dict[Owner, dict[Owner, tuple[ast.AST, Lines]]] = field(
        default_factory=dict[Owner, dict[Owner, tuple[ast.AST, Lines]]]
    )
    """Who calls whom, where, and on which lines a comment may allow it."""

    def add(self, rule: str, what: str, node: ast.AST, lines: Lines, module: Module, owner: Owner) -> None:
        """Keep a finding, once for its place."""
        line, column = place_of(node, module)
        self.raw.setdefault((module.path, line, column, rule), _Raw(rule, what, node, lines, module, owner))

    def note_call(self, caller: Owner, callee: Owner, node: ast.AST, lines: Lines) -> None:
        """Keep that one function calls another."""
        self.calls.setdefault(caller, {}).setdefault(callee, (node, lines))

    def settle(self, entries: list[Owner]) -> list[Finding]:
        """All findings with their chains, sorted by place; without those that comments allow."""
        ways: dict[str, dict[Owner, Owner | None]] = {}
        found: list[Finding] = []
        for raw in self.raw.values():
            if raw.module.allows(raw.rule, *raw.lines):
                continue
            way = ways.get(raw.rule)
            if way is None:
                way = ways[raw.rule] = self._search(entries, raw.rule)
            if raw.owner in way:
                found.append(self._finish(raw, tuple(self._chain(raw, way))))
        return sorted(found)

    def _search(self, entries: list[Owner], rule: str) -> dict[Owner, Owner | None]:
        """From whom each function is reached first; calls that a comment allows are not followed."""
        way: dict[Owner, Owner | None] = dict.fromkeys(entries)
        left = deque(entries)
        while left:
            caller = left.popleft()
            module = self.people[caller][1]
            for callee, (_, lines) in self.calls.get(caller, {}).items():
                if callee not in way and not module.allows(rule, *lines):
                    way[callee] = caller
                    left.append(callee)
        return way

    def _chain(self, raw: _Raw, way: dict[Owner, Owner | None]) -> Iterator[Hop]:
        owners = [raw.owner]
        while (caller := way[owners[-1]]) is not None:
            owners.append(caller)
        owners.reverse()
        for owner, callee in zip(owners, [*owners[1:], None], strict=True):
            name, module = self.people[owner]
            node = raw.node if callee is None else self.calls[owner][callee][0]
            line, column = place_of(node, module)
            yield Hop(name, module.path, line, column)

    def _finish(self, raw: _Raw, chain: tuple[Hop, ...]) -> Finding:
        line, column = place_of(raw.node, raw.module)
        end_line, end_column = line, column
        if not isinstance(raw.node, _LONG):
            end_line = getattr(raw.node, "end_lineno", None) or line
            end_column = raw.module.column(end_line, getattr(raw.node, "end_col_offset", None) or 0)
        place = (raw.module.path, line, column, raw.rule, raw.what)
        return Finding(*place, end_line, end_column, chain)


_LONG = (ast.ExceptHandler, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.AsyncFor)
"""Of these only the first line is meant, and not the whole body."""


def place_of(node: ast.AST, module: Module) -> tuple[int, int]:
    """A node's line and column, both counted from 1."""
    line: int = getattr(node, "lineno", 1)
    return line, module.column(line, getattr(node, "col_offset", 0))


def lines_of(node: ast.AST, statement: ast.stmt | None) -> Lines:
    """The lines on which a comment speaks of a node: those of its statement, if that holds no others."""
    first: int = getattr(node, "lineno", 1)
    last = first if isinstance(node, _LONG) else getattr(node, "end_lineno", None) or first
    if statement is None or not statement.lineno <= first <= (statement.end_lineno or 0):
        return first, last
    body = getattr(statement, "body", None)
    end = body[0].lineno - 1 if body else statement.end_lineno or last
    return (statement.lineno, max(last, end)) if first <= end else (first, last)
