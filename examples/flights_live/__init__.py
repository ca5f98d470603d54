"""Flights as they are reported: out of order, late and twice; hourly delays that are right in the end."""
