-- The statements of moving streams: `moving_…` reads rows above a key, as `stores/stream_rows.py` has them, with a
-- checksum behind where there is one; `arrive_…` writes them. The form is that of `statements.sql`.

-- name: moving_stream
SELECT name, gone, last FROM stream WHERE name > ? ORDER BY name LIMIT ?

-- Behind all the numbers that the streams before it need, and with room for 2^39 more places of theirs.
-- name: arrive_stream
INSERT OR IGNORE INTO stream (number, name, gone, last, sparse_to)
SELECT {next_stream}, ?1, ?2, ?3, ?3 FROM stream

-- name: room_for_streams
SELECT {next_stream} FROM stream

-- name: moving_schema
SELECT stream, type, version, fingerprint, schema, at_ms, gone_to FROM schema
WHERE (stream, type, version) > (?, ?, ?) ORDER BY stream, type, version LIMIT ?

-- name: arrive_schema
INSERT OR IGNORE INTO schema (stream, type, version, fingerprint, schema, at_ms, gone_to) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: moving_subscription
SELECT {subscription_columns}, subscription.status, subscription.status_at_ms, subscription.reason, subscription.edition
{all_subscriptions} WHERE subscription.number > ? ORDER BY subscription.number LIMIT ?

-- name: arrive_subscription
INSERT OR IGNORE INTO subscription
(number, stream, name, lanes, is_intake, other, status, status_at_ms, reason, edition)
VALUES (?, (SELECT number FROM stream WHERE name = ?), ?, ?, ?, coalesce((SELECT number FROM stream WHERE name = ?), 0),
    ?, ?, ?, ?)

-- name: moving_lane
SELECT subscription, lane, cursor, json(done), watch, generation, history FROM lane
WHERE (subscription, lane) > (?, ?) ORDER BY subscription, lane LIMIT ?

-- name: arrive_lane
INSERT OR IGNORE INTO lane (subscription, lane, cursor, done, watch, generation, history, lease)
VALUES (?, ?, ?, ?, ?, ?, ?, 0)

-- name: moving_lane_time
{all_lane_time} WHERE (subscription, lane, side) > (?, ?, ?) ORDER BY subscription, lane, side LIMIT ?

-- name: arrive_lane_time
INSERT OR IGNORE INTO lane_time
(subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: moving_seek
SELECT number, subscription, place, at_ms, who, reason FROM seek WHERE number > ? ORDER BY number LIMIT ?

-- name: arrive_seek
INSERT OR IGNORE INTO seek (number, subscription, place, at_ms, who, reason) VALUES (?, ?, ?, ?, ?, ?)

-- name: moving_correlation
SELECT stream.name, correlation.type, correlation.fields
FROM correlation JOIN stream ON stream.number = correlation.stream
WHERE (stream.name, correlation.type, correlation.fields) > (?, ?, ?) ORDER BY 1, 2, 3 LIMIT ?

-- All events of the type are entered as they arrive.
-- name: arrive_correlation
INSERT OR IGNORE INTO correlation (number, stream, type, fields, entered)
SELECT coalesce(max(number), 0) + 1, (SELECT number FROM stream WHERE name = ?), ?, ?, NULL FROM correlation

-- name: moving_awaiting
SELECT awaiting.run, stream.name, correlation.type, correlation.fields, awaiting.value, awaiting.signal, awaiting.after,
    awaiting.wanted
FROM awaiting JOIN correlation ON correlation.number = awaiting.correlation
JOIN stream ON stream.number = correlation.stream
WHERE awaiting.run >= ?1 AND EXISTS (SELECT 1 FROM run WHERE run.number = awaiting.run)
AND (awaiting.run, stream.name, correlation.type, correlation.fields, awaiting.value) > (?1, ?2, ?3, ?4, ?5)
ORDER BY 1, 2, 3, 4, 5 LIMIT ?6

-- name: arrive_awaiting
INSERT OR IGNORE INTO awaiting (run, correlation, value, signal, after, wanted)
VALUES (?1, (
    SELECT number FROM correlation
    WHERE stream = (SELECT number FROM stream WHERE name = ?2) AND type = ?3 AND fields = ?4
), ?5, ?6, ?7, ?8)

-- name: moving_dead
SELECT {dead_columns}, redrive FROM dead WHERE (subscription, place) > (?, ?) ORDER BY subscription, place LIMIT ?

-- name: arrive_dead
INSERT OR IGNORE INTO dead ({dead_columns}, redrive) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: moving_dead_note
SELECT number, {note_columns} FROM dead_note WHERE number > ? ORDER BY number LIMIT ?

-- name: arrive_dead_note
INSERT OR IGNORE INTO dead_note (number, {note_columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: moving_event_window
{all_window} WHERE (subscription, lane, key, start_ms, place) > (?, ?, ?, ?, ?)
ORDER BY subscription, lane, key, start_ms, place LIMIT ?

-- name: arrive_event_window
INSERT OR IGNORE INTO event_window
(subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: streams_from
SELECT name, number, gone, last FROM stream WHERE name >= ? ORDER BY name

-- name: add_bytes
UPDATE stream SET bytes = bytes + ?2 WHERE number = ?1

-- The last event of the last stream that has any.
-- name: last_arrived
SELECT name, (
    SELECT max(pos) FROM event WHERE pos > number << 40 AND pos <= (number << 40) + last
) - (number << 40) AS place
FROM stream WHERE place IS NOT NULL ORDER BY name DESC LIMIT 1

-- name: last_arrived_run
SELECT coalesce(max(number), 0) FROM run

-- Runs that wait for events, though these may be there: the other store gives them later, if at all.
-- name: waiting_for_moved
SELECT awaiting.run, awaiting.correlation, awaiting.value, awaiting.signal, awaiting.after, awaiting.wanted,
    correlation.stream, (SELECT last FROM stream WHERE number = correlation.stream)
FROM awaiting JOIN correlation ON correlation.number = awaiting.correlation
JOIN run ON run.number = awaiting.run AND run.status <= 2
WHERE awaiting.wanted > 0 ORDER BY awaiting.run

-- name: free_all_lanes
UPDATE lane SET lease = 0 WHERE lease <> 0

-- name: forget_who_serves
DELETE FROM serving

-- name: remove_all_stream
DELETE FROM stream

-- name: remove_all_schema
DELETE FROM schema

-- name: remove_all_subscription
DELETE FROM subscription

-- name: remove_all_lane
DELETE FROM lane

-- name: remove_all_lane_time
DELETE FROM lane_time

-- name: remove_all_seek
DELETE FROM seek

-- name: remove_all_correlated
DELETE FROM correlated

-- name: remove_all_correlation
DELETE FROM correlation

-- name: remove_all_awaiting
DELETE FROM awaiting

-- name: remove_all_dead
DELETE FROM dead

-- name: remove_all_dead_note
DELETE FROM dead_note

-- name: remove_all_event_window
DELETE FROM event_window

-- name: remove_all_event
DELETE FROM event
