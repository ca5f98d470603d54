"""Talks to the service, by the standard library. Called from steps only: it blocks its thread."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

from perdure import NonRetryable

PATIENCE_SECONDS = 1.0


class ServiceUnavailable(Exception):
    """The service did not answer, or said that it cannot now. Whether it did the work is not known."""


class OutOfStock(NonRetryable):
    """There is not enough left. To ask again would not help."""


class Refused(NonRetryable):
    """The service will not do this, however often it is asked."""


def post(
    path: str, body: dict[str, Any], *, key: str, patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Ask the service to do something, at most once per key."""
    request = urllib.request.Request(
        address() + path,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
    )
    return _send(request, patience_seconds)


def read_books(url: str) -> dict[str, Any]:
    return _send(urllib.request.Request(f"{url}/books"), PATIENCE_SECONDS)


def queue_faults(url: str, path: str, mode: str, *, times: int = 1) -> None:
    """The next `times` requests to `path` meet with this fault."""
    body = json.dumps({"path": path, "mode": mode, "times": times}).encode()
    _send(urllib.request.Request(f"{url}/faults", data=body), PATIENCE_SECONDS)


def wait_for_request(url: str, path: str, order: str) -> None:
    """Return when the order has asked for `path`."""
    _send(urllib.request.Request(f"{url}/wait?{urlencode({'path': path, 'order': order})}"), 60)


def address() -> str:
    # Read at each call and never passed through a workflow: a run may outlive the address.
    return os.environ["SHOP_URL"]


def _send(request: urllib.request.Request, patience_seconds: float) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=patience_seconds) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            reason = json.loads(error.read() or b"{}").get("error", error.reason)
        if error.code == 409:
            raise OutOfStock(reason) from None
        if error.code >= 500:
            raise ServiceUnavailable(f"{error.code}: {reason}") from None
        raise Refused(f"{error.code}: {reason}") from None
    except (TimeoutError, ConnectionError, urllib.error.URLError) as error:
        raise ServiceUnavailable(f"no answer within {patience_seconds:g} s: {error}") from error
