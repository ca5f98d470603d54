"""A small shop: its workflows call helpers two and three modules away."""

from .orders import checkout as checkout
