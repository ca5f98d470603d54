-- Event streams. A position is the stream's number, times 2^40, and a place: one
-- B-tree holds all streams, each in a row, and needs no other index for reading along.

CREATE TABLE stream (
    number INTEGER PRIMARY KEY,
    name   TEXT NOT NULL UNIQUE,
    last   INTEGER NOT NULL -- the last place that was given
) STRICT;

CREATE TABLE event (
    pos      INTEGER PRIMARY KEY,
    id       TEXT NOT NULL,
    source   TEXT NOT NULL,
    type     TEXT NOT NULL,
    version  INTEGER NOT NULL,
    key      TEXT NOT NULL,
    time_ms  INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    trace    TEXT NOT NULL,
    payload  ANY NOT NULL,
    identity INTEGER, -- a hash of stream, source and id; NULL for an id that was drawn with the event
    crc      INTEGER NOT NULL
) STRICT;

CREATE INDEX event_identity ON event (identity) WHERE identity IS NOT NULL;

CREATE TRIGGER event_removed AFTER DELETE ON event WHEN typeof(old.payload) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.payload;
END;

CREATE TABLE subscription (
    number INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    name   TEXT NOT NULL,
    lanes  INTEGER NOT NULL,
    UNIQUE (stream, name)
) STRICT;

CREATE TABLE lane (
    subscription INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    lease        INTEGER NOT NULL, -- whose it is; free when that is 0, or has ended
    cursor       INTEGER NOT NULL, -- a place, not a position
    done         TEXT NOT NULL,    -- places above the cursor, as JSON
    PRIMARY KEY (subscription, lane)
) STRICT, WITHOUT ROWID;

-- Which workers serve a subscription: each is due its share of the lanes. Rows of leases that have ended mean nothing.
CREATE TABLE serving (
    subscription INTEGER NOT NULL,
    lease        INTEGER NOT NULL,
    PRIMARY KEY (subscription, lease)
) STRICT, WITHOUT ROWID;

-- Events that a subscription has parked, until they are redriven or discarded.
CREATE TABLE dead (
    subscription INTEGER NOT NULL,
    place        INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    key          TEXT NOT NULL,
    kind         INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,
    failure      BLOB,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (subscription, place)
) STRICT;

CREATE INDEX dead_key ON dead (subscription, lane, key);
