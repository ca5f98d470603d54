"""A `temporal://` URL, and the connection it means. Raises what a store raises that cannot be opened.

The URL says where and which queue. What is secret (an API key, certificates) comes from
where Temporal's own tools have it: `TEMPORAL_API_KEY`, `TEMPORAL_TLS_…`, or a profile in
its configuration file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfigProfile
from temporalio.service import RPCError, RPCStatusCode

from ..errors import StoreUnavailable
from .payloads import CONVERTER

_FORM = "Write temporal://host:7233/namespace?task_queue=shop."
LOST_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says."""

    url: str
    target: str
    """`host:port`"""
    namespace: str
    task_queue: str
    lost_after_s: float
    """How long a worker may be silent before the step that it was in is given to another."""


def read_address(url: str) -> Address:
    """Take a URL apart. Raises StoreUnavailable for one that is no good."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 7233
    except ValueError as error:
        raise _bad(url, str(error)) from None
    if not host:
        raise _bad(url, "it names no host")
    if parts.username is not None:
        raise _bad(url, "a URL is no place for a password")
    namespace = unquote(parts.path.strip("/")) or "default"
    if "/" in namespace:
        raise _bad(url, f"{namespace!r} is no namespace")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    task_queue = options.pop("task_queue", "perdure")
    lost_after = options.pop("lost_after", str(LOST_AFTER_S))
    if options:
        raise _bad(url, f"there is no option {next(iter(options))!r}: there are task_queue and lost_after")
    if not task_queue:
        raise _bad(url, "task_queue is empty")
    host = f"[{host}]" if ":" in host else host
    return Address(url, f"{host}:{port}", namespace, task_queue, _seconds(url, lost_after))


def queue_of_tag(task_queue: str, tag: str) -> str:
    """Where the steps go that ask for a worker with this tag."""
    return f"{task_queue}.{tag}"


def _seconds(url: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise _bad(url, f"lost_after is {text!r}, and must be 1 to 3600 seconds")
    return seconds


def _bad(url: str, why: str) -> StoreUnavailable:
    return StoreUnavailable(f"{url!r} names no Temporal cluster: {why}.", hint=_FORM)


async def connect(address: Address) -> Client:
    """Connect, and look whether the namespace is there. Raises StoreUnavailable."""
    try:
        client = await Client.connect(
            address.target, namespace=address.namespace, data_converter=CONVERTER, **_secrets(address)
        )
    except Exception as error:  # a RuntimeError of its own, or what a configuration file is wrong about
        raise StoreUnavailable(
            f"No Temporal server answers at {address.target}: {error}.",
            hint="Is it running there? `temporal server start-dev` starts one for development.",
        ) from error
    try:
        await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=address.namespace)
        )
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise unavailable(address, error) from error
        raise StoreUnavailable(
            f"The Temporal server at {address.target} has no namespace {address.namespace!r}.",
            hint=f"Make it: temporal operator namespace create --namespace {address.namespace}.",
        ) from error
    return client


def unavailable(address: Address, error: RPCError) -> StoreUnavailable:
    """What an RPC that failed means to whoever asked."""
    return StoreUnavailable(
        f"The Temporal server at {address.target} refused: {error.status.name}: {error.message}.",
        hint="Ask again; what was sent may have arrived.",
    )


def _secrets(address: Address) -> dict[str, Any]:
    """The API key and TLS of Temporal's own configuration, unless that is about another server."""
    config = ClientConfigProfile.load().to_client_connect_config()
    if config.get("target_host") not in (None, address.target):
        return {}
    return {name: value for name, value in config.items() if name in ("api_key", "tls", "rpc_metadata")}
