"""The arguments and the result of one function, as JSON and back.

An `Arguments` is made once for each workflow and step. The law: however a call
is spelled (`f(1)`, `f(order=1)`), its bytes are the same, and what `decode`
gives is ready for `fn(*args, **kwargs)`.

Hints are resolved at the first call, not at definition: by then all names of
the module are defined. A hint that names what is nowhere to be found is a
DefinitionError, since to guess would hand dicts to code that expects objects.
"""

from __future__ import annotations

import collections.abc
import inspect
import reprlib
from collections.abc import Callable, Mapping
from functools import cached_property
from inspect import Parameter
from typing import Any, Optional, cast, get_args, get_origin, is_typeddict

import msgspec

from ..errors import DefinitionError, NotDecodable, NotSerialisable, PayloadTooLarge
from . import hints as hinting
from .careful import LEAVES
from .hooks import decode_hook, write
from .json import MAX_PAYLOAD, check_hint, decoder, encode

Call = tuple[tuple[Any, ...], dict[str, Any]]

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_AWAITABLES = (collections.abc.Awaitable, collections.abc.Coroutine)
_contains: Callable[[frozenset[type], type], bool] = frozenset[type].__contains__
_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Arguments:
    """How one function is called."""

    def __init__(
        self,
        function: Callable[..., object],
        *,
        name: str = "",
        local_names: Mapping[str, object] | None = None,
    ) -> None:
        """`name` is what messages call it; `local_names` what hints of a nested function may refer to."""
        self.name = name or function.__name__
        self._function = function
        self._local_names = dict(local_names or {})
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise DefinitionError(
                f"{self.name}: Python cannot say which arguments it takes: {error}.",
                hint="Wrap it in a function with named parameters.",
            ) from error
        self._parameters = tuple(signature.parameters.values())
        self.names = tuple(signature.parameters)
        kinds = [parameter.kind for parameter in self._parameters]
        self._open = Parameter.VAR_POSITIONAL in kinds or Parameter.VAR_KEYWORD in kinds
        self._positional = sum(kind in _POSITIONAL for kind in kinds)
        self._is_simple = self._positional == len(kinds)
        """Whether decoded values are `args` as they are."""
        self._required = sum(
            parameter.default is Parameter.empty for parameter in self._parameters[: self._positional]
        )
        self._cheap = all(
            parameter.default is not Parameter.empty for parameter in self._parameters[self._positional :]
        )
        self._spread = _make_spread(function, signature)

    def __repr__(self) -> str:
        return f"<Arguments of {self.name}({', '.join(self.names)})>"

    # ── binding and writing ──

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise what Python would raise if the function were called so: TypeError, or nothing."""
        if kwargs or not (self._cheap and self._required <= len(args) <= self._positional):
            self._spread(*args, **kwargs)

    def encode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], where: str | Callable[[], str] = ""
    ) -> bytes:
        """Return the call as a JSON array: a value for each parameter, in order, defaults filled in.

        Raises NotSerialisable, its path beginning with `where` (else the name): `charge(order).items[3]`.
        """
        values = self._spread(*args, **kwargs)
        if self._is_calm or LEAVES.issuperset(map(type, values)):
            try:
                data = write(values)
                # NaN is written as null; so is None, and then each value is looked at.
                if data.find(b"null") < 0 and len(data) <= MAX_PAYLOAD:
                    return data
            except Exception:
                pass  # said better below, with the path
        parts = self._encode_each(values, where)
        return self._within_limit(b"[" + b",".join(parts) + b"]", where)

    def encode_object(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], where: str | Callable[[], str] = ""
    ) -> bytes:
        """Return the call as a JSON object by parameter name, defaults filled in."""
        parts = self._encode_each(self._spread(*args, **kwargs), where)
        fields = map(bytes.__add__, self._prefixes, parts)
        return self._within_limit(b"{" + b",".join(fields) + b"}", where)

    def encode_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return what `encode_object` does, and the same for calls that mean the same.

        Raises NotSerialisable, or NotDecodable for a value that its hint does not fit.
        """
        data = self.encode_object(args, kwargs)
        if not kwargs and self._is_simple and self._are_plain(args) and len(args) == len(self.names):
            return data
        # Read and written again: a float given as 86400 is 86400.0 for whoever reads it back.
        return self.encode_object(*self.decode_object(data))

    def _encode_each(self, values: tuple[Any, ...], where: str | Callable[[], str]) -> list[bytes]:
        parts: list[bytes] = []
        for name, value in zip(self.names, values, strict=True):
            try:
                parts.append(encode(value, ""))
            except PayloadTooLarge as error:
                raise PayloadTooLarge(self._path(where, name), size=error.size, limit=error.limit) from None
            except NotSerialisable as error:
                path = self._path(where, name) + error.path
                raise NotSerialisable(path, error.reason) from error.__cause__
        return parts

    def _path(self, where: str | Callable[[], str], name: str) -> str:
        return f"{(where() if callable(where) else where) or self.name}({name})"

    def _within_limit(self, data: bytes, where: str | Callable[[], str]) -> bytes:
        if len(data) > MAX_PAYLOAD:
            path = self._path(where, ", ".join(self.names))
            raise PayloadTooLarge(path, size=len(data), limit=MAX_PAYLOAD)
        return data

    # ── reading ──

    def decode(self, data: bytes) -> Call:
        """Return what `encode` wrote, typed by the hints, ready for the call.

        Raises NotDecodable, naming the parameter.
        """
        try:
            values = self._read(data)
        except Exception:
            return self._decode_by_position(data)  # slower, and says which parameter is at fault
        return (values, {}) if self._is_simple else self._arrange(dict(zip(self.names, values, strict=True)))

    def copy(self, args: tuple[Any, ...], kwargs: dict[str, Any], data: bytes) -> Call:
        """Return `decode(data)`, where `data` is what `encode` gave for these very arguments.

        The originals come back when a round trip would change nothing about them.
        """
        if kwargs or len(args) > self._positional:
            return self.decode(data)
        return (args, kwargs) if self._are_plain(args) else self.decode(data)

    def _are_plain(self, args: tuple[Any, ...]) -> bool:
        return all(map(_contains, self._plain, map(type, args)))

    def decode_object(self, data: bytes) -> Call:
        """Return what `encode_object` wrote, in any order; what is missing gets its default.

        Raises NotDecodable for names that are unknown or missing, and for values that do not fit.
        """
        if self._is_simple:
            try:
                return msgspec.structs.astuple(self._read_fields(data)), {}
            except Exception:
                pass  # said better below, or helped by a default
        try:
            raws = _read_object(data)
        except msgspec.DecodeError as error:
            raise NotDecodable(self.name, f"the arguments are not a JSON object: {error}") from error
        return self._decode_raws(raws)

    def from_json(self, data: bytes) -> Call:
        """Return the call that a person wrote as JSON.

        One parameter: its value. Several: an object of names, or an array by position. Nothing: no arguments.
        """
        if not data.strip():
            return self._decode_raws({})
        if len(self._parameters) == 1 and not self._open:
            return self._decode_raws({self.names[0]: data})
        if data.lstrip().startswith(b"["):
            return self._decode_by_position(data, exactly=False)
        if not self._parameters and data.strip() == b"null":
            return (), {}
        return self.decode_object(data)

    def _decode_by_position(self, data: bytes, *, exactly: bool = True) -> Call:
        try:
            raws = _read_array(data)
        except Exception as error:
            raise NotDecodable(self.name, f"the arguments are not a JSON array: {error}") from error
        if len(raws) > len(self.names) or (exactly and len(raws) < len(self.names)):
            takes = f"takes {len(self.names)} ({', '.join(self.names)})" if self.names else "takes none"
            raise NotDecodable(self.name, f"there are {len(raws)} arguments, and the function {takes}")
        return self._decode_raws(dict(zip(self.names, raws, strict=False)))

    def _decode_raws(self, raws: Mapping[str, msgspec.Raw | bytes]) -> Call:
        values: dict[str, Any] = {}
        missing: list[str] = []
        unknown = [name for name in raws if name not in self.names]
        for parameter in self._parameters:
            name = parameter.name
            if name in raws:
                values[name] = raws[name]
            elif parameter.kind is Parameter.VAR_POSITIONAL:
                values[name] = b"[]"
            elif parameter.kind is Parameter.VAR_KEYWORD:
                values[name] = b"{}"
            elif parameter.default is Parameter.empty:
                missing.append(name)
        if unknown or missing:
            raise self._misfit(unknown, missing)
        for name, raw in values.items():
            values[name] = decoder(self._hints[name], f"{self.name}({name})")(bytes(raw))
        for parameter in self._parameters:
            values.setdefault(parameter.name, parameter.default)
        return self._arrange(values)

    def _misfit(self, unknown: list[str], missing: list[str]) -> NotDecodable:
        said: list[str] = []
        if missing:
            said.append(f"no value for {', '.join(map(repr, missing))}")
        if unknown:
            said.append(f"unknown {', '.join(map(repr, unknown))}")
        takes = ", ".join(self.names) or "no arguments"
        return NotDecodable(self.name, "; ".join(said), hint=f"The function takes: {takes}.")

    def _arrange(self, values: dict[str, Any]) -> Call:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter in self._parameters:
            value = values[parameter.name]
            match parameter.kind:
                case Parameter.VAR_POSITIONAL:
                    args.extend(value)
                case Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                case Parameter.KEYWORD_ONLY:
                    kwargs[parameter.name] = value
                case _:
                    args.append(value)
        return tuple(args), kwargs

    # ── results ──

    @cached_property
    def result_hint(self) -> Any:
        """What awaiting the function gives; Any where it does not say."""
        hint = self._resolved.get("return", Any)
        if get_origin(hint) in _AWAITABLES and get_args(hint):
            return get_args(hint)[-1]
        return hint

    @cached_property
    def result_decoder(self) -> Callable[[bytes], Any]:
        """Reads the function's result."""
        return decoder(self.result_hint, f"{self.name}()")

    def read_result(self, data: bytes) -> Any:
        """Return the function's result as it was encoded. Raises NotDecodable."""
        return self.result_decoder(data)

    def copy_result(self, value: Any, data: bytes) -> Any:
        """Return `result_decoder(data)`, where `data` is this value encoded.

        The value itself comes back when a round trip would change nothing about it.
        """
        return value if type(value) in self._plain_result else self.result_decoder(data)

    @cached_property
    def _plain_result(self) -> frozenset[type]:
        return hinting.plain_kinds(hinting.normalise(self.result_hint))

    # ── hints ──

    def check(self) -> None:
        """Resolve all hints now. Raises DefinitionError for one that can never work."""
        for name in self.names:
            check_hint(self._hints[name], f"{self.name}({name})")
        check_hint(self.result_hint, f"{self.name}()")

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        try:
            return hinting.resolve(self._function, self._local_names)
        except NameError as error:
            raise DefinitionError(
                f"{self.name}: a type hint names {error.name!r}, which is not known where it is defined.",
                hint="Import it when the program runs, not only under TYPE_CHECKING; "
                "define a class that hints refer to at the top of the module.",
            ) from error
        except Exception as error:
            raise DefinitionError(
                f"{self.name}: its type hints cannot be read: {error}.", hint="Put the hints right."
            ) from error

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return {parameter.name: self._hint_of(parameter) for parameter in self._parameters}

    def _hint_of(self, parameter: Parameter) -> Any:
        hint = hinting.normalise(self._resolved.get(parameter.name, Any))
        # `*args: *Ts`, `**options: Unpack[Options]`, `*args: P.args`
        unpacked = type(hint).__name__.startswith(("ParamSpec", "_Unpack"))
        match parameter.kind:
            case Parameter.VAR_POSITIONAL:
                return list[Any] if unpacked else list[hint]
            case Parameter.VAR_KEYWORD:
                fields = get_args(hint)[0] if unpacked and get_args(hint) else None
                return fields if is_typeddict(fields) else dict[str, Any] if unpacked else dict[str, hint]
            case _:
                # Python lets `x: int = None` stand, and so do we.
                return Optional[hint] if parameter.default is None and hint is not Any else hint  # noqa: UP045

    @property
    def fields(self) -> list[tuple[str, Any, bool]]:
        """The name and hint of each parameter, and whether it must be given. Raises DefinitionError."""
        open_kinds = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        return [
            (one.name, self._hints[one.name], one.default is Parameter.empty and one.kind not in open_kinds)
            for one in self._parameters
        ]

    @cached_property
    def _is_calm(self) -> bool:
        return all(map(hinting.is_calm, self._hints.values()))

    @cached_property
    def _plain(self) -> tuple[frozenset[type], ...]:
        return tuple(hinting.plain_kinds(self._hints[name]) for name in self.names)

    @cached_property
    def _read(self) -> Callable[[bytes], tuple[Any, ...]]:
        for name in self.names:
            decoder(self._hints[name], f"{self.name}({name})")  # a hint that is no good is named here
        hint: Any = tuple[tuple(self._hints.values())]  # pyright: ignore[reportInvalidTypeArguments]
        try:
            return msgspec.json.Decoder(hint, dec_hook=decode_hook).decode
        except TypeError:  # a union that only pydantic reads: one parameter at a time
            return _refuse

    @cached_property
    def _read_fields(self) -> Callable[[bytes], msgspec.Struct]:
        fields = [(name, self._hints[name]) for name in self.names]
        try:
            struct = msgspec.defstruct(self.name, fields, forbid_unknown_fields=True)
            return msgspec.json.Decoder(struct, dec_hook=decode_hook).decode
        except TypeError:
            return _refuse

    @cached_property
    def _prefixes(self) -> list[bytes]:
        return [write(name) + b":" for name in self.names]

    # ── for people ──

    def describe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Return the call as people write it, cut to some 80 characters. Never raises."""
        shown = [_short.repr(value) for value in args]
        shown += [f"{name}={_short.repr(value)}" for name, value in kwargs.items()]
        text = ", ".join(shown)
        room = max(78 - len(self.name), 20)
        return f"{self.name}({text if len(text) <= room else text[: room - 1] + '…'})"


def _refuse(data: bytes) -> Any:
    raise TypeError


class _ShortRepr(reprlib.Repr):
    """repr, cut at the end rather than in the middle, and never failing."""

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            text = " ".join(repr(x).split())
        except Exception:
            return f"<{type(x).__qualname__}>"
        return text if len(text) <= self.maxother else text[: self.maxother - 2] + "…)"


_short = _ShortRepr()
_short.maxother = 60
_short.maxstring = 40


def _make_spread(
    function: Callable[..., object], signature: inspect.Signature
) -> Callable[..., tuple[Any, ...]]:
    """Return a function of the same signature that returns its arguments, one value a parameter.

    Python itself then binds the arguments: at its own speed, and with its own errors.
    """
    declared: list[str] = []
    given: list[str] = []
    last = Parameter.POSITIONAL_ONLY
    for parameter in signature.parameters.values():
        kind = parameter.kind
        if last is Parameter.POSITIONAL_ONLY and kind is not last and declared:
            declared.append("/")
        if kind is Parameter.KEYWORD_ONLY and last not in (Parameter.VAR_POSITIONAL, kind):
            declared.append("*")
        last = kind
        stars = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}.get(kind, "")
        default = "=None" if parameter.default is not Parameter.empty else ""
        declared.append(f"{stars}{parameter.name}{default}")
        # The order in which keywords were spelled is not part of the call.
        given.append(f"_dict(_sorted({parameter.name}.items()))" if stars == "**" else parameter.name)
    if declared and last is Parameter.POSITIONAL_ONLY:
        declared.append("/")
    space: dict[str, Any] = {"_dict": dict, "_sorted": sorted}
    # Only names of parameters go into the text, and those are identifiers.
    values = "".join(f"{text}, " for text in given)
    exec(f"def spread({', '.join(declared)}): return ({values})", space)  # noqa: S102
    spread: Any = space["spread"]
    defaults = [p for p in signature.parameters.values() if p.default is not Parameter.empty]
    spread.__defaults__ = tuple(p.default for p in defaults if p.kind in _POSITIONAL) or None
    spread.__kwdefaults__ = {p.name: p.default for p in defaults if p.kind is Parameter.KEYWORD_ONLY} or None
    spread.__qualname__ = getattr(function, "__qualname__", "call")
    return cast("Callable[..., tuple[Any, ...]]", spread)
