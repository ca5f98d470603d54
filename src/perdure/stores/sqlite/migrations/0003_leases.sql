-- A lease for each worker. A run belongs to the lease whose worker has it in hand; it is
-- free when that is 0, or has ended.

ALTER TABLE lease RENAME TO old_lease;

CREATE TABLE lease (
    number     INTEGER PRIMARY KEY, -- the fence; none is given twice
    held       INTEGER NOT NULL,
    worker     TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    slot       INTEGER NOT NULL, -- which lock file is its holder's, if it has locked one
    locked     INTEGER NOT NULL,
    since_ms   INTEGER NOT NULL,
    until_ms   INTEGER NOT NULL,
    ttl_ms     INTEGER NOT NULL, -- it was renewed that long before it ends
    crashed    INTEGER NOT NULL DEFAULT 0 -- its holder did not give it back
) STRICT;

INSERT INTO lease (number, held, worker, pid, slot, locked, since_ms, until_ms, ttl_ms)
SELECT epoch, held, worker, pid, 1, locked, since_ms, until_ms, 15000 FROM old_lease WHERE epoch > 0;

INSERT INTO counter SELECT 'lease', epoch FROM old_lease;

ALTER TABLE run ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;

UPDATE run SET lease = (SELECT epoch FROM old_lease) WHERE status <= 2;

DROP TABLE old_lease;

DROP INDEX run_open;
CREATE INDEX run_due ON run (lease, wake_at_ms) WHERE status = 1;
CREATE INDEX run_parked ON run (number) WHERE status = 2;

-- What told a worker of a new run: now it finds them by itself.
DELETE FROM message WHERE kind = 1;
