"""What workflow code may not touch: files, the network, processes, threads. Refused before it is done.

A run's loop refuses what is asked of it; this file refuses what is asked of
Python's own modules. Python tells an audit hook of it first, and whatever that
raises, the code gets in place of a file or a socket.

A hook is the process's, for ever, so there is one, put in when the first engine
opens. It looks at the name of the event, and then whether a run's code is on
this thread: steps, and all that is no workflow, are left alone.

Let through are imports (and what a module does as it is imported), time zones,
logging, and what Python reads to show a traceback: none of them decides what a
workflow does next. What is not told to audit hooks (`time.sleep`, a descriptor that
is open already, on 3.11 a new thread) is not seen here; the watchdog names what takes long.
"""

from __future__ import annotations

import os
import sys
from asyncio.events import _get_running_loop  # pyright: ignore[reportPrivateUsage]
from typing import Any

from ..core.host import current_host
from ..core.loop import RunLoop
from ..errors import BoundaryError
from .lines import frames_of_user, package_of, users_line

_REFUSED: dict[str, str] = {
    **dict.fromkeys(("open", "os.truncate", "tempfile.mkstemp"), "open a file"),
    **dict.fromkeys(("os.listdir", "os.scandir", "os.walk", "os.fwalk", "glob.glob"), "read a folder"),
    **dict.fromkeys(
        (
            "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
            "os.utime", "shutil.chown", "shutil.copyfile", "shutil.copymode", "shutil.copystat",
            "shutil.copytree", "shutil.make_archive", "shutil.move", "shutil.rmtree",
            "shutil.unpack_archive", "tempfile.mkdtemp",
        ),
        "change the file system",
    ),
    **dict.fromkeys(
        (
            "http.client.connect", "socket.__new__", "socket.bind", "socket.connect", "socket.getaddrinfo",
            "socket.gethostbyaddr", "socket.gethostbyname", "socket.getnameinfo", "socket.sendmsg",
            "socket.sendto", "urllib.Request",
        ),
        "use the network",
    ),
    **dict.fromkeys(
        (
            "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system",
            "pty.spawn", "subprocess.Popen",
        ),
        "start a process",
    ),
    **dict.fromkeys(("os.kill", "os.killpg"), "signal a process"),
    **dict.fromkeys(("_thread.start_new_thread", "_thread.start_joinable_thread"), "start a thread"),
    "sqlite3.connect": "open a database",
}  # fmt: skip
"""Events of `sys.audit`, and what workflow code was about to do."""

_WITH_A_PATH = frozenset(
    event
    for event, deed in _REFUSED.items()
    if deed in ("open a file", "read a folder", "change the file system")
)

_LET_THROUGH = frozenset(
    {
        "importlib", "linecache", "logging", "warnings", "zipimport", "zoneinfo",
        "bdb", "pdb", "IPython", "debugpy", "pydevd", "_pydevd_bundle", "coverage",
    }
)  # fmt: skip
"""Packages on whose behalf anything may be done; the second line are those that look at programs."""


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    """The audit hook."""
    if event in _REFUSED:
        host = current_host.get(None)
        if host is not None and not _may_pass(args):
            raise BoundaryError(
                f"Workflow code of run {host.facts.id!r} was about to {_REFUSED[event]} "
                f"({_describe(event, args)}). It would be done again in each replay, so it is refused.",
                hint="Move this into a function with @step and await it.",
            )


def _may_pass(args: tuple[Any, ...]) -> bool:
    collecting = RunLoop.collecting_in
    if collecting is not None and collecting is _get_running_loop():
        return True  # the collector runs finalisers here that belong to anybody
    if any(package_of(frame) in _LET_THROUGH for frame in frames_of_user(sys._getframe(2))):  # pyright: ignore[reportPrivateUsage]
        return True
    zones = sys.modules.get("zoneinfo")  # read from C code, which has no frame
    path = args[0] if args else None
    return zones is not None and isinstance(path, str) and path.startswith(tuple(zones.TZPATH))


def _describe(event: str, args: tuple[Any, ...]) -> str:
    """`open '/tmp/x', at shop.py:41, in checkout`. Only paths are shown: other arguments may be secret."""
    path = args[0] if args and event in _WITH_A_PATH else None
    what = f"{event} {path!r}" if isinstance(path, str | bytes | os.PathLike) else event
    line = users_line(sys._getframe(2))  # pyright: ignore[reportPrivateUsage]
    return f"{what}, at {line}" if line else what


class _Guard:
    """Whether the hook is in."""

    installed = False


def install_guard() -> None:
    """Refuse files, sockets and processes to workflow code in this process, from now on and for ever."""
    if not _Guard.installed:
        _Guard.installed = True
        sys.addaudithook(_refuse)
