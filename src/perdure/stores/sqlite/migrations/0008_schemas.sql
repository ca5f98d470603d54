-- What the events of a type and version look like, in each stream.
CREATE TABLE schema (
    stream      TEXT NOT NULL,
    type        TEXT NOT NULL,
    version     INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    schema      BLOB NOT NULL,    -- JSON Schema
    at_ms       INTEGER NOT NULL,
    gone_to     INTEGER NOT NULL, -- no event up to this place of the stream is of this version
    PRIMARY KEY (stream, type, version)
) STRICT;
