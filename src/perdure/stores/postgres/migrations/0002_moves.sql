-- What the store says of the last move that it took part in; no row: of none. See moving/__init__.py.
CREATE TABLE move_mark (
    one   boolean PRIMARY KEY CHECK (one),
    stage text NOT NULL,
    move  text NOT NULL,
    turn  bigint NOT NULL,
    other text NOT NULL,
    at_ms bigint NOT NULL
);
