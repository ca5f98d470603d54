"""Switches."""

import os

VALUES: dict[str, bool] = {}


def is_on(name: str) -> bool:
    return VALUES.get(name, False) or os.getenv(name) == "1"  # expect: environment via checkout > is_on
