-- What a stream keeps, how a subscription gets on, and where people have sent it.

ALTER TABLE stream ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;  -- events up to this place have been let go
ALTER TABLE stream ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0; -- of the payloads above it

UPDATE stream SET bytes = (
    SELECT coalesce(sum(iif(typeof(payload) = 'integer',
        (SELECT size FROM blob WHERE blob.number = payload), length(payload))), 0)
    FROM event WHERE pos > stream.number << 40 AND pos < (stream.number + 1) << 40
);

ALTER TABLE subscription ADD COLUMN is_intake INTEGER NOT NULL DEFAULT 0; -- its stream is outside
ALTER TABLE subscription ADD COLUMN other INTEGER NOT NULL DEFAULT 0;     -- the second stream of a join

UPDATE subscription SET is_intake = 1 WHERE lanes = 1; -- until now nothing else had one lane

ALTER TABLE lane ADD COLUMN generation INTEGER NOT NULL DEFAULT 0; -- how often it was sent elsewhere
ALTER TABLE lane ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;      -- the generation that its worker knows of
ALTER TABLE lane ADD COLUMN history TEXT NOT NULL DEFAULT '[]';    -- its last marks, as JSON

-- Who sent a subscription to another place, and why.
CREATE TABLE seek (
    number       INTEGER PRIMARY KEY,
    subscription INTEGER NOT NULL,
    place        INTEGER NOT NULL, -- it goes on behind this one
    at_ms        INTEGER NOT NULL,
    who          TEXT NOT NULL,
    reason       TEXT NOT NULL
) STRICT;

CREATE INDEX seek_subscription ON seek (subscription);
