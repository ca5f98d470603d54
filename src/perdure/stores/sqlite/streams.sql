-- Every statement about event streams. The form is that of `statements.sql`.

-- name: stream_of
SELECT number, last, gone FROM stream WHERE name = ?

-- name: insert_stream
INSERT INTO stream (number, name, last) SELECT {next_stream}, ?, 0 FROM stream RETURNING number

-- Behind the last one; and where that came from another store, behind all the numbers that its places need.
-- name: next_stream
coalesce(max(number + ((last + (1 << 39)) >> 40)), 0) + 1

-- name: extend_stream
UPDATE stream SET last = ?2, bytes = bytes + ?3 WHERE number = ?1

-- name: insert_event
INSERT INTO event (pos, id, source, type, version, key, time_ms, at_ms, trace, payload, identity, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: event_columns
pos, id, source, type, version, key, time_ms, at_ms, trace, payload, identity, crc

-- name: events_of_identities
SELECT {event_columns} FROM event WHERE identity IN (SELECT value FROM json_each(?))

-- name: events_after
SELECT {event_columns} FROM event WHERE pos > ? AND pos < ? ORDER BY pos LIMIT ?

-- name: subscription_columns
subscription.number, stream.name, subscription.name, subscription.lanes, subscription.is_intake, coalesce(other.name, '')

-- name: all_subscriptions
FROM subscription JOIN stream ON stream.number = subscription.stream
LEFT JOIN stream AS other ON other.number = subscription.other

-- name: subscription_of
SELECT {subscription_columns} {all_subscriptions} WHERE stream.name = ? AND subscription.name = ?

-- name: subscriptions
SELECT {subscription_columns} {all_subscriptions} ORDER BY stream.name, subscription.name

-- name: insert_subscription
INSERT INTO subscription (number, stream, name, lanes, is_intake, other)
SELECT coalesce(max(number), 0) + 1, ?, ?, ?, ?, ? FROM subscription RETURNING number

-- name: set_other_stream
UPDATE subscription SET other = ?2 WHERE number = ?1

-- name: insert_lane
INSERT INTO lane (subscription, lane, lease, cursor, done) VALUES (?, ?, 0, ?, '[]')

-- name: free_lanes
FROM lane WHERE subscription IN (SELECT value FROM json_each(?1))
AND (lease NOT IN (SELECT number FROM lease WHERE held) OR lease = ?2 AND taken <> generation)

-- name: any_free_lane
SELECT 1 {free_lanes}
UNION ALL SELECT 1 FROM json_each(?1) AS wanted
WHERE NOT EXISTS (SELECT 1 FROM serving WHERE serving.subscription = wanted.value AND serving.lease = ?2)
LIMIT 1

-- name: serve
INSERT OR IGNORE INTO serving (subscription, lease) VALUES (?, ?)

-- name: remove_serving
DELETE FROM serving WHERE lease NOT IN (SELECT number FROM lease WHERE held)

-- name: serving
SELECT lease FROM serving WHERE subscription = ? AND lease IN (SELECT number FROM lease WHERE held) ORDER BY lease

-- name: lanes_held
SELECT subscription.lanes, (SELECT count(*) FROM lane WHERE lane.subscription = subscription.number AND lane.lease = ?2)
FROM subscription WHERE number = ?1

-- name: claim_lanes
UPDATE lane SET lease = ?3, taken = generation
WHERE subscription = ?1 AND (lane IN ({lanes_to_take}) OR lease = ?3 AND taken <> generation)
RETURNING subscription, lane, cursor, done, watch, generation, history

-- name: lanes_to_take
SELECT lane FROM lane WHERE subscription = ?1
AND lease NOT IN (SELECT number FROM lease WHERE held) ORDER BY lane LIMIT ?2

-- name: lanes
SELECT subscription, lane, cursor, done FROM lane WHERE subscription = ? ORDER BY lane

-- name: dead_keys
SELECT lane, key FROM dead WHERE subscription = ? AND key <> '' AND (holds OR due) GROUP BY lane, key

-- name: mark_lane
UPDATE lane SET cursor = ?1, done = ?2, history = ?6, lease = CASE WHEN ?7 THEN 0 ELSE lease END
WHERE subscription = ?3 AND lane = ?4 AND generation = ?5 AND lease = ?8
RETURNING subscription, lane

-- name: lane_stand
SELECT cursor, done, generation, history FROM lane WHERE subscription = ? AND lane = ? AND lease = ?

-- name: check_places
SELECT 'Stream ''' || name || ''' has ' || last || ' as its last place, but an event stands behind it.'
FROM stream WHERE EXISTS (
    SELECT 1 FROM event WHERE pos > (stream.number << 40) + stream.last AND pos < coalesce(
        (SELECT min(next.number) FROM stream AS next WHERE next.number > stream.number) << 40, 9223372036854775807
    )
)

-- name: check_lanes
SELECT 'Subscription ''' || name || ''' has ' || (SELECT count(*) FROM lane WHERE subscription = number)
    || ' lanes, and should have ' || lanes || '.'
FROM subscription WHERE (SELECT count(*) FROM lane WHERE subscription = number) <> lanes

-- name: stream_numbers
SELECT number FROM stream

-- name: all_event
SELECT {event_columns} FROM event NOT INDEXED
