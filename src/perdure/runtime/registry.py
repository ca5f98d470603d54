"""Which workflow a name stands for in this process.

`@workflow` registers here when it is executed. Definitions are held weakly: one
that was made inside a function, as tests do, goes with it. Two living
definitions of one name are refused when the name is used, not before.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable

from ..errors import DefinitionError
from .definitions import WorkflowDefinition

_defined: dict[str, list[weakref.ref[WorkflowDefinition]]] = {}


def register(definition: WorkflowDefinition) -> None:
    """Make a workflow known by its name. Executing the same source again replaces it."""
    known = [
        ref
        for ref in _defined.get(definition.name, [])
        if (seen := ref()) and seen.source != definition.source
    ]
    _defined[definition.name] = [*known, weakref.ref(definition)]


class Registry:
    """The workflows that one engine runs."""

    def __init__(self, workflows: Iterable[WorkflowDefinition] | None = None) -> None:
        """`workflows`: only these; None: every one that is defined in this process."""
        self._open = workflows is None
        self._own: dict[str, WorkflowDefinition] = {}
        self._ambiguous: set[str] = set()
        """Names that had several definitions when they were looked at last."""
        for definition in workflows or ():
            self.add(definition)

    def add(self, definition: WorkflowDefinition) -> None:
        """Run this one too: it was started here."""
        own = self._own.get(definition.name)
        if own is not None and own.source != definition.source:
            raise _ambiguous(definition.name, own.source, definition.source)
        self._own[definition.name] = definition

    def find(self, name: str) -> WorkflowDefinition | None:
        """The workflow of this name; None when this process does not know it.

        Raises DefinitionError when two different ones claim it.
        """
        own = self._own.get(name)
        if own is not None or not self._open:
            return own
        living = _living(name)
        if len(living) > 1:
            gc.collect()  # one that nobody uses any more may only not have been collected yet
            living = _living(name)
        if len(living) > 1:
            raise _ambiguous(name, living[0].source, living[1].source)
        return living[0] if living else None

    def names(self) -> list[str]:
        """The workflows that can be run here; without those that two definitions claim."""
        names = set(self._own)
        if self._open:
            living = {name: len(_living(name)) for name in list(_defined)}
            several = {name for name, count in living.items() if count > 1}
            if several - self._ambiguous - names:
                gc.collect()  # one that nobody uses any more may only not have been collected yet
                self._ambiguous = several
                living.update((name, len(_living(name))) for name in several)
            names.update(name for name, count in living.items() if count == 1)
        return sorted(names)


def _living(name: str) -> list[WorkflowDefinition]:
    return [definition for ref in _defined.get(name, ()) if (definition := ref()) is not None]


def _ambiguous(name: str, first: str, second: str) -> DefinitionError:
    return DefinitionError(
        f"Two workflows are named {name!r}: {first} and {second}. A stored run could belong to either.",
        hint="Rename one, or give it a name of its own: @workflow(name='…').",
    )
