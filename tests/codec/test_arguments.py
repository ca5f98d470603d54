"""The arguments of a function as JSON: one call, one row of bytes, however it is spelled."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict, TypeVarTuple, Unpack

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.codec.arguments import Arguments
from perdure.errors import DefinitionError, NotDecodable, NotSerialisable, PayloadTooLarge

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Order:
    id: str
    cents: int = 0
    items: list[object] = field(default_factory=list[object])


class Options(TypedDict, total=False):
    fast: bool


class Cat(pydantic.BaseModel):
    meow: int


class Dog(pydantic.BaseModel):
    bark: int


Ts = TypeVarTuple("Ts")


def nothing() -> None: ...
def one(order: Order) -> str: ...
def number(count: int) -> int: ...
def several(a: int, b: str = "b", *, wait: timedelta = timedelta(1), loud: bool = False) -> None: ...
def everything(a: int, /, b: float = 2.0, *rest: Order, key: int, **more: timedelta) -> None: ...
def only_positional(a: int, b: int = 2, /) -> None: ...
def untyped(a, b=None): ...  # pyright: ignore[reportUnknownParameterType, reportMissingParameterType]
def sloppy(a: int = None) -> None: ...  # noqa: RUF013  # pyright: ignore[reportArgumentType]
def optioned(*args: *Ts, **options: Unpack[Options]) -> None: ...
def pets(pet: Cat | Dog) -> None: ...


H, S = timedelta(hours=1), timedelta(seconds=1)
CALLS: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any], bytes]] = [
    (nothing, (), {}, b"[]"),
    (number, (1,), {}, b"[1]"),
    (number, (), {"count": 1}, b"[1]"),
    (one, (Order("1"),), {}, b'[{"id":"1","cents":0,"items":[]}]'),
    (several, (1,), {}, b'[1,"b","P1D",false]'),
    (several, (1, "b"), {"loud": False}, b'[1,"b","P1D",false]'),
    (several, (), {"b": "b", "a": 1}, b'[1,"b","P1D",false]'),
    (several, (1,), {"wait": H}, b'[1,"b","PT3600S",false]'),
    (only_positional, (1,), {}, b"[1,2]"),
    (untyped, (1,), {}, b"[1,null]"),
    (sloppy, (), {}, b"[null]"),
    (everything, (1, 2.0, Order("x")), {"key": 3, "z": H, "y": S}, b""),
    (everything, (1, 2.0, Order("x")), {"y": S, "z": H, "key": 3}, b""),
    (optioned, (1, "a"), {"fast": True}, b'[[1,"a"],{"fast":true}]'),
    (pets, (Dog(bark=1),), {}, b'[{"bark":1}]'),
]
EVERYTHING = (
    b'[1,2.0,[{"id":"x","cents":0,"items":[]}],3,{"y":"PT1S","z":"PT3600S"}]'  # the keywords are in order
)


def _bound(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    import inspect

    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


@pytest.mark.parametrize(("function", "args", "kwargs", "data"), CALLS)
def test_a_call_comes_back_ready_to_be_made(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], data: bytes
) -> None:
    arguments = Arguments(function)

    written = arguments.encode(args, kwargs)
    read = arguments.decode(written)

    assert written == (data or EVERYTHING)
    assert _bound(function, *read) == _bound(function, args, kwargs)


@pytest.mark.parametrize(("function", "args", "kwargs", "_data"), CALLS)
def test_a_call_by_names_comes_back_ready_to_be_made(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], _data: bytes
) -> None:
    arguments = Arguments(function)

    read = arguments.decode_object(arguments.encode_object(args, kwargs))

    assert _bound(function, *read) == _bound(function, args, kwargs)


@pytest.mark.parametrize(("function", "args", "kwargs", "_data"), CALLS)
def test_a_copy_makes_the_same_call(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], _data: bytes
) -> None:
    arguments = Arguments(function)

    copied = arguments.copy(args, kwargs, arguments.encode(args, kwargs))

    assert _bound(function, *copied) == _bound(function, args, kwargs)


WRONG: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] = [
    (number, (), {}),
    (number, (1, 2), {}),
    (number, (1,), {"count": 2}),
    (number, (), {"cuont": 2}),
    (nothing, (1,), {}),
    (several, (), {}),
    (several, (1, "b", H), {}),
    (everything, (1,), {}),
    (everything, (), {"a": 1, "key": 1}),
    (only_positional, (), {"a": 1}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), WRONG)
def test_a_wrong_call_is_refused_in_the_words_of_python(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    arguments = Arguments(function)
    with pytest.raises(TypeError) as python:
        function(*args, **kwargs)

    with pytest.raises(TypeError) as ours:
        arguments.bind(args, kwargs)

    assert str(ours.value) == str(python.value)


@pytest.mark.parametrize(("function", "args", "kwargs", "_data"), CALLS)
def test_a_right_call_binds(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], _data: bytes
) -> None:
    Arguments(function).bind(args, kwargs)


def test_mutable_arguments_are_copied() -> None:
    arguments = Arguments(one)
    order = Order("1")

    (copied,), _ = arguments.copy((order,), {}, arguments.encode((order,), {}))

    assert copied == order
    assert copied is not order


def test_plain_arguments_are_not_copied() -> None:
    arguments = Arguments(untyped)
    args = ("long text" * 100, None)

    copied, _ = arguments.copy(args, {}, arguments.encode(args, {}))

    assert copied is args


def test_a_copy_is_what_a_replay_would_read() -> None:
    def scale(factor: float) -> None: ...

    arguments = Arguments(scale)

    (copied,), _ = arguments.copy((1,), {}, arguments.encode((1,), {}))

    assert type(copied) is float


def test_a_value_that_is_refused_is_named_by_its_parameter() -> None:
    order = Order("1", items=[1, {"callback": print}])

    with pytest.raises(NotSerialisable) as refused:
        Arguments(one, name="charge").encode((order,), {})

    assert str(refused.value).startswith(
        "charge(order).items[1]['callback']: function is not serialisable. Pass plain data"
    )


def test_the_caller_may_say_where() -> None:
    with pytest.raises(NotSerialisable) as refused:
        Arguments(number).encode((float("nan"),), {}, lambda: "step 'pay'")

    assert refused.value.path == "step 'pay'(count)"


def test_an_argument_of_65_mib_is_refused_by_name() -> None:
    with pytest.raises(PayloadTooLarge) as refused:
        Arguments(one).encode((Order("x" * 65 * 1024 * 1024),), {})

    assert refused.value.path == "one(order)"


def test_arguments_of_65_mib_together_are_refused() -> None:
    half = "x" * 33 * 1024 * 1024

    with pytest.raises(PayloadTooLarge) as refused:
        Arguments(untyped).encode((half, half), {})

    assert refused.value.path == "untyped(a, b)"


def test_a_value_that_does_not_fit_is_named_by_its_parameter() -> None:
    arguments = Arguments(several, name="ship")

    with pytest.raises(NotDecodable) as refused:
        arguments.decode(b'[1,2,"P1D",false]')

    assert refused.value.where == "ship(b)"


def test_too_many_arguments_are_refused_with_what_the_function_takes() -> None:
    with pytest.raises(NotDecodable, match=r"there are 2 arguments, and the function takes 1 \(order\)"):
        Arguments(one).decode(b"[1,2]")


def test_stored_input_may_be_in_another_order_and_lack_what_has_a_default() -> None:
    arguments = Arguments(several)

    read = arguments.decode_object(b'{"loud":true,"a":1}')

    assert read == ((1, "b"), {"wait": timedelta(1), "loud": True})


def test_stored_input_with_unknown_and_missing_names_lists_them() -> None:
    with pytest.raises(NotDecodable) as refused:
        Arguments(several).decode_object(b'{"c":1,"b":"x","d":2}')

    assert str(refused.value) == (
        "several: no value for 'a'; unknown 'c', 'd'. The function takes: a, b, wait, loud."
    )


@pytest.mark.parametrize(
    ("function", "text", "call"),
    [
        (one, b'{"id":"1"}', ((Order("1"),), {})),
        (number, b" 3 ", ((3,), {})),
        (sloppy, b"", ((None,), {})),
        (nothing, b"", ((), {})),
        (nothing, b"null", ((), {})),
        (nothing, b"{}", ((), {})),
        (nothing, b"[]", ((), {})),
        (several, b'{"a":1,"loud":true}', ((1, "b"), {"wait": timedelta(1), "loud": True})),
        (several, b'[1,"x"]', ((1, "x"), {"wait": timedelta(1), "loud": False})),
    ],
)
def test_a_person_may_write_a_call_as_json(
    function: Callable[..., object], text: bytes, call: tuple[Any, Any]
) -> None:
    assert Arguments(function).from_json(text) == call


@pytest.mark.parametrize(
    ("function", "text", "said"),
    [
        (number, b'"x"', r"number\(count\): Expected `int`, got `str`"),
        (number, b"", "number: no value for 'count'"),
        (number, b"3,", r"number\(count\): JSON is malformed"),
        (several, b"{oops", "several: the arguments are not a JSON object: JSON is malformed"),
        (several, b"3", "several: the arguments are not a JSON object"),
        (several, b"[]", "several: no value for 'a'"),
        (nothing, b"[1]", "there are 1 arguments, and the function takes none"),
    ],
)
def test_a_call_that_a_person_wrote_wrongly_is_refused(
    function: Callable[..., object], text: bytes, said: str
) -> None:
    with pytest.raises(NotDecodable, match=said):
        Arguments(function).from_json(text)


def test_a_call_is_described_in_a_line() -> None:
    text = Arguments(one, name="charge").describe((Order("17", 4200, list(range(1000))),), {})

    assert text.startswith("charge(Order(id='17', cents=4200")
    assert len(text) <= 80


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_describing_a_call_never_fails() -> None:
    text = Arguments(number, name="pay").describe((Unprintable(),), {"x": "a\nb", "y": 1})

    assert text == r"pay(<Unprintable>, x='a\nb', y=1)"


async def awaited() -> list[int]: ...
def spawned() -> Coroutine[Any, Any, list[int]]: ...
def promised() -> Awaitable[list[int]]: ...
def said_plainly() -> list[int]: ...


@pytest.mark.parametrize("function", [awaited, spawned, promised, said_plainly])
def test_the_result_is_what_awaiting_gives(function: Callable[..., object]) -> None:
    arguments = Arguments(function)

    assert arguments.result_hint == list[int]
    assert arguments.result_decoder(b"[1]") == [1]


def test_a_function_that_says_nothing_returns_anything() -> None:
    assert Arguments(untyped).result_decoder(b'{"a":1}') == {"a": 1}


def test_a_result_is_copied_only_when_that_makes_a_difference() -> None:
    arguments, text = Arguments(awaited), Arguments(one)
    numbers = [1]
    receipt = "receipt" * 10

    assert arguments.copy_result(numbers, b"[1]") is not numbers
    assert text.copy_result(receipt, b"not read") is receipt


def test_a_result_that_does_not_fit_says_of_which_function() -> None:
    with pytest.raises(NotDecodable) as refused:
        Arguments(awaited, name="charge").result_decoder(b'["x"]')

    assert refused.value.where == "charge()[0]"


def hidden(amount: Decimal) -> None: ...


def test_a_hint_that_is_imported_only_for_type_checkers_is_refused_by_name() -> None:
    arguments = Arguments(hidden)

    with pytest.raises(DefinitionError, match="hidden: a type hint names 'Decimal', which is not known"):
        arguments.encode((1,), {})


def test_a_class_that_is_defined_in_a_function_is_found_where_it_is_used() -> None:
    @dataclass
    class Local:
        x: int

    def step(local: Local) -> Local:
        return Local(local.x)

    arguments = Arguments(step)

    assert arguments.decode(b'[{"x":1}]') == ((Local(1),), {})


def test_a_class_that_is_defined_in_a_function_can_be_named() -> None:
    @dataclass
    class Local:
        x: int

    def step(local: Local) -> None: ...

    arguments = Arguments(step, local_names=locals())

    assert arguments.decode(b'[{"x":1}]') == ((Local(1),), {})


def test_a_wrapped_function_is_read_as_the_one_inside() -> None:
    @functools.wraps(one)
    def wrapper(*args: Any, **kwargs: Any) -> Any: ...

    assert Arguments(wrapper).decode(b'[{"id":"1"}]') == ((Order("1"),), {})


def test_checking_finds_a_hint_that_can_never_work() -> None:
    def step(callback: Callable[[], None]) -> None: ...

    with pytest.raises(DefinitionError, match=r"^step\(callback\): a Callable cannot be written"):
        Arguments(step).check()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.integers(), TEXTS, st.timedeltas(), st.booleans(), st.sets(st.sampled_from(["b", "wait", "loud"])))
def test_however_a_call_is_spelled_its_bytes_are_the_same(
    a: int, b: str, wait: timedelta, loud: bool, named: set[str]
) -> None:
    arguments = Arguments(several)
    kwargs: dict[str, Any] = {"loud": loud, "wait": wait}
    plain = arguments.encode((a, b), kwargs)

    by_name = arguments.encode((), {**kwargs, "b": b, "a": a}) if "b" in named else plain
    mixed = arguments.encode((a,), {"wait": wait, "b": b, "loud": loud})

    assert by_name == mixed == plain
    assert arguments.decode(plain) == ((a, b), {"wait": wait, "loud": loud})
