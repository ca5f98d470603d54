-- Windows over event time: what a lane has open, and how far event time is there.

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE lane_time (
    subscription bigint NOT NULL,
    lane         bigint NOT NULL,
    side         bigint NOT NULL, -- 0; 1 for the other stream of a join
    latest_ms    bigint,
    latest_at_ms bigint NOT NULL,
    watermark_ms bigint,
    late         bigint NOT NULL,
    misdated     bigint NOT NULL,
    cursor       bigint NOT NULL, -- of side 1: how far that stream is read; else 0
    PRIMARY KEY (subscription, lane, side)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE event_window (
    subscription bigint NOT NULL,
    lane         bigint NOT NULL,
    key          text COLLATE "C" NOT NULL,
    start_ms     bigint NOT NULL,
    end_ms       bigint NOT NULL,
    revision     bigint NOT NULL, -- how often it was told
    is_told      bigint NOT NULL, -- whether it was told as it is
    replaces     text NOT NULL,   -- [[start, revision], …] of what its next result replaces, as JSON
    events       bigint NOT NULL,
    state        bytea,
    place        bigint NOT NULL, -- of an event that waits in a join: twice its position, and one more for the other stream
    PRIMARY KEY (subscription, lane, key, start_ms, place)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- A lane that is moved back is read anew: what came of its events before would be counted twice.
CREATE FUNCTION forget_windows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM event_window WHERE subscription = new.subscription AND lane = new.lane;
    DELETE FROM lane_time WHERE subscription = new.subscription AND lane = new.lane;
    RETURN NULL;
END
$$;

REVOKE EXECUTE ON FUNCTION forget_windows FROM PUBLIC;

CREATE TRIGGER lane_moved_back AFTER UPDATE OF cursor ON lane
FOR EACH ROW WHEN (new.cursor < old.cursor) EXECUTE FUNCTION forget_windows();
