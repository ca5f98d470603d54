"""Who did what."""

import logging
from datetime import datetime

log = logging.getLogger(__name__)


async def write(item: str) -> None:
    log.info("at %s", describe(item))


def describe(item: str) -> str:
    return f"{item} {datetime.now()}"  # expect: clock via checkout > write > describe
