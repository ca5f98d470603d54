"""Moving all runs and streams from one store to another: `move` and `abandon`. They run nothing.

The law: at most one of the two stores can be written to, whenever the process is killed.
Each has a mark, which every writer looks at in its own transaction:

    step                      the store that is left      the one that is moved to
    ────────────────────────  ──────────────────────────  ────────────────────────
    before                    open                        open, and empty
    1. close the source       moving                      open, and empty
    2. close the target       moving                      arriving
    3. copy, and compare      moving                      arriving
    4. the point of no return moved                       arriving
    5. open the target        moved                       arrived, and so open

Until step 4 the source decides: `abandon` opens it again, and only then clears the target.
From step 4 on the move can only be ended, by running it again. A mark is changed only
from what it was known to be, and has a turn that grows each time a move is gone on with:
of two processes with the same move the later one has it, and the other writes nothing more.
"""

from .abandoning import Abandoned, abandon, abandon_between
from .moving import Left, Moved, Progress, Step, move, move_between

__all__ = [
    "Abandoned",
    "Left",
    "Moved",
    "Progress",
    "Step",
    "abandon",
    "abandon_between",
    "move",
    "move_between",
]
