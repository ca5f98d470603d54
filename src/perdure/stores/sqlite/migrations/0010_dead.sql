-- What becomes of events that fail: subscriptions that stop or are suspended, events that
-- kill their workers, and dead letters that people edit, redrive and discard.

ALTER TABLE subscription ADD COLUMN status INTEGER NOT NULL DEFAULT 1;
ALTER TABLE subscription ADD COLUMN status_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE subscription ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE subscription ADD COLUMN edition INTEGER NOT NULL DEFAULT 0; -- grows when a worker must look again

-- What is known of workers that died with the lane, as JSON; NULL while all is well.
ALTER TABLE lane ADD COLUMN watch TEXT;

-- `done` has been places, and is pairs of places from now on: from, to, from, to.
UPDATE lane SET done = (
    SELECT json_group_array(value) FROM (SELECT place.value AS value FROM json_each(lane.done) AS place
    JOIN json_each('[1,2]') ORDER BY place.value)
);

ALTER TABLE dead ADD COLUMN holds INTEGER NOT NULL DEFAULT 0; -- later events of its key wait behind it
ALTER TABLE dead ADD COLUMN due INTEGER NOT NULL DEFAULT 0;   -- not parked: to be delivered, in its turn
ALTER TABLE dead ADD COLUMN redrives INTEGER NOT NULL DEFAULT 0; -- how often it was redriven
ALTER TABLE dead ADD COLUMN redrive INTEGER NOT NULL DEFAULT 0;  -- and by which redrive last

UPDATE dead SET holds = key <> '';

DROP INDEX dead_key;
CREATE INDEX dead_key ON dead (subscription, lane, key, place, holds, due);

-- What people did to dead letters, and why. An edit's payload is what is delivered from then on.
CREATE TABLE dead_note (
    number       INTEGER PRIMARY KEY,
    subscription INTEGER NOT NULL,
    place        INTEGER NOT NULL,
    deed         INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL,
    who          TEXT NOT NULL,
    reason       TEXT NOT NULL,
    payload      BLOB,
    crc          INTEGER NOT NULL
) STRICT;

CREATE INDEX dead_note_place ON dead_note (subscription, place);
