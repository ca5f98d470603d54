-- The first schema. Every payload column (of type ANY) holds the bytes
-- themselves, or, where they are many, the INTEGER number of a blob.

CREATE TABLE lease (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    epoch      INTEGER NOT NULL,
    held       INTEGER NOT NULL,
    worker     TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    locked     INTEGER NOT NULL, -- the holder also has the lock on the file beside
    since_ms   INTEGER NOT NULL,
    until_ms   INTEGER NOT NULL
) STRICT;

INSERT INTO lease VALUES (1, 0, 0, '', 0, 0, 0, 0);

-- The last number that was given to a run, and to a message. None is given twice, even
-- after a removal: parents and messages under way name runs by it, and a worker asks
-- for the messages after the last that it saw.
CREATE TABLE counter (
    name TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counter VALUES ('message', 0), ('run', 0);

CREATE TABLE run (
    number          INTEGER PRIMARY KEY,
    id              TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    latest          INTEGER NOT NULL,
    workflow        TEXT NOT NULL,
    status          INTEGER NOT NULL,
    wake_at_ms      INTEGER,
    crashes         INTEGER NOT NULL,
    deadline_ms     INTEGER,
    parent          INTEGER,
    parent_key      TEXT NOT NULL,
    on_parent_close TEXT NOT NULL,
    created_at_ms   INTEGER NOT NULL,
    ended_at_ms     INTEGER,
    python          TEXT NOT NULL,
    seed            BLOB NOT NULL,
    input           ANY NOT NULL,
    output          ANY
) STRICT;

CREATE UNIQUE INDEX run_latest ON run (id) WHERE latest;
CREATE INDEX run_older ON run (id, generation) WHERE NOT latest;
CREATE INDEX run_open ON run (status, wake_at_ms) WHERE status <= 2;
CREATE INDEX run_ended ON run (ended_at_ms, status, latest) WHERE status > 2;
CREATE INDEX run_parent ON run (parent) WHERE parent IS NOT NULL;

-- A log with an index, not a clustered table: that is several times slower once payloads are real.
CREATE TABLE record (
    pos     INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    kind    INTEGER NOT NULL,
    key     TEXT NOT NULL,
    digest  INTEGER NOT NULL,
    at_ms   INTEGER NOT NULL,
    payload ANY
) STRICT;

CREATE UNIQUE INDEX record_run ON record (run, seq);

CREATE TABLE state (
    pos     INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL,
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    payload ANY NOT NULL,
    at_ms   INTEGER NOT NULL,
    UNIQUE (run, name)
) STRICT;

CREATE TABLE attempt (
    pos     INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL,
    key     TEXT NOT NULL,
    number  INTEGER NOT NULL,
    failure ANY,
    details ANY,
    at_ms   INTEGER NOT NULL,
    UNIQUE (run, key, number)
) STRICT;

CREATE TABLE message (
    pos     INTEGER PRIMARY KEY,
    run     INTEGER NOT NULL,
    kind    INTEGER NOT NULL,
    name    TEXT NOT NULL,
    payload ANY,
    request TEXT NOT NULL,
    at_ms   INTEGER NOT NULL
) STRICT;

CREATE INDEX message_run ON message (run);

-- The requests that a run has had, kept until the run is removed.
CREATE TABLE request (
    run     INTEGER NOT NULL,
    request TEXT NOT NULL,
    PRIMARY KEY (run, request)
) STRICT, WITHOUT ROWID;

CREATE TABLE reply (
    pos     INTEGER PRIMARY KEY,
    request TEXT NOT NULL UNIQUE,
    ok      INTEGER NOT NULL,
    payload ANY,
    at_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE tag (
    run   INTEGER NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX tag_value ON tag (key, value, run);

-- Payloads that are too large for a row, each kept once. `uses` counts the
-- columns that refer to it: the writer of a reference adds one, the triggers
-- below take it away when the reference goes, and a blob without uses goes too.
CREATE TABLE blob (
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE, -- SHA-256
    size   INTEGER NOT NULL,
    uses   INTEGER NOT NULL
) STRICT;

CREATE TABLE blob_chunk (
    pos   INTEGER PRIMARY KEY,
    blob  INTEGER NOT NULL,
    part  INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    UNIQUE (blob, part)
) STRICT;

CREATE TRIGGER blob_unused AFTER UPDATE OF uses ON blob WHEN new.uses = 0 BEGIN
    DELETE FROM blob_chunk WHERE blob = new.number;
    DELETE FROM blob WHERE number = new.number;
END;

CREATE TRIGGER run_output_replaced AFTER UPDATE OF output ON run WHEN typeof(old.output) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.output;
END;

CREATE TRIGGER run_removed AFTER DELETE ON run
WHEN 'integer' IN (typeof(old.input), typeof(old.output)) BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.input;
    UPDATE blob SET uses = uses - 1 WHERE number = old.output;
END;

CREATE TRIGGER record_removed AFTER DELETE ON record WHEN typeof(old.payload) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.payload;
END;

CREATE TRIGGER state_replaced AFTER UPDATE OF payload ON state WHEN typeof(old.payload) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.payload;
END;

CREATE TRIGGER state_removed AFTER DELETE ON state WHEN typeof(old.payload) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.payload;
END;

CREATE TRIGGER attempt_replaced AFTER UPDATE OF failure, details ON attempt
WHEN 'integer' IN (typeof(old.failure), typeof(old.details)) BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.failure;
    UPDATE blob SET uses = uses - 1 WHERE number = old.details;
END;

CREATE TRIGGER attempt_removed AFTER DELETE ON attempt
WHEN 'integer' IN (typeof(old.failure), typeof(old.details)) BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.failure;
    UPDATE blob SET uses = uses - 1 WHERE number = old.details;
END;

CREATE TRIGGER message_removed AFTER DELETE ON message WHEN typeof(old.payload) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.payload;
END;

CREATE TRIGGER reply_removed AFTER DELETE ON reply WHEN typeof(old.payload) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.payload;
END;
