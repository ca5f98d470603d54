-- Statements about how far subscriptions are, and what streams keep; they may use the blocks of the other files.

-- name: stand_of
SELECT {subscription_columns}, stream.number, stream.gone, coalesce(other.gone, 0), coalesce(
    (SELECT min(cursor) FROM {s}.lane_time WHERE lane_time.subscription = subscription.number AND side = 1 AND cursor > 0), 0
), other.number
{all_subscriptions} WHERE subscription.number = $1

-- name: lanes_that_stand
SELECT lane.lane, lane.cursor, lane.done, lane.history, coalesce(lease.worker, '')
FROM {s}.lane LEFT JOIN {s}.lease ON lease.number = lane.lease AND lease.held
WHERE lane.subscription = $1 ORDER BY lane.lane

-- Where the lanes of a join are in its second stream; 0: at its begin.
-- name: lanes_in_other
SELECT coalesce(lane_time.cursor, 0) FROM {s}.lane
LEFT JOIN {s}.lane_time ON lane_time.subscription = lane.subscription AND lane_time.lane = lane.lane AND side = 1
WHERE lane.subscription = $1 ORDER BY lane.lane

-- name: hold_lanes
SELECT lane.lane, lane.cursor, lane.done, lane.history, '' FROM {s}.lane WHERE subscription = $1 ORDER BY lane FOR UPDATE

-- name: heads_between
SELECT pos, key, at_ms, time_ms FROM {s}.event WHERE stream = $1 AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4

-- name: heads_before
SELECT pos, key, at_ms, time_ms FROM {s}.event WHERE stream = $1 AND pos <= $2 ORDER BY pos DESC LIMIT $3

-- The planner knows about how many there are, from what was analysed.
-- name: guess_events_after
EXPLAIN (FORMAT JSON) SELECT 1 FROM {s}.event WHERE stream = $1 AND pos > $2

-- name: latest_appends
SELECT at_ms FROM {s}.event WHERE stream = $1 ORDER BY pos DESC LIMIT $2

-- name: dead_since
SELECT count(*), min(at_ms) FROM {s}.dead WHERE subscription = $1 AND pos > $2 AND NOT due

-- name: send_lanes
UPDATE {s}.lane SET cursor = $2, done = ARRAY[]::bigint[], generation = generation + 1, history = given.history
FROM unnest($3::int8[], $4::text[]) AS given (lane, history)
WHERE lane.subscription = $1 AND lane.lane = given.lane

-- name: unpark_after
WITH note AS (DELETE FROM {s}.dead_note WHERE subscription = $1 AND pos > $2)
DELETE FROM {s}.dead WHERE subscription = $1 AND pos > $2

-- A join that has lost events of its second stream begins there anew, with the first that is kept.
-- name: begin_other_anew
UPDATE {s}.lane_time SET cursor = 0 WHERE subscription = $1 AND side = 1

-- Transactions of other databases count, too: the server numbers them all in one row.
-- name: oldest_writer
SELECT pid, application, who, database, state, greatest(0, extract(epoch FROM clock_timestamp() - since))::float8
FROM (
    SELECT pid, application_name AS application, usename::text AS who, datname::text AS database, state,
        xact_start AS since, age(backend_xid) AS age
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL SELECT 0, gid, owner::text, database::text, 'prepared', prepared, age(transaction) FROM pg_prepared_xacts
) AS writer
ORDER BY age DESC LIMIT 1

-- name: insert_seek
INSERT INTO {s}.seek (subscription, pos, at_ms, who, reason) VALUES ($1, $2, $3, $4, $5)

-- name: seeks_of
SELECT pos, at_ms, who, reason FROM {s}.seek WHERE subscription = $1 ORDER BY number DESC LIMIT $2

-- name: find_event
SELECT pos FROM {s}.event WHERE identity = $1 AND pos > (SELECT gone FROM {s}.stream WHERE number = $2)

-- name: served_by
SELECT lease.worker FROM {s}.lane JOIN {s}.lease ON lease.number = lane.lease AND lease.held
WHERE lane.subscription = $1 LIMIT 1

-- name: remove_subscription
WITH dead AS (DELETE FROM {s}.dead WHERE subscription = $1),
    note AS (DELETE FROM {s}.dead_note WHERE subscription = $1),
    event_window AS (DELETE FROM {s}.event_window WHERE subscription = $1),
    lane_time AS (DELETE FROM {s}.lane_time WHERE subscription = $1),
    lane AS (DELETE FROM {s}.lane WHERE subscription = $1),
    seek AS (DELETE FROM {s}.seek WHERE subscription = $1)
DELETE FROM {s}.subscription WHERE number = $1

-- name: hold_stream_alone
SELECT gone, bytes, counted_to FROM {s}.stream WHERE number = $1 FOR UPDATE

-- Up to where all subscriptions have done it, those that began while the stream was waited for, too: so this is a
-- statement of its own. A join has a place in each of its streams.
-- name: least_cursor
SELECT least(
    (
        SELECT min(lane.cursor) FROM {s}.lane JOIN {s}.subscription ON subscription.number = lane.subscription
        WHERE subscription.stream = $1
    ), (
        SELECT min(coalesce(lane_time.cursor, 0))
        FROM {s}.lane JOIN {s}.subscription ON subscription.number = lane.subscription
        LEFT JOIN {s}.lane_time ON lane_time.subscription = lane.subscription AND lane_time.lane = lane.lane AND side = 1
        WHERE subscription.other = $1
    )
)

-- Payloads are not read for that.
-- name: sizes_between
SELECT pos, at_ms, octet_length(payload) FROM {s}.event
WHERE stream = $1 AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4

-- name: parked_of_stream
SELECT dead.pos FROM {s}.dead JOIN {s}.subscription ON subscription.number = dead.subscription
WHERE subscription.stream = $1

-- name: remove_events
DELETE FROM {s}.event WHERE stream = $1 AND pos > $2 AND pos <= $3
AND NOT EXISTS ({parked_of_stream} AND dead.pos = event.pos)

-- name: remove_unparked
DELETE FROM {s}.event WHERE stream = $1 AND pos <= $2 AND NOT EXISTS ({parked_of_stream} AND dead.pos = event.pos)

-- name: let_go
UPDATE {s}.stream SET gone = $2, bytes = $3, counted_to = $4 WHERE number = $1

-- Whether there may be something to let go of: one that is old, or was not counted, or is parked no more.
-- name: kept_by
SELECT bytes, (SELECT at_ms FROM {s}.event WHERE event.stream = number AND pos > gone ORDER BY pos LIMIT 1),
    EXISTS (SELECT 1 FROM {s}.event WHERE event.stream = number AND pos > counted_to),
    EXISTS (SELECT 1 FROM {s}.event WHERE event.stream = number AND pos <= gone)
FROM {s}.stream WHERE number = $1
