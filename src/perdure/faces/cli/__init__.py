"""The command line. `main` puts it together; each other file holds one noun or what several share.

The laws: data goes to stdout, all else to stderr; an error of ours is a message and
a hint, never a traceback; the exit code says how it ended. What is slow to import
is imported in the function that needs it, so that `--help` is quick.
"""
