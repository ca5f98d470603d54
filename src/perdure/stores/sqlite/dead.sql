-- Every statement about dead letters, and about lanes whose workers died. The form is that of `statements.sql`.

-- name: dead_columns
subscription, place, lane, key, kind, attempts, failure, at_ms, holds, due, redrives

-- An event that waits behind others (kind 3) is parked if one before it is, and due otherwise. A client
-- may redrive those before it meanwhile: only here it is known what holds now.
-- name: insert_dead
INSERT INTO dead (subscription, place, lane, key, kind, attempts, failure, at_ms, holds, due)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?5 = 3 AND NOT EXISTS (SELECT 1 {holding_of_lane}))
ON CONFLICT (subscription, place) DO UPDATE SET kind = excluded.kind, attempts = excluded.attempts,
    failure = excluded.failure, at_ms = excluded.at_ms, holds = excluded.holds, due = 0

-- name: holding_of_lane
FROM dead WHERE subscription = ?1 AND lane = ?3 AND key = ?4 AND holds AND NOT due

-- name: halt_key
UPDATE dead SET due = 0, kind = 3, holds = 1, at_ms = ?5
WHERE subscription = ?1 AND lane = ?2 AND key = ?3 AND place > ?4 AND due

-- name: clear_dead
DELETE FROM dead WHERE subscription = ? AND place = ?

-- name: dead_events
SELECT {dead_columns} FROM dead WHERE subscription = ?1 AND place > ?2 AND NOT due AND {dead_filter}
ORDER BY place LIMIT ?3

-- name: dead_filter
(?4 IS NULL OR place IN (SELECT value FROM json_each(?4))) AND (?5 IS NULL OR key = ?5) AND (?6 IS NULL OR kind = ?6)

-- name: dead_counts
SELECT kind * (NOT due), count(*) FROM dead WHERE subscription = ? GROUP BY 1

-- name: held_keys
SELECT lane, key, max(due) FROM dead WHERE subscription = ? AND (due OR holds AND key <> '') GROUP BY lane, key

-- name: due_places
SELECT place FROM dead WHERE subscription = ?1 AND lane = ?2 AND key = ?3 AND due AND place < coalesce(
    (SELECT min(place) FROM dead WHERE subscription = ?1 AND lane = ?2 AND key = ?3 AND holds AND NOT due),
    1 << 62
) ORDER BY place LIMIT ?4

-- name: holding
SELECT 1 FROM dead WHERE subscription = ?1 AND lane = ?2 AND key = ?3 AND (holds OR due) LIMIT 1

-- name: waits_due
SELECT 1 FROM dead WHERE subscription = ? AND place = ? AND due

-- name: stream_of_subscription
SELECT stream FROM subscription WHERE number = ?

-- Redriving: what was meant and was not handed over by this redrive yet, without keys that failed in it.
-- A key that holds is meant whole where one of its events is.

-- name: redrivable
SELECT place FROM dead WHERE subscription = ?1 AND NOT due AND redrive <> ?2 AND (
    {dead_filter} OR holds AND key <> '' AND (lane, key) IN (
        SELECT lane, key FROM dead WHERE subscription = ?1 AND holds AND {dead_filter}
    )
) AND (key = '' OR NOT holds OR NOT EXISTS (
    SELECT 1 FROM dead AS again WHERE again.subscription = ?1 AND again.lane = dead.lane AND again.key = dead.key
    AND again.holds AND NOT again.due AND again.redrive = ?2 AND ?2 > 0 AND again.kind <> 3
)) ORDER BY place LIMIT ?3

-- name: redrive_dead
UPDATE dead SET due = 1, attempts = 0, redrives = redrives + 1, redrive = ?3 WHERE subscription = ?1 AND place = ?2

-- name: redrive_stands
SELECT coalesce(sum(NOT due AND kind <> 3), 0), coalesce(sum(due), 0) FROM dead WHERE subscription = ? AND redrive = ?

-- name: insert_note
INSERT INTO dead_note (subscription, place, deed, at_ms, who, reason, payload, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: note_columns
subscription, place, deed, at_ms, who, reason, payload, crc

-- name: notes_of
SELECT {note_columns} FROM dead_note WHERE subscription = ? AND place = ? ORDER BY number

-- name: last_edit
SELECT {note_columns} FROM dead_note WHERE subscription = ? AND place = ? AND deed = 1 ORDER BY number DESC LIMIT 1

-- name: all_notes
SELECT {note_columns} FROM dead_note NOT INDEXED

-- name: discarded
SELECT DISTINCT place FROM dead_note WHERE subscription = ? AND deed = 3 ORDER BY place

-- name: bump_edition
UPDATE subscription SET edition = edition + 1 WHERE number = ? RETURNING edition

-- name: standings
SELECT number, edition, status, status_at_ms, reason FROM subscription

-- name: change_standing
UPDATE subscription SET status = ?2, status_at_ms = ?3, reason = ?4, edition = edition + 1
WHERE number = ?1 AND status IN (SELECT value FROM json_each(?5)) RETURNING edition

-- Lanes whose workers died

-- name: lanes_with_watch
SELECT lane.lane, lane.watch, lease.crashed, stream.last
FROM lane JOIN subscription ON subscription.number = lane.subscription JOIN stream ON stream.number = subscription.stream
LEFT JOIN lease ON lease.number = lane.lease
WHERE lane.subscription = ?1 AND lane.lane IN ({lanes_to_take}) AND (lease.crashed OR lane.watch IS NOT NULL)

-- name: set_watch
UPDATE lane SET watch = ?1 WHERE subscription = ?2 AND lane = ?3

-- name: mark_watch
UPDATE lane SET watch = ?1 WHERE subscription = ?2 AND lane = ?3 AND lease = ?4
