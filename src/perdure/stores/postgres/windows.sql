-- The statements of windows over event time; they may use the blocks of statements.sql.

-- Of lanes that are given, those of a lease which were not sent elsewhere; nor are they before the commit.
-- name: lanes_of_lease
SELECT lane.subscription, lane.lane, lane.generation FROM {s}.lane
JOIN unnest($1::int8[], $2::int8[], $3::int8[]) AS given (subscription, lane, generation)
ON lane.subscription = given.subscription AND lane.lane = given.lane AND lane.generation = given.generation
WHERE lane.lease = $4 ORDER BY lane.subscription, lane.lane FOR UPDATE OF lane

-- name: put_lane_times
INSERT INTO {s}.lane_time
(subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor)
SELECT * FROM unnest(
    $1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[]
)
ON CONFLICT (subscription, lane, side) DO UPDATE SET
latest_ms = excluded.latest_ms, latest_at_ms = excluded.latest_at_ms, watermark_ms = excluded.watermark_ms,
late = excluded.late, misdated = excluded.misdated, cursor = excluded.cursor

-- name: put_windows
INSERT INTO {s}.event_window
(subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place)
SELECT * FROM unnest(
    $1::int8[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::text[], $9::int8[],
    $10::bytea[], $11::int8[]
)
ON CONFLICT (subscription, lane, key, start_ms, place) DO UPDATE SET
end_ms = excluded.end_ms, revision = excluded.revision, is_told = excluded.is_told,
replaces = excluded.replaces, events = excluded.events, state = excluded.state

-- name: remove_windows
DELETE FROM {s}.event_window USING unnest($1::int8[], $2::int8[], $3::text[], $4::int8[], $5::int8[])
    AS given (subscription, lane, key, start_ms, place)
WHERE event_window.subscription = given.subscription AND event_window.lane = given.lane
AND event_window.key = given.key AND event_window.start_ms = given.start_ms AND event_window.place = given.place

-- name: lane_times_of
SELECT lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor FROM {s}.lane_time
WHERE subscription = $1 ORDER BY lane, side

-- name: windows_of
SELECT lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place FROM {s}.event_window
WHERE subscription = $1 ORDER BY lane, key, start_ms, place

-- name: count_open_windows
SELECT lane, place & 1, count(*) FROM {s}.event_window WHERE subscription = $1 AND is_told = 0 GROUP BY 1, 2
