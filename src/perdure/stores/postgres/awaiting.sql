-- The statements about runs that wait for events; they may use the blocks of statements.sql and streams.sql.

-- name: insert_correlation
INSERT INTO {s}.correlation (number, stream, type, fields, entered) SELECT $1, $2, $3, $4, 0
WHERE NOT EXISTS (SELECT 1 FROM {s}.move_mark WHERE stage <> 'arrived')
ON CONFLICT DO NOTHING

-- name: correlation_of
SELECT stream, type, fields FROM {s}.correlation WHERE number = $1

-- name: ask_for_event
INSERT INTO {s}.asking (correlation, run, value, signal)
SELECT $1, run.number, $3, $4 FROM {s}.run WHERE run.id = $2 AND run.latest

-- Not EXISTS: that may be made one look at the whole table.
-- name: is_asked
(SELECT true FROM {s}.asking WHERE asking.correlation = correlation.number LIMIT 1) IS NOT NULL

-- name: has_more_events
EXISTS (SELECT 1 FROM {s}.event WHERE event.stream = correlation.stream AND event.pos > correlation.entered)

-- name: correlations
SELECT number, stream, type, fields, entered, {is_asked}, {has_more_events} FROM {s}.correlation ORDER BY number

-- Those that are settled, in the snapshot in which they are found.
-- name: events_to_enter
SELECT pos, CASE WHEN type = $3 THEN payload END FROM {s}.event
WHERE stream = $1 AND pos > $2 AND pos <= ({stream_horizon}) ORDER BY pos LIMIT $4

-- Who has one gives events to all that wait by it; another passes it over.
-- name: lock_correlations
SELECT number, entered FROM {s}.correlation WHERE number = ANY ($1::int8[]) ORDER BY number FOR UPDATE SKIP LOCKED

-- name: enter_events
INSERT INTO {s}.correlated (correlation, value, pos) SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[])

-- name: move_correlations
UPDATE {s}.correlation SET entered = given.entered FROM unnest($1::int8[], $2::int8[]) AS given (number, entered)
WHERE correlation.number = given.number

-- name: take_asking
WITH taken AS (
    SELECT asking.correlation, asking.number FROM {s}.asking WHERE asking.correlation = ANY ($1::int8[])
    ORDER BY asking.correlation, asking.number LIMIT $2
)
DELETE FROM {s}.asking USING taken
WHERE asking.correlation = taken.correlation AND asking.number = taken.number
RETURNING asking.run, asking.correlation, asking.value, asking.signal

-- One that continues others is not given again what they were.
-- name: given_before
(
    SELECT former.after FROM {s}.run
    JOIN {s}.run AS older ON older.id = run.id AND older.generation < run.generation AND NOT older.latest
    JOIN {s}.awaiting AS former ON former.run = older.number
        AND former.correlation = given.correlation AND former.value = given.value
    WHERE run.number = given.run AND older.generation > coalesce((
        SELECT max(other.generation) FROM {s}.run AS other WHERE other.id = run.id AND NOT other.latest
        AND other.generation < run.generation AND other.status <> 8
    ), 0)
    ORDER BY older.generation DESC LIMIT 1
)

-- name: want_events
INSERT INTO {s}.awaiting (run, correlation, value, signal, after, wanted)
SELECT given.run, given.correlation, given.value, given.signal, coalesce({given_before}, 0), given.wanted
FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::int8[])
    AS given (run, correlation, value, signal, wanted)
WHERE EXISTS (SELECT 1 FROM {s}.run WHERE run.number = given.run)
ON CONFLICT (run, correlation, value) DO UPDATE SET wanted = awaiting.wanted + excluded.wanted

-- Events for runs that wait for those of $1 and $2, which were just entered, and for runs that have just asked.
-- name: events_to_give
SELECT waiting.run, waiting.correlation, waiting.value, waiting.signal, found.*
FROM (
    SELECT awaiting.* FROM unnest($1::int8[], $2::text[]) AS entered (correlation, value)
    JOIN {s}.awaiting ON awaiting.correlation = entered.correlation AND awaiting.value = entered.value
        AND awaiting.wanted > 0
    UNION
    SELECT awaiting.* FROM unnest($3::int8[], $4::int8[], $5::text[]) AS asked (run, correlation, value)
    JOIN {s}.awaiting ON awaiting.run = asked.run AND awaiting.correlation = asked.correlation
        AND awaiting.value = asked.value
    WHERE awaiting.wanted > 0
) AS waiting
CROSS JOIN LATERAL (SELECT 1 FROM {s}.run WHERE run.number = waiting.run AND run.status <= 2 OFFSET 0) AS open
CROSS JOIN LATERAL (
    SELECT event.pos, event.id, event.source, event.type, event.version, event.key, event.time_ms, event.at_ms,
        event.trace, event.payload
    FROM {s}.correlated JOIN {s}.event ON event.pos = correlated.pos
        AND event.stream = (SELECT stream FROM {s}.correlation WHERE number = waiting.correlation)
    WHERE correlated.correlation = waiting.correlation AND correlated.value = waiting.value
    AND correlated.pos > waiting.after
    ORDER BY correlated.pos LIMIT waiting.wanted
) AS found
ORDER BY waiting.run, found.pos LIMIT $6

-- name: give_awaited
UPDATE {s}.awaiting SET after = given.after, wanted = awaiting.wanted - given.given
FROM unnest($1::int8[], $2::int8[], $3::text[], $4::int8[], $5::int8[]) AS given (run, correlation, value, after, given)
WHERE awaiting.run = given.run AND awaiting.correlation = given.correlation AND awaiting.value = given.value
