"""`start`: put a run on disk; a worker runs it."""

from __future__ import annotations

from typing import Any

from ...client import Client
from .endings import with_client
from .loading import load_workflow
from .options import (
    DEFAULT_STORE,
    DebugOption,
    IdOption,
    InputOption,
    JsonOption,
    ReuseChoice,
    ReuseOption,
    StoreOption,
    TagOption,
    Target,
    TimeoutOption,
    read_tags,
    read_text,
)
from .output import print_json, say


def start(
    target: Target,
    input: InputOption = "",
    id: IdOption = None,
    timeout: TimeoutOption = None,
    tag: TagOption = None,
    reuse: ReuseOption = ReuseChoice.NEVER,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Start a run, write its id, and leave it to a worker."""
    options: dict[str, Any] = {"id": id, "timeout": timeout, "reuse": reuse.value}

    async def work(client: Client) -> None:
        definition = load_workflow(target)
        call = definition.call_from_json(read_text(input))
        run = await client.start(call, tags=read_tags(tag), **options)
        workers = await client.workers()
        if as_json:
            info = await run.info()
            print_json({"id": run.id, "status": info.status, "workers": [worker.name for worker in workers]})
        else:
            print(run.id)
        if not workers:
            module = target.partition(":")[0]
            say(f"No worker is running on this store: it begins with `perdure worker {module}`.")

    with_client(work, store=store, debug=debug, create=True)
