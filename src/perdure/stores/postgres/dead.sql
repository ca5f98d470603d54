-- The statements of dead letters, and of lanes whose workers died; they may use the blocks of statements.sql.

-- Whoever puts an event in line shares this lock, and a person who changes what holds a key has it alone, by writing
-- the edition: so what one sees when it writes still holds when it commits.
-- name: share_editions
SELECT 1 FROM {s}.subscription WHERE number = ANY ($1::int8[]) FOR SHARE

-- name: bump_edition
UPDATE {s}.subscription SET edition = edition + 1 WHERE number = $1 RETURNING edition

-- Not those of lanes whose marks were refused: the generation is that of the mark, which may have given the lane up.
-- name: given_dead
(
    SELECT * FROM unnest(
        $1::int8[], $2::int8[], $3::int8[], $4::text[], $5::int8[], $6::int8[], $7::bytea[], $8::int8[], $9::int8[],
        $10::int8[]
    ) AS one (subscription, pos, lane, key, kind, attempts, failure, at_ms, holds, generation)
    WHERE one.generation IS NULL OR EXISTS (
        SELECT 1 FROM {s}.lane WHERE lane.subscription = one.subscription AND lane.lane = one.lane
        AND lane.generation = one.generation AND lane.lease IN (0, $11)
    )
) AS given

-- name: insert_dead
INSERT INTO {s}.dead (subscription, pos, lane, key, kind, attempts, failure, at_ms, holds, due)
SELECT given.subscription, given.pos, given.lane, given.key, given.kind, given.attempts, given.failure, given.at_ms,
    given.holds <> 0, false FROM {given_dead}
ON CONFLICT (subscription, pos) DO UPDATE SET kind = excluded.kind, attempts = excluded.attempts,
    failure = excluded.failure, at_ms = excluded.at_ms, holds = excluded.holds, due = false

-- name: halt_keys
UPDATE {s}.dead SET due = false, kind = 3, holds = true, at_ms = given.at_ms FROM {given_dead}
WHERE given.holds <> 0 AND dead.subscription = given.subscription AND dead.lane = given.lane
AND dead.key = given.key AND dead.pos > given.pos AND dead.due

-- Those that wait behind others: parked if one of these is, and due otherwise.
-- name: insert_behind
INSERT INTO {s}.dead (subscription, pos, lane, key, kind, attempts, failure, at_ms, holds, due)
SELECT given.subscription, given.pos, given.lane, given.key, given.kind, given.attempts, given.failure, given.at_ms,
    given.holds <> 0, NOT EXISTS (
        SELECT 1 FROM {s}.dead AS before WHERE before.subscription = given.subscription
        AND before.lane = given.lane AND before.key = given.key AND before.holds AND NOT before.due
    ) FROM {given_dead}
ON CONFLICT (subscription, pos) DO NOTHING

-- name: clear_dead
DELETE FROM {s}.dead USING unnest($1::int8[], $2::int8[]) AS given (subscription, pos)
WHERE dead.subscription = given.subscription AND dead.pos = given.pos

-- name: dead_filter
($4::int8[] IS NULL OR pos = ANY ($4::int8[])) AND ($5::text IS NULL OR key = $5::text) AND ($6::int8 IS NULL OR kind = $6::int8)

-- name: dead_events
SELECT subscription, pos, lane, key, kind, attempts, failure, at_ms, holds::int, due::int, redrives FROM {s}.dead
WHERE subscription = $1 AND pos > $2 AND NOT due AND {dead_filter} ORDER BY pos LIMIT $3

-- name: dead_counts
SELECT CASE WHEN due THEN 0 ELSE kind END, count(*) FROM {s}.dead WHERE subscription = $1 GROUP BY 1

-- name: dead_keys
SELECT DISTINCT subscription, lane, key FROM {s}.dead
WHERE subscription = ANY ($1::int8[]) AND key <> '' AND (holds OR due)

-- name: held_keys
SELECT lane, key, bool_or(due) FROM {s}.dead WHERE subscription = $1 AND (due OR holds AND key <> '') GROUP BY lane, key

-- name: due_events
SELECT dead.pos, event.id, event.source, event.type, event.version, event.key, event.time_ms, event.at_ms, event.trace,
    coalesce((
        SELECT payload FROM {s}.dead_note AS note
        WHERE note.subscription = $1 AND note.pos = dead.pos AND note.deed = 1 ORDER BY note.number DESC LIMIT 1
    ), event.payload)
FROM {s}.dead LEFT JOIN {s}.event
    ON event.stream = (SELECT stream FROM {s}.subscription WHERE number = $1) AND event.pos = dead.pos
WHERE dead.subscription = $1 AND dead.lane = $2 AND dead.key = $3 AND dead.due AND dead.pos < coalesce((
    SELECT min(pos) FROM {s}.dead AS before WHERE before.subscription = $1 AND before.lane = $2 AND before.key = $3
    AND before.holds AND NOT before.due
), 9223372036854775807) ORDER BY dead.pos LIMIT $4

-- name: waits_due
SELECT 1 FROM {s}.dead WHERE subscription = $1 AND pos = $2 AND due

-- name: holding
SELECT EXISTS (SELECT 1 FROM {s}.dead WHERE subscription = $1 AND lane = $2 AND key = $3 AND (holds OR due))

-- name: event_at
SELECT pos, id, source, type, version, key, time_ms, at_ms, trace, payload FROM {s}.event
WHERE stream = (SELECT stream FROM {s}.subscription WHERE number = $1) AND pos = $2

-- What was meant and was not handed over by this redrive yet, without keys that failed in it. A key that holds is
-- meant whole where one of its events is.
-- name: redrivable
SELECT pos FROM {s}.dead WHERE subscription = $1 AND NOT due AND redrive <> $2 AND (
    {dead_filter} OR holds AND key <> '' AND (lane, key) IN (
        SELECT lane, key FROM {s}.dead WHERE subscription = $1 AND holds AND {dead_filter}
    )
) AND (key = '' OR NOT holds OR NOT EXISTS (
    SELECT 1 FROM {s}.dead AS again WHERE again.subscription = $1 AND again.lane = dead.lane AND again.key = dead.key
    AND again.holds AND NOT again.due AND again.redrive = $2 AND $2 > 0 AND again.kind <> 3
)) ORDER BY pos LIMIT $3

-- name: redrive_dead
UPDATE {s}.dead SET due = true, attempts = 0, redrives = redrives + 1, redrive = $3
WHERE subscription = $1 AND pos = ANY ($2::int8[])

-- name: redrive_stands
SELECT count(*) FILTER (WHERE NOT due AND kind <> 3), count(*) FILTER (WHERE due) FROM {s}.dead
WHERE subscription = $1 AND redrive = $2

-- name: insert_notes
INSERT INTO {s}.dead_note (subscription, pos, deed, at_ms, who, reason, payload)
SELECT $1, given.pos, $3, $4, $5, $6, $7 FROM unnest($2::int8[]) AS given (pos)

-- name: notes_of
SELECT pos, deed, at_ms, who, reason, payload FROM {s}.dead_note WHERE subscription = $1 AND pos = $2 ORDER BY number

-- name: discarded
SELECT DISTINCT pos FROM {s}.dead_note WHERE subscription = $1 AND deed = 3 ORDER BY pos

-- name: standings
SELECT number, edition, status, status_at_ms, reason FROM {s}.subscription

-- name: change_standing
UPDATE {s}.subscription SET status = $2, status_at_ms = $3, reason = $4, edition = edition + 1
WHERE number = $1 AND status = ANY ($5::int8[]) RETURNING edition

-- name: lanes_of
SELECT subscription, lane, cursor, done FROM {s}.lane WHERE subscription = $1 ORDER BY lane

-- name: last_events
SELECT number, coalesce((SELECT max(pos) FROM {s}.event WHERE event.stream = subscription.stream), 0)
FROM {s}.subscription WHERE number = ANY ($1::int8[])

-- name: mark_watches
UPDATE {s}.lane SET watch = given.watch FROM unnest($1::text[], $2::int8[], $3::int8[]) AS given (watch, subscription, lane)
WHERE lane.subscription = given.subscription AND lane.lane = given.lane AND lane.lease = $4
