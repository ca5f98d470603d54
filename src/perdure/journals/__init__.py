"""Journals outside a worker: written to files, replayed in tests, under a debugger, and before a deploy.

The law of the room: it reads and replays, and changes nothing. It has no clock,
no worker and no lease, and no command of a run that it replays is ever carried out.

`form` is the file's form, `reading` how a store or a file becomes a `Journal`, and
`redaction` takes values out. `replayer` tells a run's code what was recorded: for
`replay` in tests, for the `debugger`, and for `checking` all open runs of a store.
`parting` says where code and journal part; `underway` looks at what has no answer yet.
"""
