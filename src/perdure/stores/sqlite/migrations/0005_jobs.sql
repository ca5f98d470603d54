-- Steps that only a worker with a certain tag may run, and that wait for one, or are run by one.

CREATE TABLE job (
    pos         INTEGER PRIMARY KEY,
    run         INTEGER NOT NULL,
    key         TEXT NOT NULL,
    tag         TEXT NOT NULL,
    step        TEXT NOT NULL,
    source      TEXT NOT NULL,
    digest      INTEGER NOT NULL, -- CRC-32 of the arguments
    arguments   ANY NOT NULL,
    asked_at_ms INTEGER NOT NULL,
    lease       INTEGER NOT NULL DEFAULT 0, -- whose worker has it; 0, or one that has ended: nobody's
    crashes     INTEGER NOT NULL DEFAULT 0, -- how many workers died while they had it
    crc         INTEGER,
    UNIQUE (run, key)
) STRICT;

CREATE INDEX job_free ON job (lease, tag, asked_at_ms);

CREATE TRIGGER job_removed AFTER DELETE ON job WHEN typeof(old.arguments) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.arguments;
END;

-- Which jobs a worker claims: a JSON array.
ALTER TABLE lease ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
