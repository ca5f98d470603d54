"""What code can do to whoever runs it. Each is a plain function that another process can import."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading


def fail() -> None:
    raise RuntimeError("poison")


def recurse() -> None:
    recurse()


def leave() -> None:
    sys.exit(3)


def leave_at_once() -> None:
    os._exit(3)


def crash() -> None:
    ctypes.string_at(0)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spin() -> None:
    while True:
        pass


def hang() -> None:
    threading.Event().wait()
