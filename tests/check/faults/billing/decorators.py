"""The project's own name for the decorator."""

from perdure import workflow as durable

__all__ = ["durable"]
