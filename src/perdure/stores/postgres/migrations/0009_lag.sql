-- What a stream keeps, how a subscription gets on, and where people have sent it.

ALTER TABLE stream
    ADD COLUMN gone bigint NOT NULL DEFAULT 0,       -- events up to this position have been let go
    ADD COLUMN bytes bigint NOT NULL DEFAULT 0,      -- of the payloads above it, as far as they were counted
    ADD COLUMN counted_to bigint NOT NULL DEFAULT 0; -- up to this position; only where a size is to be kept to

ALTER TABLE subscription
    ADD COLUMN is_intake bigint NOT NULL DEFAULT 0, -- its stream is outside
    ADD COLUMN other bigint NOT NULL DEFAULT 0;     -- the second stream of a join

UPDATE subscription SET is_intake = 1 WHERE lanes = 1; -- until now nothing else had one lane

ALTER TABLE lane
    ADD COLUMN generation bigint NOT NULL DEFAULT 0, -- how often it was sent elsewhere
    ADD COLUMN taken bigint NOT NULL DEFAULT 0,      -- the generation that its worker knows of
    ADD COLUMN history text NOT NULL DEFAULT '[]';   -- its last marks, as JSON

-- Who sent a subscription to another place, and why.
CREATE TABLE seek (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription bigint NOT NULL,
    pos          bigint NOT NULL, -- it goes on behind this one
    at_ms        bigint NOT NULL,
    who          text NOT NULL,
    reason       text NOT NULL
);

CREATE INDEX seek_subscription ON seek (subscription);
