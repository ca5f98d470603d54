-- The statements of moving streams: `moving_…` reads rows above a key, as `stores/stream_rows.py` has them; `arrive_…`
-- writes them. Where rows have payloads, as many are read as have so many bytes, and one more. They may use the blocks of
-- the other files.

-- The last place that anything knows of: new events come above it, wherever they are appended.
-- name: moving_stream
SELECT name, gone, greatest(
    gone,
    (SELECT max(pos) FROM {s}.event WHERE event.stream = stream.number),
    (SELECT max(gone_to) FROM {s}.schema WHERE schema.stream = stream.name),
    (
        SELECT max(lane.cursor) FROM {s}.lane JOIN {s}.subscription ON subscription.number = lane.subscription
        WHERE subscription.stream = stream.number AND subscription.is_intake = 0
    ), (
        SELECT max(lane_time.cursor) FROM {s}.lane_time JOIN {s}.subscription ON subscription.number = lane_time.subscription
        WHERE subscription.other = stream.number
    )
) FROM {s}.stream WHERE name > $1 ORDER BY name LIMIT $2

-- name: arrive_stream
INSERT INTO {s}.stream (number, name, gone, counted_to)
SELECT given.number, given.name, given.gone, given.gone
FROM unnest($1::int8[], $2::text[], $3::int8[], $4::int8[]) AS given (number, name, gone, last)
ON CONFLICT DO NOTHING

-- No transaction that could still append gives a place up to $1, and who reads on need not wait for any.
-- name: raise_stream_clock
UPDATE {s}.stream_clock SET ahead = greatest(ahead, ($1 >> 20) + 1 - pg_snapshot_xmin(pg_current_snapshot())::text::int8)

-- name: moving_schema
SELECT stream, type, version, fingerprint, schema, at_ms, gone_to FROM (
    SELECT *, sum(octet_length(schema)) OVER (ORDER BY stream, type, version) - octet_length(schema) AS before
    FROM (
        SELECT * FROM {s}.schema WHERE (stream, type, version) > ($1, $2, $3)
        ORDER BY stream, type, version LIMIT $4
    ) AS chosen
) AS page WHERE before < $5 ORDER BY stream, type, version

-- name: arrive_schema
INSERT INTO {s}.schema (stream, type, version, fingerprint, schema, at_ms, gone_to)
SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::text[], $5::bytea[], $6::int8[], $7::int8[])
ON CONFLICT DO NOTHING

-- name: moving_subscription
SELECT {subscription_columns}, subscription.status, subscription.status_at_ms, subscription.reason, subscription.edition
{all_subscriptions} WHERE subscription.number > $1 ORDER BY subscription.number LIMIT $2

-- name: arrive_subscription
INSERT INTO {s}.subscription (number, stream, name, lanes, is_intake, other, status, status_at_ms, reason, edition)
SELECT given.number, stream.number, given.name, given.lanes, given.is_intake, coalesce(other.number, 0), given.status,
    given.status_at_ms, given.reason, given.edition
FROM unnest(
    $1::int8[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::text[], $7::int8[], $8::int8[], $9::text[], $10::int8[]
) AS given (number, stream, name, lanes, is_intake, other, status, status_at_ms, reason, edition)
JOIN {s}.stream ON stream.name = given.stream LEFT JOIN {s}.stream AS other ON other.name = given.other
ON CONFLICT DO NOTHING

-- name: count_subscription
SELECT setval('{s}.subscription_number', (SELECT max(number) FROM {s}.subscription))

-- name: moving_lane
SELECT subscription, lane, cursor, array_to_json(done)::text, watch, generation, history FROM {s}.lane
WHERE (subscription, lane) > ($1, $2) ORDER BY subscription, lane LIMIT $3

-- name: arrive_lane
INSERT INTO {s}.lane (subscription, lane, cursor, done, watch, generation, history, lease)
SELECT subscription, lane, cursor, translate(done, '[]', chr(123) || chr(125))::int8[], watch, generation, history, 0
FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::int8[], $7::text[])
    AS given (subscription, lane, cursor, done, watch, generation, history)
ON CONFLICT DO NOTHING

-- name: moving_lane_time
SELECT subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor FROM {s}.lane_time
WHERE (subscription, lane, side) > ($1, $2, $3) ORDER BY subscription, lane, side LIMIT $4

-- name: arrive_lane_time
INSERT INTO {s}.lane_time (subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor)
SELECT * FROM unnest(
    $1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[]
) ON CONFLICT DO NOTHING

-- name: moving_seek
SELECT number, subscription, pos, at_ms, who, reason FROM {s}.seek WHERE number > $1 ORDER BY number LIMIT $2

-- name: arrive_seek
INSERT INTO {s}.seek (number, subscription, pos, at_ms, who, reason) OVERRIDING SYSTEM VALUE
SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::text[], $6::text[])
ON CONFLICT DO NOTHING

-- name: count_seek
SELECT setval(pg_get_serial_sequence('{s}.seek', 'number'), (SELECT max(number) FROM {s}.seek))

-- name: moving_correlation
SELECT stream.name, correlation.type, correlation.fields
FROM {s}.correlation JOIN {s}.stream ON stream.number = correlation.stream
WHERE (stream.name, correlation.type, correlation.fields) > ($1, $2, $3) ORDER BY 1, 2, 3 LIMIT $4

-- Workers enter all events anew, and give those that nobody was given.
-- name: arrive_correlation
INSERT INTO {s}.correlation (number, stream, type, fields, entered)
SELECT given.number, stream.number, given.type, given.fields, 0
FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[]) AS given (number, stream, type, fields)
JOIN {s}.stream ON stream.name = given.stream
ON CONFLICT DO NOTHING

-- What runs have asked for is added to what they wait for, as a worker would do it.
-- name: moving_awaiting
SELECT waiting.run, stream.name, correlation.type, correlation.fields, waiting.value, waiting.signal, waiting.after,
    waiting.wanted
FROM (
    SELECT run, correlation, value, coalesce(awaiting.signal, given.signal) AS signal,
        coalesce(awaiting.after, {given_before}, 0) AS after,
        (coalesce(awaiting.wanted, 0) + coalesce(given.wanted, 0))::int8 AS wanted
    FROM {s}.awaiting FULL JOIN (
        SELECT run, correlation, value, min(signal) AS signal, count(*) AS wanted FROM {s}.asking
        GROUP BY run, correlation, value
    ) AS given USING (run, correlation, value)
    WHERE run >= $1
) AS waiting
JOIN {s}.correlation ON correlation.number = waiting.correlation
JOIN {s}.stream ON stream.number = correlation.stream
WHERE EXISTS (SELECT 1 FROM {s}.run WHERE run.number = waiting.run)
AND (waiting.run, stream.name, correlation.type, correlation.fields, waiting.value) > ($1, $2, $3, $4, $5)
ORDER BY 1, 2, 3, 4, 5 LIMIT $6

-- name: arrive_awaiting
INSERT INTO {s}.awaiting (run, correlation, value, signal, after, wanted)
SELECT given.run, correlation.number, given.value, given.signal, given.after, given.wanted
FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int8[], $8::int8[])
    AS given (run, stream, type, fields, value, signal, after, wanted)
JOIN {s}.stream ON stream.name = given.stream
JOIN {s}.correlation ON correlation.stream = stream.number AND correlation.type = given.type
    AND correlation.fields = given.fields
ON CONFLICT DO NOTHING

-- name: moving_dead
SELECT subscription, pos, lane, key, kind, attempts, failure, at_ms, holds::int, due::int, redrives, redrive FROM (
    SELECT *, sum(coalesce(octet_length(failure), 0)) OVER (ORDER BY subscription, pos)
        - coalesce(octet_length(failure), 0) AS before
    FROM (
        SELECT * FROM {s}.dead WHERE (subscription, pos) > ($1, $2) ORDER BY subscription, pos LIMIT $3
    ) AS chosen
) AS page WHERE before < $4 ORDER BY subscription, pos

-- name: arrive_dead
INSERT INTO {s}.dead (subscription, pos, lane, key, kind, attempts, failure, at_ms, holds, due, redrives, redrive)
SELECT subscription, pos, lane, key, kind, attempts, failure, at_ms, holds <> 0, due <> 0, redrives, redrive
FROM unnest(
    $1::int8[], $2::int8[], $3::int8[], $4::text[], $5::int8[], $6::int8[], $7::bytea[], $8::int8[], $9::int8[],
    $10::int8[], $11::int8[], $12::int8[]
) AS given (subscription, pos, lane, key, kind, attempts, failure, at_ms, holds, due, redrives, redrive)
ON CONFLICT DO NOTHING

-- name: moving_dead_note
SELECT number, subscription, pos, deed, at_ms, who, reason, payload FROM (
    SELECT *, sum(coalesce(octet_length(payload), 0)) OVER (ORDER BY number) - coalesce(octet_length(payload), 0) AS before
    FROM (SELECT * FROM {s}.dead_note WHERE number > $1 ORDER BY number LIMIT $2) AS chosen
) AS page WHERE before < $3 ORDER BY number

-- name: arrive_dead_note
INSERT INTO {s}.dead_note (number, subscription, pos, deed, at_ms, who, reason, payload) OVERRIDING SYSTEM VALUE
SELECT * FROM unnest(
    $1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::text[], $7::text[], $8::bytea[]
) ON CONFLICT DO NOTHING

-- name: count_dead_note
SELECT setval(pg_get_serial_sequence('{s}.dead_note', 'number'), (SELECT max(number) FROM {s}.dead_note))

-- name: moving_event_window
SELECT subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place FROM (
    SELECT *, sum(coalesce(octet_length(state), 0)) OVER (ORDER BY subscription, lane, key, start_ms, place)
        - coalesce(octet_length(state), 0) AS before
    FROM (
        SELECT * FROM {s}.event_window WHERE (subscription, lane, key, start_ms, place) > ($1, $2, $3, $4, $5)
        ORDER BY subscription, lane, key, start_ms, place LIMIT $6
    ) AS chosen
) AS page WHERE before < $7 ORDER BY subscription, lane, key, start_ms, place

-- name: arrive_event_window
INSERT INTO {s}.event_window
(subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place)
SELECT * FROM unnest(
    $1::int8[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::text[], $9::int8[],
    $10::bytea[], $11::int8[]
) ON CONFLICT DO NOTHING

-- name: streams_from
SELECT name, number FROM {s}.stream WHERE name >= $1 ORDER BY name

-- name: moving_event
SELECT pos, id, source, type, version, key, time_ms, at_ms, trace, payload, (identity IS NOT NULL)::int FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY pos) - octet_length(payload) AS before
    FROM (SELECT * FROM {s}.event WHERE stream = $1 AND pos > $2 ORDER BY pos LIMIT $3) AS chosen
) AS page WHERE before < $4 ORDER BY pos

-- name: arrive_event
INSERT INTO {s}.event (stream, pos, id, source, type, version, key, time_ms, at_ms, trace, payload, identity)
SELECT * FROM unnest(
    $1::int8[], $2::int8[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::text[], $8::int8[], $9::int8[],
    $10::text[], $11::bytea[], $12::bytea[]
)

-- The last event of the last stream that has any.
-- name: last_arrived
SELECT name, (SELECT max(pos) FROM {s}.event WHERE event.stream = stream.number) FROM {s}.stream
WHERE EXISTS (SELECT 1 FROM {s}.event WHERE event.stream = stream.number) ORDER BY name DESC LIMIT 1

-- name: last_arrived_run
SELECT coalesce(max(number), 0) FROM {s}.run

-- name: lanes_with_leases
SELECT lane.lease, lane.subscription, lane.lane, lane.watch,
    EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = lane.lease AND lease.crashed)
FROM {s}.lane WHERE lane.lease <> 0 ORDER BY lane.lease, lane.subscription, lane.lane

-- name: free_all_lanes
UPDATE {s}.lane SET lease = 0 WHERE lease <> 0

-- name: forget_who_serves
DELETE FROM {s}.serving

-- name: remove_all_stream
DELETE FROM {s}.stream

-- name: remove_all_schema
DELETE FROM {s}.schema

-- name: remove_all_subscription
DELETE FROM {s}.subscription

-- name: remove_all_lane
DELETE FROM {s}.lane

-- name: remove_all_lane_time
DELETE FROM {s}.lane_time

-- name: remove_all_seek
DELETE FROM {s}.seek

-- name: remove_all_correlation
DELETE FROM {s}.correlation

-- name: remove_all_awaiting
DELETE FROM {s}.awaiting

-- name: remove_all_dead
DELETE FROM {s}.dead

-- name: remove_all_dead_note
DELETE FROM {s}.dead_note

-- name: remove_all_event_window
DELETE FROM {s}.event_window

-- name: remove_all_event
DELETE FROM {s}.event
