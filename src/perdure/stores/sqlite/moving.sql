-- The statements of moving to another store, and from one; they may use the blocks of statements.sql.

-- name: move_mark
SELECT stage, move, turn, other, at_ms FROM move_mark

-- name: insert_move_mark
INSERT INTO move_mark (one, stage, move, turn, other, at_ms) VALUES (1, ?, ?, ?, ?, ?)

-- name: remove_move_mark
DELETE FROM move_mark

-- name: free_all_runs
UPDATE run SET crashes = crashes + coalesce(
    status = 1 AND wake_at_ms <= (SELECT until_ms - ttl_ms FROM lease WHERE lease.number = run.lease AND crashed), 0
), lease = 0
WHERE status <= 2 AND lease <> 0

-- name: any_arrived
SELECT EXISTS (SELECT 1 FROM run) OR EXISTS (SELECT 1 FROM reply) OR EXISTS (SELECT 1 FROM stream)
    OR EXISTS (SELECT 1 FROM schema)


-- What is read. A row counts for 100 bytes, and its payload.

-- name: payload_bytes
100 + CASE typeof(payload) WHEN 'integer' THEN (SELECT size FROM blob WHERE blob.number = payload)
    ELSE coalesce(octet_length(payload), 0) END

-- name: moving_runs
SELECT number, 100 + coalesce((SELECT sum(size) FROM blob WHERE number IN (run.input, run.output)), 0)
    + CASE typeof(input) WHEN 'integer' THEN 0 ELSE octet_length(input) END
    + CASE typeof(output) WHEN 'integer' THEN 0 ELSE coalesce(octet_length(output), 0) END
    + coalesce((SELECT sum({payload_bytes}) FROM record WHERE record.run = run.number), 0)
    + coalesce((SELECT sum({payload_bytes}) FROM message WHERE message.run = run.number), 0)
    + coalesce((SELECT sum({payload_bytes}) FROM state WHERE state.run = run.number), 0)
    + coalesce((SELECT sum({attempt_bytes}) FROM attempt WHERE attempt.run = run.number), 0)
    + coalesce((SELECT sum({job_bytes}) FROM job WHERE job.run = run.number), 0)
FROM run NOT INDEXED WHERE number > ? ORDER BY number LIMIT ?

-- name: attempt_bytes
100 + coalesce((SELECT sum(size) FROM blob WHERE blob.number IN (failure, details)), 0)
    + CASE typeof(failure) WHEN 'integer' THEN 0 ELSE coalesce(octet_length(failure), 0) END
    + CASE typeof(details) WHEN 'integer' THEN 0 ELSE coalesce(octet_length(details), 0) END

-- name: job_bytes
100 + CASE typeof(arguments) WHEN 'integer' THEN (SELECT size FROM blob WHERE blob.number = arguments)
    ELSE octet_length(arguments) END

-- name: older_of
SELECT number FROM run WHERE number IN (SELECT value FROM json_each(?)) AND NOT latest

-- name: states_of
SELECT {state_columns} FROM state WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, name

-- name: requests_of
SELECT run, request FROM request WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, request

-- name: moving_replies
SELECT request, {payload_bytes} FROM reply WHERE request > ? ORDER BY request LIMIT ?

-- name: replies_of
SELECT {reply_columns} FROM reply WHERE request IN (SELECT value FROM json_each(?)) ORDER BY request

-- name: last_run
SELECT last FROM counter WHERE name = 'run'


-- What is written

-- name: insert_whole_run
INSERT INTO run (
    number, id, generation, workflow, status, input, output, seed, wake_at_ms, crashes, deadline_ms, parent,
    parent_key, on_parent_close, created_at_ms, ended_at_ms, python, lease, latest, length, start_crc, end_crc
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_any_message
INSERT INTO message (pos, run, kind, name, payload, request, at_ms, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_any_request
INSERT INTO request (run, request) VALUES (?, ?)

-- name: raise_last_run
UPDATE counter SET last = max(last, ?) WHERE name = 'run'

-- name: remove_all_run
DELETE FROM run

-- name: remove_all_record
DELETE FROM record

-- name: remove_all_state
DELETE FROM state

-- name: remove_all_attempt
DELETE FROM attempt

-- name: remove_all_message
DELETE FROM message

-- name: remove_all_request
DELETE FROM request

-- name: remove_all_tag
DELETE FROM tag

-- name: remove_all_reply
DELETE FROM reply
