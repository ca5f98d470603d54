"""A project's files as modules, and their names as what the code at the top of the module says of them.

Files are read when they are first needed, and nothing is ever imported or run.
A module's name is found by climbing as long as there is an `__init__.py`; its
imports are looked for from the folder above, then from the folders that were
asked for. What is not found there is outside the project.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import PerdureError
from .rules import RULES
from .values import Assigned, Binding, Defined, Imported, Module

_PASSED_OVER = {"__pycache__", "node_modules", "site-packages"}
_ALLOW = re.compile(r"#\s*perdure:\s*allow\b(?:\[(?P<rules>[^\]]*)\])?(?P<reason>[^#]*)")


class Unreadable(PerdureError):
    """A path or module that was to be checked cannot be read."""

    code = "unreadable"


@dataclass(frozen=True, slots=True)
class Allowance:
    """One `# perdure: allow[…] reason`."""

    line: int
    column: int
    rules: tuple[str, ...]
    reason: str
    is_alone: bool
    """Whether nothing else stands on its line: it is then meant for the line below."""

    @property
    def wrong(self) -> str:
        """What is not right with it, if anything."""
        unknown = [rule for rule in self.rules if rule not in RULES]
        if unknown:
            return f"there is no rule {unknown[0]!r}"
        if not self.rules:
            return "it names no rule"
        return "" if self.reason else "it gives no reason"


def read_allowances(text: str) -> list[Allowance]:
    """The allowing comments of a source text."""
    if "perdure:" not in text:
        return []
    found: list[Allowance] = []
    lines = iter(text.splitlines(keepends=True))
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        match = _ALLOW.match(token.string) if token.type == tokenize.COMMENT else None
        if match:
            rules = tuple(rule.strip() for rule in (match["rules"] or "").split(",") if rule.strip())
            alone = not token.line[: token.start[1]].strip()
            found.append(Allowance(*token.start, rules, match["reason"].strip(), alone))
    return found


def is_allowed(allowances: Iterable[Allowance], rule: str, first: int, last: int) -> bool:
    """Whether one of them allows a rule to be broken on these lines, or right above them."""
    return any(
        rule in one.rules
        and not one.wrong
        and (first <= one.line <= last or (one.is_alone and one.line == first - 1))
        for one in allowances
    )


@dataclass(eq=False)
class SourceModule:
    """One file of the project."""

    project: Project
    name: str
    path: str
    file: Path
    tree: ast.Module
    text: str
    root: Path
    """The folder from which its absolute imports are looked for first."""
    _bindings: dict[str, Binding] | None = None
    stars: list[str] = field(default_factory=list[str])
    """Modules of which all names are imported."""

    @property
    def package(self) -> str:
        """What a relative import starts from."""
        is_package = self.file.is_dir() or self.file.name == "__init__.py"
        return self.name if is_package else self.name.rpartition(".")[0]

    @cached_property
    def allowances(self) -> list[Allowance]:
        """Its allowing comments."""
        return read_allowances(self.text)

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.splitlines()

    def column(self, line: int, offset: int) -> int:
        """The column, from 1 and in characters, of what begins at this many bytes."""
        if self.text.isascii() or line > len(self._lines):
            return offset + 1
        return len(self._lines[line - 1].encode()[:offset].decode(errors="ignore")) + 1

    def allows(self, rule: str, first: int, last: int) -> bool:
        """Whether a comment on these lines allows a rule to be broken."""
        return is_allowed(self.allowances, rule, first, last)

    def find(self, name: str) -> Binding | None:
        """What the module's own code says of a name."""
        if self._bindings is None:
            self._bindings = {}
            for statement in _top(self.tree.body):
                self._bind(statement, self._bindings)
        found = self._bindings.get(name)
        if found is None and not name.startswith("_"):
            for star in self.stars:
                other = self.module(star)
                if other is not None and name in other.names():
                    return Imported(star, name)
        return found

    def names(self) -> tuple[str, ...]:
        """The public names that `import *` would take."""
        self.find("")
        return tuple(name for name in self._bindings or () if not name.startswith("_"))

    def module(self, name: str) -> SourceModule | None:
        """Another module of the project, by its whole name."""
        return self.project.module(name, self)

    def absolute(self, node: ast.ImportFrom) -> str:
        """The whole name of the module that a `from … import` means."""
        if not node.level:
            return node.module or ""
        parts = self.package.split(".")
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def _bind(self, node: ast.stmt, bindings: dict[str, Binding]) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bindings[node.name] = Defined(node)
            case ast.Import() | ast.ImportFrom():
                for name, binding in imports_of(node, self):
                    if name == "*":
                        self.stars.append(binding.module)
                    else:
                        # `try: import ujson as json … except ImportError: json = None` keeps the import.
                        bindings.setdefault(name, binding)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    _assign(target, value, bindings)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=hint, value=value):
                bindings[name] = Assigned((value,) if value is not None else (), hint)
            case ast.AugAssign(target=ast.Name(id=name)):
                bindings.setdefault(name, Assigned(()))
            case _:
                pass


def imports_of(node: ast.Import | ast.ImportFrom, module: Module) -> Iterator[tuple[str, Imported]]:
    """The names that an import statement gives."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, Imported(whole)
        return
    base = module.absolute(node)
    for alias in node.names:
        yield alias.asname or alias.name, Imported(base, alias.name)


def _assign(target: ast.expr, value: ast.expr, bindings: dict[str, Binding]) -> None:
    if isinstance(target, (ast.Tuple, ast.List)):
        for part in target.elts:
            if isinstance(part, ast.Name):
                bindings[part.id] = Assigned(())
    elif isinstance(target, ast.Name):
        before = bindings.get(target.id)
        if isinstance(before, Assigned):
            bindings[target.id] = Assigned((*before.values, value), before.hint)
        elif not isinstance(before, Imported):
            bindings[target.id] = Assigned((value,))


def _top(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, also those inside `if`, `try` and `with`."""
    for node in body:
        yield node
        match node:
            case ast.If() | ast.For() | ast.While():
                yield from _top([*node.body, *node.orelse])
            case ast.With():
                yield from _top(node.body)
            case ast.Try():
                handled = [one for handler in node.handlers for one in handler.body]
                yield from _top([*node.body, *handled, *node.orelse, *node.finalbody])
            case _:
                pass


class Project:
    """The files that are looked at."""

    def __init__(self, roots: Iterable[Path] = ()) -> None:
        """`roots`: folders from which absolute imports may also be looked for."""
        self._roots = list(dict.fromkeys(root.resolve() for root in roots))
        self._by_file: dict[Path, SourceModule | None] = {}
        self._by_name: dict[tuple[Path, str], SourceModule | None] = {}
        self.unreadable: dict[str, str] = {}
        """Files that could not be read, and why."""

    def modules(self) -> list[SourceModule]:
        """The modules that were read."""
        return [module for module in self._by_file.values() if module is not None]

    def load(self, file: Path) -> SourceModule | None:
        """Read a file; None if it cannot be read, which `unreadable` then tells."""
        file = file.resolve()
        if file not in self._by_file:
            self._by_file[file] = self._read(file)
        return self._by_file[file]

    def module(self, name: str, importer: SourceModule) -> SourceModule | None:
        """A module of the project by its whole name, as `importer` would find it."""
        if name.partition(".")[0] == "perdure":
            return None
        for root in dict.fromkeys([importer.root, *self._roots]):
            key = (root, name)
            if key not in self._by_name:
                self._by_name[key] = self._find(root, name)
            if self._by_name[key] is not None:
                return self._by_name[key]
        return None

    def _find(self, root: Path, name: str) -> SourceModule | None:
        if not name:
            return None
        place = root.joinpath(*name.split("."))
        for file in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if file.is_file():
                return self.load(file)
        if place.is_dir() and name not in sys.stdlib_module_names and any(place.glob("*.py")):
            return SourceModule(self, name, show_path(place), place, ast.Module([], []), "", root)
        return None

    def _read(self, file: Path) -> SourceModule | None:
        path = show_path(file)
        try:
            with tokenize.open(file) as opened:
                text = opened.read()
            tree = ast.parse(text, path)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.unreadable[path] = _reason(error)
            return None
        root = file.parent
        parts = [] if file.name == "__init__.py" else [file.stem]
        while (root / "__init__.py").is_file():
            parts.insert(0, root.name)
            root = root.parent
        return SourceModule(self, ".".join(parts), path, file, tree, text, root)


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def show_path(file: Path) -> str:
    """A file as people name it: from the folder they are in, where it lies below."""
    here = Path.cwd()
    return file.relative_to(here).as_posix() if file.is_relative_to(here) else file.as_posix()


def files_of(place: str) -> tuple[list[Path], list[Path]]:
    """The files that a path or a module's name means, and the folders to look for imports in.

    Raises Unreadable.
    """
    path = Path(place)
    if path.is_dir():
        return sorted(_files_below(path)), [path]
    if path.is_file():
        return [path], []
    if place.endswith(".py") or "/" in place or not all(part.isidentifier() for part in place.split(".")):
        raise Unreadable(f"There is no file or folder {place!r}.", hint="Give a path, or a module's name.")
    return _files_of_module(place)


def _files_of_module(name: str) -> tuple[list[Path], list[Path]]:
    """Look a module up part by part, so that not even its packages are imported."""
    folders: list[str] | None = None
    here = str(Path.cwd())
    spec = None
    for part in name.split("."):
        search = [here, *sys.path] if folders is None else folders
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None:
            raise Unreadable(
                f"There is no module {name!r}, neither here ({here}) nor installed.",
                hint="Give a path, or a module's name as an import would write it.",
            )
        folders = list(spec.submodule_search_locations or ())
    if folders:
        parents = [Path(folder).parents[name.count(".")] for folder in folders]
        return [file for folder in folders for file in files_of(folder)[0]], parents
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise Unreadable(
            f"Module {name!r} has no source that can be read.", hint="Give the path of its source."
        )
    return [Path(spec.origin)], [Path(spec.origin).parents[name.count(".")]]


def _files_below(folder: Path) -> Iterator[Path]:
    """The Python files below a folder, without what is hidden and what was installed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in _PASSED_OVER
            and not name.startswith(".")
            and not (Path(place) / name / "pyvenv.cfg").is_file()
        ]
        yield from (Path(place) / name for name in files if name.endswith(".py"))
