"""The document: channels are streams, messages are types of event, operations are handlers and appends."""

from __future__ import annotations

import inspect
import re
from typing import Any

from .finding import Operation, Program
from .schemas import Components

VERSION = "3.0.0"
_ODD = re.compile(r"[^\w.\-]")

_ATTRIBUTES = {
    "ce-specversion": ("1.0", "The version of CloudEvents."),
    "ce-id": (None, "Names the event within its source."),
    "ce-source": (None, "Where the event comes from."),
    "ce-type": (None, "The type of event."),
    "ce-dataschema": (None, "The type of event, and the version of its schema."),
    "ce-time": (None, "When it happened, RFC 3339."),
    "ce-subject": (None, "The key: events of a key are handled in order."),
}
_REQUIRED = ["ce-specversion", "ce-id", "ce-source", "ce-type"]


def make_document(program: Program, *, title: str, version: str) -> dict[str, Any]:
    """An AsyncAPI document of a program. Raises DefinitionError for a type without a JSON Schema."""
    components = Components()
    channels = {
        stream: {
            "address": stream,
            "messages": {
                name: _message(name, kind, number, components)
                for name, (kind, number) in sorted(kinds.items())
            },
        }
        for stream, kinds in program.streams.items()
    }
    taken: set[str] = set()
    operations = {_free_name(one, taken): _operation(one) for one in program.operations}
    return {
        "asyncapi": VERSION,
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": dict(sorted(components.schemas.items())),
            "messageTraits": {"cloudEvent": {"headers": _headers()}},
        },
    }


def _message(name: str, kind: type, version: int, components: Components) -> dict[str, Any]:
    message: dict[str, Any] = {"name": name, "title": kind.__name__}
    about = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
    if about and not about.startswith(f"{kind.__name__}("):  # which is what dataclasses write themselves
        message["summary"] = about
    schema = f"urn:perdure:event:{name}:{version}"
    return {
        **message,
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "headers": {
            "type": "object",
            "properties": {
                "ce-type": {"type": "string", "const": name},
                "ce-dataschema": {"type": "string", "const": schema},
            },
        },
        "payload": components.reference(kind),
    }


def _headers() -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, (value, about) in _ATTRIBUTES.items():
        constant = {} if value is None else {"const": value}
        properties[name] = {"type": "string", **constant, "description": about}
    return {"type": "object", "properties": properties, "required": _REQUIRED}


def _operation(one: Operation) -> dict[str, Any]:
    channel = f"#/channels/{_token(one.stream)}"
    operation: dict[str, Any] = {"action": one.action, "channel": {"$ref": channel}}
    if one.about:
        operation["summary"] = one.about
    operation["messages"] = [{"$ref": f"{channel}/messages/{_token(name)}"} for name in one.types]
    return operation


def _free_name(one: Operation, taken: set[str]) -> str:
    name = base = _ODD.sub("_", one.name)
    if name in taken:
        name = base = _ODD.sub("_", f"{one.stream}.{one.name}")
    number = 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name)
    return name


def _token(text: str) -> str:
    """As part of a JSON pointer."""
    return text.replace("~", "~0").replace("/", "~1")
