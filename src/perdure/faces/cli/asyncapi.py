"""`asyncapi`: the streams, events and handlers of a program as a document, or the code against one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from .endings import BadInput, ExitCode, conclude
from .loading import load_module
from .options import DebugOption, JsonOption
from .output import many, print_json, say


def asyncapi(
    module: Annotated[
        str, typer.Argument(metavar="MODULE", help="A module or file that has, or imports, the streams.")
    ],
    against: Annotated[
        str | None,
        typer.Option("--check", metavar="FILE", help="Compare the code with this document, JSON or YAML."),
    ] = None,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Write the document as YAML; else as JSON.")
    ] = False,
    title: Annotated[str | None, typer.Option(help="The document's title; else the module's name.")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write an AsyncAPI 3.0 document of a program.

    Channels are streams, messages are types of event, operations are handlers, bridges and
    the functions that append. With --check the code is compared with a document that was
    written by hand, and each difference told by its path; the exit code is 1 if there is one.
    """
    if as_json and as_yaml:
        raise typer.BadParameter("--json and --yaml exclude each other.")

    async def work() -> ExitCode:
        document = _document(module, title)
        if against is not None:
            return _check(document, against, as_json=as_json)
        _write(document, as_yaml=as_yaml)
        return ExitCode.OK

    conclude(work(), debug=debug)


def _document(module: str, title: str | None) -> dict[str, Any]:
    from ...asyncapi.document import make_document
    from ...asyncapi.finding import find_program

    loaded = load_module(module)
    program = find_program(loaded)
    if not program.streams:
        say(f"Module {loaded.__name__!r} has no streams: was the right one named?")
    version = str(getattr(loaded, "__version__", "0.0.0"))
    return make_document(program, title=title or loaded.__name__, version=version)


def _write(document: dict[str, Any], *, as_yaml: bool) -> None:
    if as_yaml:
        sys.stdout.write(_yaml().safe_dump(document, sort_keys=False, allow_unicode=True, width=100))
    else:
        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        sys.stdout.write(text + "\n")


def _check(document: dict[str, Any], path: str, *, as_json: bool) -> ExitCode:
    from ...asyncapi.comparing import compare

    differences = compare(document, _read(path))
    if as_json:
        print_json(differences)
    else:
        for one in differences:
            sys.stdout.write(f"{one}\n")
    channels = many(len(document["channels"]), "channel")
    say(f"{many(len(differences), 'difference')} between {path} and the code, which has {channels}.")
    return ExitCode.FAILED if differences else ExitCode.OK


def _read(path: str) -> dict[str, Any]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"The document {path!r} cannot be read: {error.strerror}.") from error
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        yaml = _yaml()
        try:
            found = yaml.safe_load(data)
        except yaml.YAMLError as error:
            raise BadInput(f"The document {path!r} is neither JSON nor YAML: {error}.") from error
    if not isinstance(found, dict):
        raise BadInput(f"The document {path!r} is no AsyncAPI document: it is not an object.")
    return found  # pyright: ignore[reportUnknownVariableType]


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BadInput("YAML needs PyYAML.", hint="pip install 'perdure[asyncapi]', or use JSON.") from error
    return yaml
