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
        self.changes = 0
        """Goes up when a definition comes or goes."""

    def add(self, definition: WorkflowDefinition) -> None:
        known = self._refs.get(definition.name, ())
        others = [ref for ref in known if (seen := ref()) and seen.source != definition.source]
        self._refs[definition.name] = [*others, weakref.ref(definition, self._changed)]
        self.changes += 1

    def of(self, name: str) -> list[WorkflowDefinition]:
        """Those of this name; more than one when a stored run could belong to either."""
        return [definition for ref in self._refs.get(name, ()) if (definition := ref()) is not None]

    def counts(self) -> dict[str, int]:
        """How many there are of each name."""
        return {name: len(self.of(name)) for name in list(self._refs)}

    def _changed(self, _: object) -> None:
        self.changes += 1


_defined = _Definitions()


def register(definition: WorkflowDefinition) -> None:
    """Make a workflow known by its name. Executing the same source again replaces it."""
    _defined.add(definition)


class Registry:
    """The workflows that one engine runs."""

    collects = True
    """Whether garbage is collected for a name that two definitions claim: one may not be in use any more."""

    def __init__(self, workflows: Iterable[WorkflowDefinition] | None = None) -> None:
        """`workflows`: only these; None: every one that is defined in this process."""
        self._open = workflows is None
        self._own: dict[str, WorkflowDefinition] = {}
        self._names: list[str] = []
        self._names_at = -1
        """How many definitions had come and gone when the names were gathered."""
        self._ambiguous: set[str] = set()
        """Names that had several definitions after the last collection."""
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
        if len(living) > 1 and self.collects:
            gc.collect()
            living = _defined.of(name)
        if len(living) > 1:
            raise _ambiguous(name, living[0].source, living[1].source)
        return living[0] if living else None

    def names(self) -> list[str]:
        """The workflows that can be run here; without those that two definitions claim."""
        if self._names_at != _defined.changes:
            self._names_at = _defined.changes
            self._names = sorted({*self._own, *(self._names_of_one() if self._open else ())})
        return self._names

    def _names_of_one(self) -> list[str]:
        counts = _defined.counts()
        several = {name for name, count in counts.items() if count > 1}
        if self.collects and several - self._ambiguous:
            gc.collect()
            counts = _defined.counts()
            self._ambiguous = several
        return [name for name, count in counts.items() if count == 1]


def _ambiguous(name: str, first: str, second: str) -> DefinitionError:
    return DefinitionError(
        f"Two workflows are named {name!r}: {first} and {second}. A stored run could belong to either.",
        hint="Rename one, or give it a name of its own: @workflow(name='…').",
    )
