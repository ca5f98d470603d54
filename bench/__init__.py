"""What Perdure does in a second, each figure beside the limit that was measured in the same run.

`python -m bench` (in `__main__`) runs every benchmark in a process of its own
and prints one table. One file is one benchmark: its docstring says what is
measured, against which limit, and how. `measure` has the limits and what the
benchmarks share, `work` the workflows that they run, `victim` the worker that is
killed, `report` draws. `peers` measures other systems on the same work.
"""
