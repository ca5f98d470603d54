"""Real programs that use Perdure. Each is started by `python -m examples.NAME` and run by a test."""
