"""Helpers."""

from uuid import uuid4


def number_for(customer: str) -> str:
    return f"{customer}-{uuid4()}"  # expect: uuid via bill > number_for
