"""The outside world as a process of its own: an HTTP service that can be told to misbehave.

    python -m examples.checkout.service --stock '{"lamp": 5}'

It prints its address, and serves until its standard input ends. Faults are
queued per path (`POST /faults`), and each request takes the next one:

- `fail`: 503, and nothing is done;
- `hang`: no answer for long, and nothing is done;
- `late`: the work is done, and the answer comes when nobody waits for it any more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict, deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .books import Books, Request

SILENCE_SECONDS = 3.0
"""How long a hung or late answer takes: longer than the caller's patience."""
WAIT_SECONDS_MAX = 30.0


class Service(ThreadingHTTPServer):
    """Books, behind a lock, and the faults to come."""

    daemon_threads = True

    def __init__(self, books: Books) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.books = books
        self.changed = Condition()
        self.faults: dict[str, deque[str]] = defaultdict(deque)
        self.closing = Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self, path: str) -> str:
        with self.changed:
            return self.faults[path].popleft() if self.faults[path] else ""

    def log(self, path: str, order: str, key: str, outcome: str) -> None:
        with self.changed:
            self.books.requests.append(Request(path, order, key, outcome))
            self.changed.notify_all()

    def work(self, path: str, body: dict[str, Any], key: str, *, late: bool) -> tuple[int, dict[str, Any]]:
        with self.changed:
            again = self.books.knows(key)
            status, answer = self.books.answer(path, body, key)
            outcome = f"{status}{' as before' if again else ''}{', answered late' if late else ''}"
            self.books.requests.append(Request(path, str(body.get("order", "")), key, outcome))
            self.changed.notify_all()
        return status, answer

    def wait_for_request(self, path: str, order: str) -> bool:
        """Wait until the order has asked for this path; False when it takes too long."""
        with self.changed:
            return self.changed.wait_for(
                lambda: any(each.path == path and each.order == order for each in self.books.requests),
                WAIT_SECONDS_MAX,
            )


class _Handler(BaseHTTPRequestHandler):
    server: Service  # pyright: ignore[reportIncompatibleVariableOverride]: the library knows no better type

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/books":
            with self.server.changed:
                books = self.server.books.to_json()
            self._answer(200, books)
        elif url.path == "/wait":
            asked = parse_qs(url.query)
            arrived = self.server.wait_for_request(asked["path"][0], asked["order"][0])
            self._answer(200 if arrived else 504, {})
        else:
            self._answer(404, {"error": f"there is no {url.path}"})

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/faults":
            with self.server.changed:
                self.server.faults[body["path"]].extend([body["mode"]] * body["times"])
            self._answer(201, {})
            return
        key, order = self.headers.get("Idempotency-Key"), str(body.get("order", ""))
        if key is None:
            self._answer(400, {"error": "The Idempotency-Key header is missing."})
            return
        match self.server.next_fault(self.path):
            case "fail":
                self.server.log(self.path, order, key, "503")
                self._answer(503, {"error": "The service is down for a moment."})
            case "hang":
                self.server.log(self.path, order, key, "no answer")
                self.server.closing.wait(SILENCE_SECONDS)
                self._answer(503, {"error": "The service was asleep."})
            case "late":
                status, answer = self.server.work(self.path, body, key, late=True)
                self.server.closing.wait(SILENCE_SECONDS)
                self._answer(status, answer)
            case _:
                self._answer(*self.server.work(self.path, body, key, late=False))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        # Whoever asked may have gone: then nobody is there to be told.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """The books keep the log."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.checkout.service")
    parser.add_argument("--stock", type=json.loads, default={}, help="a JSON object: item to quantity")
    options = parser.parse_args()
    with Service(Books(stock=options.stock)) as service:
        Thread(target=service.serve_forever, daemon=True).start()
        print(service.url, flush=True)
        # Ends when whoever started the service ends, in whatever way.
        sys.stdin.read()
        service.closing.set()
        service.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
