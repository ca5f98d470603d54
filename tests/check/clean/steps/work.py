"""The workflow."""

import requests

from perdure import NonRetryable, workflow

from . import world
from .world import fetch


@workflow
async def copy(url: str, name: str) -> int:
    try:
        text = await fetch(url)
    except requests.HTTPError as error:
        raise NonRetryable(str(error)) from error
    await world.write(name, text)
    return len(text)


if __name__ == "__main__":
    world.main()
