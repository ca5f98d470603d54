-- The statements of moving to another store, and from one; they may use the blocks of statements.sql.

-- name: move_mark
SELECT stage, move, turn, other, at_ms FROM {s}.move_mark

-- name: insert_move_mark
INSERT INTO {s}.move_mark (one, stage, move, turn, other, at_ms) VALUES (true, $1, $2, $3, $4, $5)

-- name: remove_move_mark
DELETE FROM {s}.move_mark

-- name: free_all_runs
UPDATE {s}.run SET lease = 0, crashes = run.crashes + (run.status = 1 AND EXISTS (
    SELECT 1 FROM {s}.lease
    WHERE lease.number = run.lease AND lease.crashed AND run.wake_at_ms <= lease.until_ms - lease.ttl_ms
))::int
WHERE run.status <= 2 AND run.lease <> 0

-- name: any_lease
SELECT EXISTS (SELECT 1 FROM {s}.lease WHERE held)

-- name: any_arrived
SELECT EXISTS (SELECT 1 FROM {s}.run) OR EXISTS (SELECT 1 FROM {s}.reply) OR EXISTS (SELECT 1 FROM {s}.stream)
    OR EXISTS (SELECT 1 FROM {s}.schema)


-- What is read. A row counts for 100 bytes, and its payload.

-- name: payload_bytes
100 + coalesce(octet_length(payload), 0)

-- name: moving_runs
SELECT number, (100 + octet_length(input) + coalesce(octet_length(output), 0)
    + coalesce((SELECT sum({payload_bytes}) FROM {s}.record WHERE record.run = run.number), 0)
    + coalesce((SELECT sum({payload_bytes}) FROM {s}.message WHERE message.run = run.number), 0)
    + coalesce((SELECT sum({payload_bytes}) FROM {s}.state WHERE state.run = run.number), 0)
    + coalesce((
        SELECT sum(100 + coalesce(octet_length(failure), 0) + coalesce(octet_length(details), 0))
        FROM {s}.attempt WHERE attempt.run = run.number
    ), 0)
    + coalesce((SELECT sum(100 + octet_length(arguments)) FROM {s}.job WHERE job.run = run.number), 0))::int8
FROM {s}.run WHERE number > $1 ORDER BY number LIMIT $2

-- name: older_of
SELECT number FROM {s}.run WHERE number = ANY ($1::int8[]) AND NOT latest

-- name: states_of
SELECT {state_columns} FROM {s}.state WHERE run = ANY ($1::int8[]) ORDER BY run, name

-- name: requests_of
SELECT run, request FROM {s}.request WHERE run = ANY ($1::int8[]) ORDER BY run, request

-- name: moving_replies
SELECT request, {payload_bytes} FROM {s}.reply WHERE request > $1 ORDER BY request LIMIT $2

-- name: replies_of
SELECT request, ok, payload, at_ms FROM {s}.reply WHERE request = ANY ($1::text[]) ORDER BY request

-- name: last_run
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {s}.run_number


-- What is written

-- name: insert_whole_runs
INSERT INTO {s}.run (
    number, id, generation, workflow, status, input, output, seed, wake_at_ms, crashes, deadline_ms, parent,
    parent_key, on_parent_close, created_at_ms, ended_at_ms, python, lease, latest
)
SELECT number, id, generation, workflow, status, input, output, seed, wake_at_ms, crashes, deadline_ms, parent,
    parent_key, on_parent_close, created_at_ms, ended_at_ms, python, lease, latest <> 0
FROM unnest(
    $1::int8[], $2::text[], $3::int8[], $4::text[], $5::int8[], $6::bytea[], $7::bytea[], $8::bytea[], $9::int8[],
    $10::int8[], $11::int8[], $12::int8[], $13::text[], $14::text[], $15::int8[], $16::int8[], $17::text[],
    $18::int8[], $19::int8[]
) AS given (
    number, id, generation, workflow, status, input, output, seed, wake_at_ms, crashes, deadline_ms, parent,
    parent_key, on_parent_close, created_at_ms, ended_at_ms, python, lease, latest
)

-- Their positions lie below those of all transactions to come.
-- name: insert_any_messages
INSERT INTO {s}.message (pos, run, kind, name, payload, request, at_ms)
SELECT (SELECT coalesce(max(pos), 0) FROM {s}.message) + given.n, given.run, given.kind, given.name, given.payload,
    given.request, given.at_ms
FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::bytea[], $6::text[], $7::int8[])
    AS given (n, run, kind, name, payload, request, at_ms)

-- name: insert_any_requests
INSERT INTO {s}.request (run, request) SELECT * FROM unnest($1::int8[], $2::text[])

-- name: raise_last_run
SELECT setval('{s}.run_number', $1) WHERE $1 > ({last_run})

-- name: remove_all_run
DELETE FROM {s}.run

-- name: remove_all_record
DELETE FROM {s}.record

-- name: remove_all_state
DELETE FROM {s}.state

-- name: remove_all_attempt
DELETE FROM {s}.attempt

-- name: remove_all_message
DELETE FROM {s}.message

-- name: remove_all_request
DELETE FROM {s}.request

-- name: remove_all_tag
DELETE FROM {s}.tag

-- name: remove_all_reply
DELETE FROM {s}.reply
