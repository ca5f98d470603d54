"""`export`: journals as JSON, for tests, for people who help, for other programs."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ...client import Client
from .endings import BadInput, with_client
from .listing import read_status
from .options import DEFAULT_STORE, DebugOption, StoreOption
from .output import many, say

if TYPE_CHECKING:
    from ...journals.form import Journal


def export(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="The run's id; none with --all.")] = None,
    all: Annotated[
        bool, typer.Option("--all", help="All runs, newest first: a line of JSON for each.")
    ] = False,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", help="With --all: only with this status; as often as you like."),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", help="With --all: only runs of this workflow.")
    ] = None,
    generation: Annotated[
        int | None, typer.Option("--generation", "-g", min=1, help="An earlier generation of the id.")
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(
            "--redact",
            metavar="PATTERN",
            help="Take values out: of a step, signal or update by name (charge, pay*, input, result), by "
            "JSON path ($.card.number, $..email), or both (charge:$.card). As often as you like.",
        ),
    ] = None,
    redact_all: Annotated[bool, typer.Option("--redact-all", help="Take every value out.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there; else to stdout.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    debug: DebugOption = False,
) -> None:
    """Write a run's journal as JSON, for tests and `debug`.

    What is taken out is replaced by a marker of the same type, so that the journal still
    replays where the code does not branch on it. Ids, names, times and error types stay.
    """
    if (id is None) != all:
        raise typer.BadParameter("Give the run's id, or --all.")
    if not all and (status or workflow):
        raise typer.BadParameter("--status and --workflow go with --all.")
    patterns = ["*"] if redact_all else redact or []

    async def work(client: Client) -> None:
        from ...journals.reading import find_journal, find_journals

        if id is not None:
            journal = await client.door.read(partial(find_journal, run_id=id, generation=generation))
            _write(iter([journal]), patterns, output, one=True)
        else:
            words = [read_status(word).value for word in status or ()]
            read = partial(find_journals, statuses=words, workflow=workflow)
            await client.door.read(lambda store: _write(read(store), patterns, output, one=False))

    with_client(work, store=store, debug=debug)


def _write(journals: Iterator[Journal], patterns: list[str], output: Path | None, *, one: bool) -> None:
    from ...journals.form import pretty, write_journal
    from ...journals.redaction import BadPattern, redact

    written = 0
    with _open(output) as file:
        for journal in journals:
            try:
                data = write_journal(redact(journal, patterns))
            except BadPattern as error:
                raise BadInput(error.what, hint=error.hint) from error
            file.write(pretty(data) if one else data + b"\n")
            written += 1
    if output is not None:
        say(f"Wrote {many(written, 'journal')} to {output}.")


@contextmanager
def _open(output: Path | None) -> Generator[BinaryIO]:
    """Stdout; or a file, which is replaced when all is written. Raises BadInput."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(output)
    except OSError as error:
        raise BadInput(f"{str(output)!r} cannot be written: {error.strerror}.") from error
    finally:
        part.unlink(missing_ok=True)
