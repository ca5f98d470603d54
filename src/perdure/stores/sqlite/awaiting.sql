-- Every statement about runs that wait for events. The form is that of `statements.sql`.

-- name: correlations_of
SELECT number, type, fields FROM correlation WHERE stream = ? AND entered IS NULL

-- name: correlation_of
SELECT number, entered FROM correlation WHERE stream = ? AND type = ? AND fields = ?

-- name: insert_correlation
INSERT INTO correlation (number, stream, type, fields, entered)
SELECT coalesce(max(number), 0) + 1, ?, ?, ?, 0 FROM correlation RETURNING number

-- name: enter_correlation
UPDATE correlation SET entered = ?2 WHERE number = ?1

-- name: enter_event
INSERT INTO correlated (pos, correlation, value) VALUES (?, ?, ?)

-- name: waiting_for
SELECT run, signal FROM awaiting WHERE correlation = ? AND value = ? AND wanted > 0

-- name: give_awaited
UPDATE awaiting SET after = ?4, wanted = wanted - 1 WHERE run = ?1 AND correlation = ?2 AND value = ?3

-- name: number_of_run
SELECT number, generation FROM run WHERE id = ? AND latest

-- name: after_of_run
SELECT after FROM awaiting WHERE run = ? AND correlation = ? AND value = ?

-- What was given to the generations that ?2 continues, in an unbroken line.
-- name: after_of_generations
SELECT awaiting.after FROM run CROSS JOIN awaiting
WHERE run.id = ?1 AND NOT run.latest AND run.generation < ?2 AND run.generation > coalesce((
    SELECT max(other.generation) FROM run AS other
    WHERE other.id = ?1 AND NOT other.latest AND other.generation < ?2 AND other.status <> 8
), 0)
AND awaiting.run = run.number AND awaiting.correlation = ?3 AND awaiting.value = ?4
ORDER BY run.generation DESC LIMIT 1

-- name: insert_awaiting
INSERT INTO awaiting (run, correlation, value, signal, after, wanted) VALUES (?, ?, ?, ?, ?, 0)

-- name: next_correlated
SELECT pos FROM correlated WHERE correlation = ? AND value = ? AND pos > ? ORDER BY pos LIMIT 1

-- name: take_awaited
UPDATE awaiting SET after = ?4 WHERE run = ?1 AND correlation = ?2 AND value = ?3

-- name: want_awaited
UPDATE awaiting SET wanted = wanted + 1 WHERE run = ? AND correlation = ? AND value = ?

-- name: want_no_more
UPDATE awaiting SET wanted = 0 WHERE run = ?

-- name: event_at
SELECT {event_columns} FROM event WHERE pos = ?

-- name: any_awaiting
SELECT 1 FROM awaiting LIMIT 1

-- name: remove_awaiting
DELETE FROM awaiting WHERE run = ?
