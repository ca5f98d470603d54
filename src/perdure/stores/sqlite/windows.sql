-- Every statement about windows over event time. The form is that of `statements.sql`.

-- name: is_lane_ours
SELECT 1 FROM lane WHERE subscription = ? AND lane = ? AND generation = ? AND lease = ?

-- name: upsert_lane_time
INSERT INTO lane_time
(subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (subscription, lane, side) DO UPDATE SET
latest_ms = excluded.latest_ms, latest_at_ms = excluded.latest_at_ms, watermark_ms = excluded.watermark_ms,
late = excluded.late, misdated = excluded.misdated, cursor = excluded.cursor, crc = excluded.crc

-- name: upsert_window
INSERT INTO event_window
(subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (subscription, lane, key, start_ms, place) DO UPDATE SET
end_ms = excluded.end_ms, revision = excluded.revision, is_told = excluded.is_told,
replaces = excluded.replaces, events = excluded.events, state = excluded.state, crc = excluded.crc

-- name: remove_window
DELETE FROM event_window WHERE subscription = ? AND lane = ? AND key = ? AND start_ms = ? AND place = ?

-- name: all_lane_time
SELECT subscription, lane, side, latest_ms, latest_at_ms, watermark_ms, late, misdated, cursor, crc FROM lane_time

-- name: all_window
SELECT subscription, lane, key, start_ms, end_ms, revision, is_told, replaces, events, state, place, crc FROM event_window

-- name: lane_times_of
{all_lane_time} WHERE subscription = ? ORDER BY lane, side

-- name: windows_of
{all_window} WHERE subscription = ? ORDER BY lane, key, start_ms, place

-- name: count_open_windows
SELECT lane, place & 1, count(*) FROM event_window WHERE subscription = ? AND NOT is_told GROUP BY 1, 2
