"""`perdure` with a lease of another length: `python -m tests.crash.command LEASE_MS worker …`.

It is the command line as users have it; but a test cannot wait for 15 s until a lease is over.
"""

import sys

from battery.lives import short_lease
from perdure.faces.cli.main import app

with short_lease(int(sys.argv.pop(1))):
    app()
