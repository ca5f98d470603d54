"""Prices."""

from .quotes import *
