"""Temporal as a home for runs: the same workflows and steps, kept by a Temporal cluster.

A run is a Temporal workflow of the same name and id, a step an activity. Inside the
workflow stands our own `Execution`: the code runs on our deterministic loop, and what
Temporal tells (an activity's result, a signal, a timer) becomes a record that is applied
to it. So code does here, event by event, what it does on any store, and a replay of
Temporal's is one of ours.

`home.py` is what an engine and a client open; nothing else of this room is named outside.
Needs the extra `temporal`; imported only for a `temporal://` URL.
"""
