"""How the reader can call the command line of the Perdure that runs this."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def perdure_command() -> str:
    """`perdure` where the shell finds it, else its path in this environment."""
    beside = Path(sys.executable).parent / "perdure"
    if shutil.which("perdure") or not beside.exists():
        return "perdure"
    try:
        return shlex.quote(str(beside.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(beside))
