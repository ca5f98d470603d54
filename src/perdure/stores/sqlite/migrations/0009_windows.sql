-- Windows over event time: what a lane has open, and how far event time is there.

CREATE TABLE lane_time (
    subscription INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    side         INTEGER NOT NULL, -- 0; 1 for the other stream of a join
    latest_ms    INTEGER,
    latest_at_ms INTEGER NOT NULL,
    watermark_ms INTEGER,
    late         INTEGER NOT NULL,
    misdated     INTEGER NOT NULL,
    cursor       INTEGER NOT NULL, -- of side 1: how far that stream is read; else 0
    crc          INTEGER NOT NULL,
    PRIMARY KEY (subscription, lane, side)
) STRICT, WITHOUT ROWID;

CREATE TABLE event_window (
    subscription INTEGER NOT NULL,
    lane         INTEGER NOT NULL,
    key          TEXT NOT NULL,
    start_ms     INTEGER NOT NULL,
    end_ms       INTEGER NOT NULL,
    revision     INTEGER NOT NULL, -- how often it was told
    is_told      INTEGER NOT NULL, -- whether it was told as it is
    replaces     TEXT NOT NULL,    -- [[start, revision], …] of what its next result replaces, as JSON
    events       INTEGER NOT NULL,
    state        ANY,
    place        INTEGER NOT NULL, -- of an event that waits in a join: twice its place, and one more for the other stream
    crc          INTEGER NOT NULL,
    PRIMARY KEY (subscription, lane, key, start_ms, place)
) STRICT;

CREATE TRIGGER window_replaced AFTER UPDATE OF state ON event_window WHEN typeof(old.state) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.state;
END;

CREATE TRIGGER window_removed AFTER DELETE ON event_window WHEN typeof(old.state) = 'integer' BEGIN
    UPDATE blob SET uses = uses - 1 WHERE number = old.state;
END;

-- A lane that is moved back is read anew: what came of its events before would be counted twice.
CREATE TRIGGER lane_moved_back AFTER UPDATE OF cursor ON lane WHEN new.cursor < old.cursor BEGIN
    DELETE FROM event_window WHERE subscription = new.subscription AND lane = new.lane;
    DELETE FROM lane_time WHERE subscription = new.subscription AND lane = new.lane;
END;
