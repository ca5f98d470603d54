-- Statements about how far subscriptions are, and what streams keep. The form is that of `statements.sql`.

-- name: stand_of
SELECT {subscription_columns}, stream.number << 40, stream.gone, stream.last, coalesce(other.gone, 0), coalesce(
    (SELECT min(cursor) FROM lane_time WHERE lane_time.subscription = subscription.number AND side = 1 AND cursor > 0), 0
), stream.sparse_to, coalesce(other.number << 40, 0), coalesce(other.last, 0), coalesce(other.sparse_to, 0)
{all_subscriptions} WHERE subscription.number = ?

-- name: lanes_that_stand
SELECT lane.lane, lane.cursor, lane.done, lane.history, coalesce(lease.worker, '')
FROM lane LEFT JOIN lease ON lease.number = lane.lease AND lease.held
WHERE lane.subscription = ? ORDER BY lane.lane

-- Where the lanes of a join are in its second stream; 0: at its begin.
-- name: lanes_in_other
SELECT coalesce(lane_time.cursor, 0) FROM lane
LEFT JOIN lane_time ON lane_time.subscription = lane.subscription AND lane_time.lane = lane.lane AND side = 1
WHERE lane.subscription = ? ORDER BY lane.lane

-- name: heads_between
SELECT pos - ?1, key, at_ms, time_ms FROM event WHERE pos > ?1 + ?2 AND pos <= ?1 + ?3 ORDER BY pos LIMIT ?4

-- name: heads_before
SELECT pos - ?1, key, at_ms, time_ms FROM event WHERE pos > ?1 AND pos <= ?1 + ?2 ORDER BY pos DESC LIMIT ?3

-- name: dead_since
SELECT count(*), min(at_ms) FROM dead WHERE subscription = ? AND place > ? AND NOT due

-- name: base_of
SELECT number << 40, gone, last, sparse_to FROM stream WHERE name = ?

-- name: count_events
SELECT count(*) FROM event WHERE pos > ? AND pos <= ?

-- name: send_lane
UPDATE lane SET cursor = ?3, done = '[]', generation = generation + 1, history = ?4
WHERE subscription = ?1 AND lane = ?2

-- name: place_of_identity
SELECT pos - ?2 FROM event WHERE identity = ?1 AND id = ?3 AND source = ?4 AND pos > ?2 AND pos <= ?2 + ?5

-- name: unpark_after
DELETE FROM dead WHERE subscription = ? AND place > ?

-- name: forget_notes_after
DELETE FROM dead_note WHERE subscription = ? AND place > ?

-- name: insert_seek
INSERT INTO seek (subscription, place, at_ms, who, reason) VALUES (?, ?, ?, ?, ?)

-- name: seeks_of
SELECT place, at_ms, who, reason FROM seek WHERE subscription = ? ORDER BY number DESC LIMIT ?

-- name: served_by
SELECT lease.worker FROM lane JOIN lease ON lease.number = lane.lease AND lease.held WHERE lane.subscription = ?
LIMIT 1

-- name: remove_dead
DELETE FROM dead WHERE subscription = ?

-- name: remove_notes
DELETE FROM dead_note WHERE subscription = ?

-- name: remove_lanes
DELETE FROM lane WHERE subscription = ?

-- name: remove_seeks
DELETE FROM seek WHERE subscription = ?

-- name: remove_windows_of
DELETE FROM event_window WHERE subscription = ?

-- name: remove_lane_times
DELETE FROM lane_time WHERE subscription = ?

-- name: remove_subscription
DELETE FROM subscription WHERE number = ?

-- name: kept_by
SELECT number << 40, gone, last, bytes, min(
    last,
    coalesce((
        SELECT min(lane.cursor) FROM lane JOIN subscription ON subscription.number = lane.subscription
        WHERE subscription.stream = stream.number
    ), last),
    coalesce((
        SELECT min(coalesce(lane_time.cursor, 0)) FROM lane JOIN subscription ON subscription.number = lane.subscription
        LEFT JOIN lane_time ON lane_time.subscription = lane.subscription AND lane_time.lane = lane.lane AND side = 1
        WHERE subscription.other = stream.number
    ), last)
) FROM stream WHERE name = ?

-- name: sizes_between
SELECT pos - ?1, at_ms, iif(typeof(payload) = 'integer',
    (SELECT size FROM blob WHERE blob.number = payload), length(payload))
FROM event WHERE pos > ?1 + ?2 AND pos <= ?1 + ?3 ORDER BY pos LIMIT ?4

-- name: parked_of_stream
SELECT dead.place FROM dead JOIN subscription ON subscription.number = dead.subscription
WHERE subscription.stream << 40 = ?1

-- name: remove_events
DELETE FROM event WHERE pos > ?1 + ?2 AND pos <= ?1 + ?3 AND pos - ?1 NOT IN ({parked_of_stream})

-- name: remove_unparked
DELETE FROM event WHERE pos IN (
    SELECT pos FROM event WHERE pos > ?1 AND pos <= ?1 + ?2 AND pos - ?1 NOT IN ({parked_of_stream}) LIMIT ?3
)

-- name: let_go
UPDATE stream SET gone = ?2, bytes = ?3 WHERE number << 40 = ?1
