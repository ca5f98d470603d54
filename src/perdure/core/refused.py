"""What workflow code may not ask of its loop, and the error that says where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ..errors import BoundaryError

_REFUSED = {
    "run_in_executor": "a thread or process pool",
    "set_default_executor": "a thread or process pool",
    "call_soon_threadsafe": "another thread",
    "getaddrinfo": "the network",
    "getnameinfo": "the network",
    "create_connection": "the network",
    "create_server": "the network",
    "create_datagram_endpoint": "the network",
    "create_unix_connection": "a socket",
    "create_unix_server": "a socket",
    "connect_accepted_socket": "a socket",
    "start_tls": "the network",
    "sendfile": "a file",
    "sock_recv": "a socket",
    "sock_recv_into": "a socket",
    "sock_recvfrom": "a socket",
    "sock_recvfrom_into": "a socket",
    "sock_sendall": "a socket",
    "sock_sendto": "a socket",
    "sock_connect": "a socket",
    "sock_accept": "a socket",
    "sock_sendfile": "a socket",
    "connect_read_pipe": "a pipe",
    "connect_write_pipe": "a pipe",
    "subprocess_exec": "a subprocess",
    "subprocess_shell": "a subprocess",
    "add_reader": "a file descriptor",
    "remove_reader": "a file descriptor",
    "add_writer": "a file descriptor",
    "remove_writer": "a file descriptor",
    "add_signal_handler": "the process's signals",
    "remove_signal_handler": "the process's signals",
    "run_forever": "running the loop",
    "run_until_complete": "running the loop",
    "stop": "stopping the loop",
    "close": "closing the loop",
    "set_task_factory": "changing the loop",
    "set_exception_handler": "changing the loop",
    "set_debug": "changing the loop",
}


def _refusal(name: str, what: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
        raise BoundaryError(
            f"Workflow code asked for {what} (loop.{name}). It would not replay the same, so it is refused.",
            hint="Move this into a function with @step and await it.",
        )

    refuse.__name__ = name
    return refuse


def refuse_the_world(loop_type: type) -> None:
    """Give a loop's class a method for each refusal."""
    for name, what in _REFUSED.items():
        setattr(loop_type, name, _refusal(name, what))
