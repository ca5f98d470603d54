-- Runs that wait for events by their fields. A correlation says by which fields of which type. Events up to `entered`
-- are entered by the values of these, and given to the runs that wait; both by workers, once nothing can come below them:
-- an append knows nothing of it. A run asks by a row that it only adds, so that nobody waits for anybody.

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE correlation (
    number  bigint PRIMARY KEY, -- a hash of the three that follow
    stream  bigint NOT NULL,
    type    text COLLATE "C" NOT NULL,
    fields  text COLLATE "C" NOT NULL, -- names, as JSON, sorted
    entered bigint NOT NULL            -- the position up to which events are entered; who moves it has locked the row
);

CREATE TABLE correlated (
    correlation bigint NOT NULL,
    value       text COLLATE "C" NOT NULL, -- of the fields, as JSON; a hash of that where it is long
    pos         bigint NOT NULL,           -- the event's
    PRIMARY KEY (correlation, value, pos)
);

CREATE INDEX correlated_pos ON correlated (pos);

CREATE FUNCTION uncorrelate_events() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM correlated USING gone
    JOIN correlation ON correlation.stream = gone.stream
    WHERE correlated.pos = gone.pos AND correlated.correlation = correlation.number;
    RETURN NULL;
END
$$;

CREATE TRIGGER event_uncorrelated AFTER DELETE ON event REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION uncorrelate_events();

-- What runs have asked for, until a worker adds it to `awaiting`.
CREATE TABLE asking (
    number      bigint GENERATED ALWAYS AS IDENTITY,
    correlation bigint NOT NULL,
    run         bigint NOT NULL,
    value       text COLLATE "C" NOT NULL,
    signal      text NOT NULL, -- by which the run hears of the event
    PRIMARY KEY (correlation, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Written only by who has locked the correlation's row.
CREATE TABLE awaiting (
    run         bigint NOT NULL,
    correlation bigint NOT NULL,
    value       text COLLATE "C" NOT NULL,
    signal      text NOT NULL,
    after       bigint NOT NULL, -- the position of the last event that the run was given
    wanted      bigint NOT NULL, -- how many events it still waits for
    PRIMARY KEY (run, correlation, value)
);

CREATE INDEX awaiting_value ON awaiting (correlation, value) WHERE wanted > 0;
