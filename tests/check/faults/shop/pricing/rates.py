"""Rates of exchange."""

import random as chance
import urllib.request

_rates: dict[str, float] = {}


def current() -> float:
    return 1 + chance.random()  # expect: random via checkout > quote > current


def refresh(item: str) -> None:
    _rates[item] = _fetch(item)  # expect: global-mutated via restock > refresh


def _fetch(item: str) -> float:
    place = f"http://rates.example/{item}"
    answer = urllib.request.urlopen(place)  # expect: network via restock > refresh > _fetch
    return float(answer.read())
