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


class _Definitions:
    """Every workflow that lives in this process."""

    def __init__(self) -> None:
        self._refs: dict[str, list[weakref.ref[WorkflowDefinition]]] = {}
        self._collected: set[str] = set()
        """Names that had several definitions, of which none was garbage when that was looked at."""
        self.changes = 0
        """Goes up when a definition comes or goes."""

    def add(self, definition: WorkflowDefinition) -> None:
        name = definition.name
        known = self._refs.get(name, ())
        others = [ref for ref in known if (seen := ref()) and seen.source != definition.source]
        self._refs[name] = [*others, weakref.ref(definition, self._changed)]
        self._collected.discard(name)
        self.changes += 1

    def of(self, name: str) -> list[WorkflowDefinition]:
        """Those of this name; more than one when a stored run could belong to either."""
        living = self._living(name)
        if len(living) > 1 and name not in self._collected:
            self._collected.add(name)
            gc.collect()  # one that nobody uses any more may only not have been collected yet
            living = self._living(name)
        return living

    def names(self) -> list[str]:
        """Those that have one definition."""
        return [name for name in list(self._refs) if len(self.of(name)) == 1]

    def _living(self, name: str) -> list[WorkflowDefinition]:
        return [definition for ref in self._refs.get(name, ()) if (definition := ref()) is not None]

    def _changed(self, _: object) -> None:
        self.changes += 1


_defined = _Definitions()


def register(definition: WorkflowDefinition) -> None:
    """Make a workflow known by its name. Executing the same source again replaces it."""
    _defined.add(definition)


class Registry:
    """The workflows that one engine runs."""

    def __init__(self, workflows: Iterable[WorkflowDefinition] | None = None) -> None:
        """`workflows`: only these; None: every one that is defined in this process."""
        self._open = workflows is None
        self._own: dict[str, WorkflowDefinition] = {}
        self._names: list[str] = []
        self._names_at = -1
        """How many definitions had come and gone when the names were gathered."""
        for definition in workflows or ():
            self.add(definition)

    def add(self, definition: WorkflowDefinition) -> None:
        """Run this one too: it was started here."""
        own = self._own.get(definition.name)
        if own is not None and own.source != definition.source:
            raise _ambiguous(definition.name, own.source, definition.source)
        self._own[definition.name] = definition
        self._names_at = -1

    def find(self, name: str) -> WorkflowDefinition | None:
        """The workflow of this name; None when this process does not know it.

        Raises DefinitionError when two different ones claim it.
        """
        own = self._own.get(name)
        if own is not None or not self._open:
            return own
        living = _defined.of(name)
        if len(living) > 1:
            raise _ambiguous(name, living[0].source, living[1].source)
        return living[0] if living else None

    def names(self) -> list[str]:
        """The workflows that can be run here; without those that two definitions claim."""
        if self._names_at != _defined.changes:
            others = _defined.names() if self._open else ()
            self._names = sorted({*self._own, *others})
            self._names_at = _defined.changes
        return self._names


def _ambiguous(name: str, first: str, second: str) -> DefinitionError:
    return DefinitionError(
        f"Two workflows are named {name!r}: {first} and {second}. A stored run could belong to either.",
        hint="Rename one, or give it a name of its own: @workflow(name='…').",
    )
