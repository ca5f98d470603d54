-- Runs that wait for an event by its fields. A correlation says by which fields of which type;
-- from then on events of that type are entered by the values of these. What was appended
-- before is entered by those who wait, a part at a time.

CREATE TABLE correlation (
    number  INTEGER PRIMARY KEY,
    stream  INTEGER NOT NULL,
    type    TEXT NOT NULL,
    fields  TEXT NOT NULL, -- names, as JSON, sorted
    entered INTEGER,       -- the place up to which events are entered; NULL: all are
    UNIQUE (stream, type, fields)
) STRICT;

CREATE TABLE correlated (
    pos         INTEGER NOT NULL, -- the event's
    correlation INTEGER NOT NULL,
    value       TEXT NOT NULL,    -- of the fields, as JSON; a hash of that where it is long
    PRIMARY KEY (pos, correlation)
) STRICT, WITHOUT ROWID;

CREATE INDEX correlated_value ON correlated (correlation, value, pos);

CREATE TRIGGER event_uncorrelated AFTER DELETE ON event BEGIN
    DELETE FROM correlated WHERE pos = old.pos;
END;

CREATE TABLE awaiting (
    run         INTEGER NOT NULL,
    correlation INTEGER NOT NULL,
    value       TEXT NOT NULL,
    signal      TEXT NOT NULL,    -- by which the run hears of the event
    after       INTEGER NOT NULL, -- the place of the last event that the run was given
    wanted      INTEGER NOT NULL, -- how many events it still waits for
    PRIMARY KEY (run, correlation, value)
) STRICT, WITHOUT ROWID;

CREATE INDEX awaiting_value ON awaiting (correlation, value) WHERE wanted > 0;
