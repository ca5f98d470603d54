"""A folder without __init__.py: modules find each other by the folder they are in."""

import tools
from decorators import durable


@durable
async def bill(customer: str) -> str:
    return tools.number_for(customer)
