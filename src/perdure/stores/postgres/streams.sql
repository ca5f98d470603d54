-- The statements of event streams; they may use the blocks of statements.sql. Events are appended by a function, so
-- that any connection can do it: see migrations/0005_streams.sql.

-- name: append_events
SELECT outcome, n, pos, mark FROM {s}.append_events(
    $1::text, $2::int8[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::int8[], $8::text[], $9::int8[], $10::int8[],
    $11::text[], $12::bytea[], $13::bytea[]
)

-- name: set_stream_clock
SELECT {s}.set_stream_clock()

-- An event may have been let go of since; its stream says up to where.
-- name: witness_event
SELECT 1 FROM {s}.event WHERE stream = $1 AND pos = $2 AND id = $3
UNION ALL SELECT 1 FROM {s}.stream WHERE number = $1 AND gone >= $2

-- name: insert_streams
INSERT INTO {s}.stream (number, name) SELECT * FROM unnest($1::int8[], $2::text[]) AS given (number, name)
WHERE NOT EXISTS (SELECT 1 FROM {s}.move_mark WHERE stage <> 'arrived')
ON CONFLICT DO NOTHING

-- name: streams_of_numbers
SELECT number, name FROM {s}.stream WHERE number = ANY ($1::int8[])

-- Positions up to this one are settled: every transaction that could still commit one has a higher number.
-- name: stream_horizon
SELECT ((pg_snapshot_xmin(pg_current_snapshot())::text::int8 + ahead) << 20) - 1 FROM {s}.stream_clock

-- name: events_after
SELECT pos, id, source, type, version, key, time_ms, at_ms, trace, payload FROM {s}.event
WHERE stream = $1 AND pos > $2 ORDER BY pos LIMIT $3

-- Asked for after the events: what is missing there was gone when this was read.
-- name: stream_ends
SELECT coalesce((SELECT gone FROM {s}.stream WHERE number = $1), 0),
    coalesce((SELECT max(pos) FROM {s}.event WHERE stream = $1), 0)

-- name: hold_stream
SELECT gone FROM {s}.stream WHERE number = $1 FOR SHARE

-- name: last_event
SELECT max(pos) FROM {s}.event WHERE stream = $1 AND pos <= $2

-- Those above a position: of the few whose transactions may not be the last ones there.
-- name: unsettled_events
SELECT pos, key FROM {s}.event WHERE stream = $1 AND pos > $2 ORDER BY pos

-- name: subscription_columns
subscription.number, stream.name, subscription.name, subscription.lanes, subscription.is_intake,
coalesce(other.name, '')

-- name: all_subscriptions
FROM {s}.subscription JOIN {s}.stream ON stream.number = subscription.stream
LEFT JOIN {s}.stream AS other ON other.number = subscription.other

-- name: subscription_of
SELECT {subscription_columns} {all_subscriptions} WHERE subscription.stream = $1 AND subscription.name = $2

-- name: subscriptions
SELECT {subscription_columns} {all_subscriptions} ORDER BY stream.name, subscription.name

-- name: insert_subscription
INSERT INTO {s}.subscription (number, stream, name, lanes, is_intake, other)
VALUES (nextval('{s}.subscription_number'), $1, $2, $3, $4, $5) ON CONFLICT DO NOTHING
RETURNING number

-- name: set_other_stream
UPDATE {s}.subscription SET other = $2 WHERE number = $1

-- name: insert_lanes
INSERT INTO {s}.lane (subscription, lane, lease, cursor, done)
SELECT $1, given.lane, 0, $2, given.done::int8[] FROM unnest($3::int8[], $4::text[]) AS given (lane, done)

-- Those of leases that have ended, or are gone. By name, and not those that are not held: of a lease that is given
-- meanwhile a statement knows nothing.
-- name: free_of_lanes
{free_leases} UNION SELECT lane.lease FROM {s}.lane
WHERE lane.subscription = ANY ($1::int8[]) AND NOT EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = lane.lease)

-- Whether any is free, or may be soon: a lease other than $2 may be a dead worker's.
-- name: lanes_to_claim
SELECT EXISTS (
        SELECT 1 FROM {s}.lane WHERE lane.subscription = ANY ($1::int8[])
        AND (lane.lease = $2::int8 AND lane.taken <> lane.generation
            OR NOT EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = lane.lease AND lease.held))
    ),
    EXISTS (
        SELECT 1 FROM unnest($1::int8[]) AS wanted (number)
        WHERE NOT EXISTS (SELECT 1 FROM {s}.serving WHERE serving.subscription = wanted.number AND serving.lease = $2)
    ),
    EXISTS (SELECT 1 FROM {s}.lease WHERE held AND number <> $2::int8 AND (until_ms <= coalesce($4::int8, {server_ms}) OR
        CASE WHEN present_since = pg_postmaster_start_time()
            THEN pg_try_advisory_xact_lock_shared($3::int4, number::int4) ELSE false END))

-- name: serve
INSERT INTO {s}.serving (subscription, lease) SELECT number, $2 FROM unnest($1::int8[]) AS wanted (number)
ORDER BY number ON CONFLICT DO NOTHING

-- name: remove_serving
DELETE FROM {s}.serving WHERE subscription = ANY ($1::int8[])
AND NOT EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = serving.lease AND lease.held)

-- What the lease $2 has of the lanes of the subscriptions $1, and its share; those of $3 are not shared.
-- name: shares
SELECT subscription.number,
    (SELECT count(*) FROM {s}.lane WHERE lane.subscription = subscription.number AND lane.lease = $2::int8) AS own,
    CASE
        WHEN subscription.number <> ALL ($3::int8[]) THEN (subscription.lanes + served.workers - 1) / served.workers
        WHEN served.longest = $2 THEN subscription.lanes
        ELSE 0
    END AS share
FROM {s}.subscription CROSS JOIN LATERAL (
    SELECT greatest(count(*), 1) AS workers, min(lease) AS longest FROM {s}.serving
    WHERE serving.subscription = subscription.number
    AND EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = serving.lease AND lease.held)
) AS served
WHERE subscription.number = ANY ($1::int8[])

-- Those of its own that were sent elsewhere, and free ones up to its share. Of two that claim the same at once, one has
-- the row and the other passes it over: nobody waits.
-- name: claim_lanes
WITH moved AS (
    SELECT lane.subscription, lane.lane, lane.lease FROM {s}.lane
    WHERE lane.subscription = ANY ($1::int8[]) AND lane.lease = $2::int8 AND lane.taken <> lane.generation
    FOR UPDATE SKIP LOCKED
), free AS (
    SELECT free.subscription, free.lane, free.lease FROM ({shares}) AS shared CROSS JOIN LATERAL (
        SELECT lane.subscription, lane.lane, lane.lease FROM {s}.lane
        WHERE lane.subscription = shared.number AND lane.lease = ANY (ARRAY({free_of_lanes}))
        ORDER BY lane.lane LIMIT greatest(shared.share - shared.own, 0) FOR UPDATE SKIP LOCKED
    ) AS free
)
UPDATE {s}.lane SET lease = $2, taken = generation
FROM (SELECT * FROM moved UNION ALL SELECT * FROM free) AS taken
WHERE lane.subscription = taken.subscription AND lane.lane = taken.lane
RETURNING lane.subscription, lane.lane, lane.cursor, lane.done, lane.watch,
    EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = taken.lease AND lease.crashed),
    lane.generation, lane.history

-- name: mark_lanes
UPDATE {s}.lane SET cursor = given.cursor, done = given.done::int8[], history = given.history,
    lease = CASE given.is_given_up WHEN 0 THEN lane.lease ELSE 0 END
FROM unnest($1::int8[], $2::text[], $3::int8[], $4::int8[], $5::int8[], $6::text[], $7::int8[])
    AS given (cursor, done, subscription, lane, generation, history, is_given_up)
WHERE lane.subscription = given.subscription AND lane.lane = given.lane AND lane.generation = given.generation
AND lane.lease = $8

-- name: lane_stand
SELECT cursor, done, generation, history FROM {s}.lane WHERE subscription = $1 AND lane = $2 AND lease = $3

-- name: check_lanes
SELECT 'Subscription ''' || name || ''' has ' || (SELECT count(*) FROM {s}.lane WHERE subscription = number)
    || ' lanes, and should have ' || lanes || '.'
FROM {s}.subscription WHERE (SELECT count(*) FROM {s}.lane WHERE subscription = number) <> lanes

-- name: check_streams
SELECT 'There are events of stream number ' || event.stream || ', but there is no such stream.'
FROM (SELECT DISTINCT stream FROM {s}.event) AS event
WHERE NOT EXISTS (SELECT 1 FROM {s}.stream WHERE number = event.stream)
