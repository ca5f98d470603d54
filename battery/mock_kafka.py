"""librdkafka's Kafka cluster for tests, in a process of its own: `python -m battery.mock_kafka`.

It writes how to reach it, and then does what each line of its input says: `down`, `up`, or the number of a
kind of request and those of the errors that are its next answers, `0 7 19`.
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PRODUCER = 0
_BROKER = 1


def main() -> None:
    """Until its input ends."""
    library = _library()
    said = ctypes.create_string_buffer(512)
    owner = library.rd_kafka_new(_PRODUCER, None, said, len(said))
    cluster = library.rd_kafka_mock_cluster_new(owner, 1)
    print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
    for line in sys.stdin:
        if line == "down\n":
            library.rd_kafka_mock_broker_set_down(cluster, _BROKER)
        elif line == "up\n":
            library.rd_kafka_mock_broker_set_up(cluster, _BROKER)
        else:
            request, *errors = map(int, line.split())
            answers = (ctypes.c_int * len(errors))(*errors)
            library.rd_kafka_mock_push_request_errors_array(cluster, request, len(errors), answers)
        print("done", flush=True)


def _library() -> Any:
    spec = find_spec("confluent_kafka")
    assert spec is not None, "the row needs confluent-kafka, which is part of the test extra"
    assert spec.origin is not None
    (path,) = (Path(spec.origin).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    for beside in sorted(path.parent.glob("*.so*")):  # what it needs stands beside it
        if beside != path:
            _try_to_load(beside)
    library = ctypes.CDLL(str(path))
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, gives, *takes in (
        ("rd_kafka_new", pointer, number, pointer, text, ctypes.c_size_t),
        ("rd_kafka_mock_cluster_new", pointer, pointer, number),
        ("rd_kafka_mock_cluster_bootstraps", text, pointer),
        ("rd_kafka_mock_broker_set_down", number, pointer, ctypes.c_int32),
        ("rd_kafka_mock_broker_set_up", number, pointer, ctypes.c_int32),
        ("rd_kafka_mock_push_request_errors_array", None, pointer, ctypes.c_int16, ctypes.c_size_t, pointer),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = gives, takes
    return library


def _try_to_load(path: Path) -> None:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return


if __name__ == "__main__":
    main()
