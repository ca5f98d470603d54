"""Breaks things on purpose, counts what is lost, and says how sure that makes us.

`python -m battery` (in `__main__`) runs every row in a process of its own and
writes what came of it. One file `rNN_name.py` is one row: a fault, made for
real many times over, each time with another seed. `row` says what a row is,
`page` makes docs/reliability.md of the results.

The law: a row also plants faults that must be caught, its controls. A row whose
control is not caught has shown nothing, and fails.
"""
