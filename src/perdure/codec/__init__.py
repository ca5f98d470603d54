"""Values, arguments and exceptions as JSON, and back by their type hints. Never pickle.

    json        a value: encode, decoder, check_hint, is_plain
    arguments   the arguments and the result of one function
    failures    an exception and what led to it
    combined    StepFailed that is also the last error's own type

The rest serves these: `hooks` (types that msgspec leaves to us), `hints` (what
a type hint promises) and `careful` (the slow path: it names what is wrong, and
puts sets in order).
"""
