"""Makes one virtual environment for each peer, and keeps it while its pins stay the same.

Nothing is installed outside the cache folder. A stamp is written last, so that
an installation that was interrupted is begun again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from .catalogue import Peer

CHECKOUT = Path(__file__).resolve().parents[2]
_INSTALL_SECONDS_MAX = 600
_REASON = re.compile(r"\s*(\w+Error: |ERROR: |npm error )")


class NotInstalled(Exception):
    """The peer cannot be installed here; the message says why."""


def cache_folder() -> Path:
    """`$PERDURE_BENCH_CACHE`, or `.bench` in the checkout; created, and ignored by git."""
    folder = Path(os.environ.get("PERDURE_BENCH_CACHE") or CHECKOUT / ".bench").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return folder


def install(peer: Peer, folder: Path) -> Path:
    """Answer with the Python of the peer's environment. Raises NotInstalled."""
    # POSIX only, as are the process groups of the driver.
    python = folder / "venv" / "bin" / "python"
    stamp = folder / "installed"
    wanted = _stamp(peer)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if peer.checkout and not (CHECKOUT / "pyproject.toml").exists():
        raise NotInstalled("the checkout has no pyproject.toml")
    # Begun anew: a half-made environment, or one for other pins, would mix versions.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    wheels = ["--editable", f"{CHECKOUT}[postgres]"] if peer.checkout else list(peer.requirements)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wheels])
    if peer.npm:
        _install_npm(peer, folder)
    stamp.write_text(wanted)
    return python


def _install_npm(peer: Peer, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled(f"npm is not on the path, and {', '.join(peer.npm)} comes by npm only")
    # The binary lies in the package: no install script needs to run.
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    _run([npm, "install", *flags, "--prefix", str(folder / "npm"), *peer.npm])


def _stamp(peer: Peer) -> str:
    lines = [sys.version, *peer.requirements, *peer.npm]
    if peer.checkout and (CHECKOUT / "pyproject.toml").exists():
        lines.append((CHECKOUT / "pyproject.toml").read_text())
    return "\n".join(lines)


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS_MAX)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{Path(command[0]).name} took more than {_INSTALL_SECONDS_MAX} s") from error
    except subprocess.CalledProcessError as error:
        said: list[str] = str(error.stderr).strip().splitlines() or [f"ended with {error.returncode}"]
        # pip and npm close with advice; the reason stands before it.
        reasons = [line for line in said if _REASON.match(line)]
        raise NotInstalled((reasons or said)[-1].strip()) from error
