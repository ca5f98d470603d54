"""Crashing a workflow everywhere: read `everywhere` first, then `living`, `world` and `doomed`."""
