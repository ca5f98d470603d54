-- What the store says of the last move that it took part in; no row: of none. See moving/__init__.py.
CREATE TABLE move_mark (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    stage TEXT NOT NULL,
    move  TEXT NOT NULL,
    turn  INTEGER NOT NULL,
    other TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
