"""Steps, and what they call."""

import os
import random
import threading
import time
import uuid
from pathlib import Path

import requests

from perdure import step

_session: requests.Session | None = None
_lock = threading.Lock()
_calls = 0


def session() -> requests.Session:
    global _session
    with _lock:
        if _session is None:
            _session = requests.Session()
    return _session


@step
def fetch(url: str) -> str:
    global _calls
    _calls += 1
    time.sleep(random.random())
    return session().get(url).text + str(uuid.uuid4())


@step
def write(name: str, text: str) -> None:
    Path(name).write_text(text + os.environ.get("TAIL", ""))


def main() -> None:
    print(time.time(), _calls)
