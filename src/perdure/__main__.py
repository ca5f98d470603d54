"""`python -m perdure` is the command line."""

from .faces.cli.main import app

app(prog_name="perdure")
