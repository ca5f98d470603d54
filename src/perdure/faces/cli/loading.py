"""Finding workflows by name: `shop:checkout`, `path/shop.py:checkout`, or just `shop`."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ...blocks.workflow import Workflow
from .endings import BadInput

_FORM = "Write module:workflow, or path/to/file.py:workflow."
_PLACE = "A module is named as it would be imported here, or by the path of its file: shop, or path/shop.py."


def load_workflow(target: str) -> Workflow[Any, Any]:
    """The workflow that `module:name` means; `module` will do when it has only one. Raises BadInput."""
    place, _, name = target.partition(":")
    module = load_module(place)
    found = workflows_of(module)
    if not name and len(found) == 1:
        return next(iter(found.values()))
    if name in found:
        return found[name]
    for definition in found.values():
        if definition.name == name:
            return definition
    raise _no_workflow(module, name, found)


def load_module(place: str) -> ModuleType:
    """Import a module by its name, or by the path of its file. Raises BadInput."""
    folder = str(Path.cwd())
    name = place
    if place.endswith(".py") or "/" in place:
        path = Path(place)
        if not path.is_file():
            raise BadInput(
                f"There is no file {place!r}.", hint=_near(path.name, _names(path.parent, ".py"), _PLACE)
            )
        folder, name = str(path.resolve().parent), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise BadInput(f"{place!r} is no module's name.", hint=_PLACE)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        raise BadInput(
            f"There is no module {error.name!r}, neither here ({folder}) nor installed.",
            hint=_near(name, _names(Path(folder)), _PLACE),
        ) from None
    except Exception as error:
        raise _broken(name, error) from error


def load_modules(places: Sequence[str]) -> dict[str, Workflow[Any, Any]]:
    """The workflows of several modules, by their names in the store. Raises BadInput."""
    found: dict[str, Workflow[Any, Any]] = {}
    for place in places:
        for definition in workflows_of(load_module(place.partition(":")[0])).values():
            found[definition.name] = definition
    return found


def workflows_of(module: ModuleType) -> dict[str, Workflow[Any, Any]]:
    """The workflows that a module has, by their names in it."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Workflow)}


def _no_workflow(module: ModuleType, name: str, found: dict[str, Workflow[Any, Any]]) -> BadInput:
    what = f"Module {module.__name__!r} has no workflow {name!r}"
    if not name:
        what = f"Module {module.__name__!r} has {len(found)} workflows, and no name was given"
    elif hasattr(module, name):
        kind = type(getattr(module, name)).__name__
        what = f"{name!r} in module {module.__name__!r} is a {kind}, and not a workflow"
    if not found:
        return BadInput(f"{what}.", hint="Put @workflow on the `async def` that is to be run.")
    return BadInput(f"{what}. It has: {', '.join(sorted(found))}.", hint=_near(name, list(found), _FORM))


def _broken(name: str, error: Exception) -> BadInput:
    where = ""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})"
    elif frames and frames[-1].filename != __file__:
        where = f" ({frames[-1].filename}:{frames[-1].lineno})"
    return BadInput(
        f"Module {name!r} cannot be imported: {type(error).__name__}: {error}{where}.",
        hint="--debug shows the traceback.",
    )


def _names(folder: Path, ending: str = "") -> list[str]:
    if not folder.is_dir():
        return []
    return [path.stem + ending for path in sorted(folder.glob("*.py"))]


def _near(name: str, names: list[str], form: str) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else form
