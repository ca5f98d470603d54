-- What becomes of events that fail: subscriptions that stop or are suspended, events that kill their workers, and
-- dead letters that people edit, redrive and discard.

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

ALTER TABLE subscription ADD COLUMN status smallint NOT NULL DEFAULT 1;
ALTER TABLE subscription ADD COLUMN status_at_ms bigint NOT NULL DEFAULT 0;
ALTER TABLE subscription ADD COLUMN reason text NOT NULL DEFAULT '';
ALTER TABLE subscription ADD COLUMN edition bigint NOT NULL DEFAULT 0; -- grows when a worker must look again

-- What is known of workers that died with the lane, as JSON; NULL while all is well.
ALTER TABLE lane ADD COLUMN watch text;

-- `done` has been positions, and is pairs of them from now on: from, to, from, to.
UPDATE lane SET done = ARRAY(
    SELECT passed.pos FROM unnest(done) AS passed (pos) CROSS JOIN generate_series(1, 2) ORDER BY passed.pos
);

ALTER TABLE dead ADD COLUMN holds boolean NOT NULL DEFAULT false;  -- later events of its key wait behind it
ALTER TABLE dead ADD COLUMN due boolean NOT NULL DEFAULT false;    -- not parked: to be delivered, in its turn
ALTER TABLE dead ADD COLUMN redrives bigint NOT NULL DEFAULT 0;    -- how often it was redriven
ALTER TABLE dead ADD COLUMN redrive bigint NOT NULL DEFAULT 0;     -- and by which redrive last

UPDATE dead SET holds = key <> '';

CREATE INDEX dead_key ON dead (subscription, lane, key, pos);

-- What people did to dead letters, and why. An edit's payload is what is delivered from then on.
CREATE TABLE dead_note (
    number       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription bigint NOT NULL,
    pos          bigint NOT NULL,
    deed         smallint NOT NULL,
    at_ms        bigint NOT NULL,
    who          text NOT NULL,
    reason       text NOT NULL,
    payload      bytea
);

CREATE INDEX dead_note_pos ON dead_note (subscription, pos);
