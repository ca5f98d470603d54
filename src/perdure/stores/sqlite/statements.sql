-- Every statement of the SQLite store. A block begins with its name; `{other}`
-- stands for another block. Tables are in migrations/.

-- name: run_columns
run.number, run.id, run.generation, run.workflow, run.status, run.input, run.output, run.seed,
run.wake_at_ms, run.crashes, run.deadline_ms, run.parent, run.parent_key, run.on_parent_close,
run.created_at_ms, run.ended_at_ms, run.python, run.lease, run.length, run.start_crc, run.end_crc

-- name: record_columns
record.seq, record.kind, record.key, record.digest, record.at_ms, record.payload, record.run, record.crc

-- name: message_columns
pos, run, kind, name, payload, request, at_ms, crc

-- name: state_columns
run, name, version, payload, at_ms, crc

-- name: attempt_columns
run, key, number, failure, details, at_ms, crc

-- name: reply_columns
request, ok, payload, at_ms, crc


-- Leases

-- name: fence
SELECT 1 FROM lease WHERE number = ? AND held

-- name: lease_columns
number, worker, pid, slot, locked, since_ms, until_ms, tags

-- name: held_leases
SELECT {lease_columns} FROM lease WHERE held ORDER BY number

-- name: ended_leases
SELECT number FROM lease WHERE NOT held ORDER BY number

-- name: lease_by_number
SELECT {lease_columns} FROM lease WHERE number = ?

-- name: insert_lease
INSERT INTO lease (number, held, worker, pid, slot, locked, since_ms, until_ms, ttl_ms, tags)
VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?6 + ?7, ?7, ?8)

-- name: end_lease
UPDATE lease SET held = 0, crashed = 1 WHERE number = ? AND held

-- name: renew_lease
UPDATE lease SET until_ms = max(until_ms, ?2), locked = ?3 WHERE number = ?1 AND held

-- name: release_lease
UPDATE lease SET held = 0 WHERE number = ? AND held

-- name: remove_leases
DELETE FROM lease WHERE NOT held
AND NOT EXISTS (SELECT 1 FROM run WHERE status = 1 AND run.lease = lease.number)
AND lease.number NOT IN (SELECT run.lease FROM run WHERE status = 2)
AND lease.number NOT IN (SELECT job.lease FROM job)
AND lease.number NOT IN (SELECT lane.lease FROM lane)


-- Claims: of runs that belong to no lease that is held

-- name: free_due
SELECT wake_at_ms, number FROM run
WHERE status = 1 AND lease = ?1 AND wake_at_ms <= ?2 AND workflow IN (SELECT value FROM json_each(?3))
ORDER BY wake_at_ms, number LIMIT ?4

-- name: free_with_messages
SELECT DISTINCT run.number {with_messages}
AND run.lease NOT IN (SELECT number FROM lease WHERE held)
AND run.workflow IN (SELECT value FROM json_each(?1)) ORDER BY run.number LIMIT ?2

-- A parked run can take an update, a cancel, a terminate and a resume. What was sent to one that has ended
-- meanwhile, and was not taken, is refused by a worker; or, if it continued as new, handed on.
-- name: with_messages
FROM message CROSS JOIN run ON run.number = message.run
WHERE (
    run.status = 1 OR run.status = 2 AND message.kind IN (3, 4, 5, 6) OR run.status > 2
)

-- name: last_message
SELECT last FROM counter WHERE name = 'message'

-- name: free_of_these
SELECT run.number FROM json_each(?) CROSS JOIN run ON run.number = json_each.value
WHERE run.status <= 2 AND run.lease NOT IN (SELECT number FROM lease WHERE held)

-- name: free_workflows
SELECT DISTINCT workflow FROM run WHERE status = 1 AND lease = ?1 AND wake_at_ms <= ?2

-- name: sent_workflows
SELECT DISTINCT run.workflow {with_messages}
AND run.lease NOT IN (SELECT number FROM lease WHERE held AND number NOT IN (SELECT value FROM json_each(?)))

-- What a run's own row says decides: an index that a disk has changed would give it again and again.
-- name: claim_run
UPDATE run SET lease = ?1, crashes = crashes + coalesce(
    status = 1 AND wake_at_ms <= (SELECT until_ms - ttl_ms FROM lease WHERE lease.number = run.lease AND crashed), 0
)
WHERE number = ?2 AND lease NOT IN (SELECT number FROM lease WHERE held) RETURNING number

-- name: free_run
UPDATE run SET lease = 0 WHERE number = ? AND status <= 2


-- Numbers

-- name: reserve_numbers
UPDATE counter SET last = last + ?2 WHERE name = ?1 RETURNING last - ?2 + 1


-- Starts

-- name: insert_first_run
INSERT INTO run (
    number, id, generation, latest, workflow, status, wake_at_ms, crashes,
    deadline_ms, parent, parent_key, on_parent_close, created_at_ms, python, seed, input, start_crc, lease
)
VALUES (?, ?, 1, 1, ?, 1, 0, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING

-- name: insert_next_run
INSERT INTO run (
    number, id, generation, latest, workflow, status, wake_at_ms, crashes,
    deadline_ms, parent, parent_key, on_parent_close, created_at_ms, python, seed, input, start_crc, lease
)
VALUES (?1, ?2, ?12, 1, ?3, 1, 0, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?13, ?14)

-- name: runs_between
SELECT number FROM run WHERE number BETWEEN ? AND ?

-- name: mark_older
UPDATE run SET latest = 0 WHERE number = ?

-- name: insert_tag
INSERT INTO tag (run, key, value) VALUES (?, ?, ?)


-- The other fields of a batch

-- name: insert_record
INSERT INTO record (seq, kind, key, digest, at_ms, payload, run, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: has_record
SELECT 1 FROM record WHERE run = ? AND seq = ?

-- name: forget_records
DELETE FROM record WHERE run = ? AND seq >= ?

-- name: forget_length
UPDATE run SET length = NULL WHERE number = ?

-- name: end_run
UPDATE run
SET status = ?1, output = ?2, ended_at_ms = ?3, wake_at_ms = ?4, end_crc = ?6, crashes = crashes * (?1 <> 1),
    lease = CASE ?1 WHEN 1 THEN ?7 WHEN 2 THEN 0 ELSE lease END
WHERE number = ?5 AND status <= 2

-- name: wake_run
UPDATE run SET wake_at_ms = ?1, crashes = ?2, length = (SELECT max(seq) + 1 FROM record WHERE run = ?3)
WHERE number = ?3 AND status = 1

-- name: upsert_state
INSERT INTO state (run, name, version, payload, at_ms, crc) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (run, name) DO UPDATE
SET version = excluded.version, payload = excluded.payload, at_ms = excluded.at_ms, crc = excluded.crc
WHERE excluded.version > state.version

-- name: upsert_attempt
INSERT INTO attempt (run, key, number, failure, details, at_ms, crc) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run, key, number) DO UPDATE
SET failure = excluded.failure, details = excluded.details, at_ms = excluded.at_ms, crc = excluded.crc

-- name: insert_request
INSERT INTO request (run, request)
SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM run WHERE number = ?1 AND status <= 2)
ON CONFLICT DO NOTHING

-- name: has_request
SELECT 1 FROM request WHERE run = ? AND request = ?

-- name: had_request
WITH RECURSIVE earlier (number, id, generation) AS (
    SELECT number, id, generation FROM run WHERE number = ?1
    UNION ALL
    SELECT run.number, run.id, run.generation FROM earlier JOIN run
    ON run.id = earlier.id AND run.generation = earlier.generation - 1
    WHERE NOT run.latest AND run.status = 8
)
SELECT 1 FROM earlier CROSS JOIN request ON request.run = earlier.number WHERE request.request = ?2

-- name: insert_message
INSERT INTO message (pos, run, kind, name, payload, request, at_ms, crc)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM run WHERE number = ?2 AND status <= 2)

-- name: take_message
DELETE FROM message WHERE pos = ?

-- name: insert_reply
INSERT INTO reply (request, ok, payload, at_ms, crc) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING


-- Blobs

-- name: use_blob
UPDATE blob SET uses = uses + 1 WHERE digest = ? RETURNING number

-- name: insert_blob
INSERT INTO blob (digest, size, uses) VALUES (?, ?, 1) RETURNING number

-- name: insert_chunk
INSERT INTO blob_chunk (blob, part, bytes) VALUES (?, ?, ?)

-- name: drop_blob_use
UPDATE blob SET uses = uses - 1 WHERE number = ?

-- name: blob_chunks
SELECT bytes FROM blob_chunk WHERE blob = ? ORDER BY part

-- name: blob_digest
SELECT digest FROM blob WHERE number = ?


-- Reads

-- name: latest_run
SELECT {run_columns} FROM run WHERE id = ? AND latest

-- name: run_of_generation
SELECT {run_columns} FROM run WHERE id = ?1 AND generation = ?2 AND latest
UNION ALL
SELECT {run_columns} FROM run WHERE id = ?1 AND generation = ?2 AND NOT latest

-- name: run_by_number
SELECT {run_columns} FROM run WHERE number = ?

-- name: stopped_runs
SELECT {run_columns} FROM run WHERE number IN (SELECT value FROM json_each(?)) AND status <> 1

-- name: missing_runs
SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM run WHERE number = value)

-- name: records
SELECT {record_columns} FROM record WHERE run = ? ORDER BY seq

-- name: length
SELECT length FROM run WHERE number = ?

-- name: loaded_runs
SELECT {run_columns} FROM run WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number

-- name: loaded_records
SELECT {record_columns} FROM record WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, seq

-- name: loaded_attempts
SELECT {attempt_columns} FROM attempt WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, key, number

-- name: loaded_messages
SELECT {message_columns} FROM message WHERE run IN (SELECT value FROM json_each(?)) ORDER BY pos

-- By number: an index would give another order, and would be sorted for each page.
-- name: open_runs
SELECT {run_columns} FROM run NOT INDEXED
WHERE status <= 2 AND number > ? ORDER BY number LIMIT ?

-- name: open_records
SELECT {record_columns}
FROM run NOT INDEXED CROSS JOIN record ON record.run = run.number
WHERE run.status <= 2 AND run.number BETWEEN ? AND ?
ORDER BY run.number, record.seq

-- name: parked_runs
SELECT {run_columns} FROM run WHERE status = 2 AND number > ? ORDER BY number LIMIT ?

-- name: sleeping_runs
SELECT wake_at_ms, number FROM run
WHERE status = 1 AND lease = ? AND wake_at_ms > 0 AND (wake_at_ms, number) > (?, ?) AND wake_at_ms <= ?
ORDER BY wake_at_ms, number LIMIT ?

-- name: messages
SELECT run.lease, {message_columns} FROM message LEFT JOIN run ON run.number = message.run
WHERE pos > ? ORDER BY pos LIMIT ?

-- name: messages_for
SELECT {message_columns} FROM message WHERE run = ? ORDER BY pos

-- name: list_runs
SELECT {run_columns} FROM run WHERE

-- name: list_tagged
number IN (SELECT run FROM tag WHERE key = ? AND value = ?)

-- name: tags_of
SELECT run, key, value FROM tag WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, key

-- name: states
SELECT {state_columns} FROM state WHERE run = ? ORDER BY name

-- name: attempts
SELECT {attempt_columns} FROM attempt WHERE run = ? ORDER BY key, number

-- name: attempted
SELECT DISTINCT run FROM attempt WHERE run > ? AND run <= ?

-- name: children
SELECT {run_columns} FROM run WHERE parent = ? AND latest ORDER BY number

-- name: reply
SELECT {reply_columns} FROM reply WHERE request = ?

-- name: counts
SELECT status, count(*) FROM run WHERE status = 1 GROUP BY status
UNION ALL
SELECT status, count(*) FROM run WHERE status = 2 GROUP BY status
UNION ALL
SELECT status, count(*) FROM run WHERE status > 2 AND latest GROUP BY status


-- Removal

-- name: ended_before
SELECT number FROM run WHERE status > 2 AND ended_at_ms < ? ORDER BY ended_at_ms, number LIMIT ?

-- name: remove_run
DELETE FROM run WHERE number = ?

-- name: remove_records
DELETE FROM record WHERE run = ?

-- name: remove_states
DELETE FROM state WHERE run = ?

-- name: remove_attempts
DELETE FROM attempt WHERE run = ?

-- name: remove_messages
DELETE FROM message WHERE run = ?

-- name: remove_requests
DELETE FROM request WHERE run = ?

-- name: remove_tags
DELETE FROM tag WHERE run = ?

-- name: remove_replies
DELETE FROM reply WHERE pos IN (SELECT pos FROM reply ORDER BY pos LIMIT ?2) AND at_ms < ?1


-- Checks: each gives one sentence a row, and no row when all is well

-- name: check_gaps
SELECT 'Run ' || run || ' has ' || count(*) || ' records, but they count from ' || min(seq) || ' to ' || max(seq)
    || ': some are missing.'
FROM record GROUP BY run HAVING min(seq) <> 0 OR max(seq) <> count(*) - 1

-- name: check_strays
SELECT 'There are rows of run ' || run || ' in table ' || place || ', but there is no such run.'
FROM (
    SELECT DISTINCT run, 'record' AS place FROM record
    UNION ALL SELECT DISTINCT run, 'state' FROM state
    UNION ALL SELECT DISTINCT run, 'attempt' FROM attempt
    UNION ALL SELECT DISTINCT run, 'message' FROM message
    UNION ALL SELECT DISTINCT run, 'job' FROM job
    UNION ALL SELECT DISTINCT run, 'request' FROM request
    UNION ALL SELECT DISTINCT run, 'tag' FROM tag
)
WHERE run NOT IN (SELECT number FROM run)

-- name: check_latest
SELECT 'Run ''' || id || ''' has ' || sum(latest) || ' latest generations; generation ' || max(generation)
    || ' should be the only one.'
FROM run GROUP BY id HAVING sum(latest) <> 1 OR max(generation) <> max(generation * latest)

-- name: check_ends
SELECT 'Run ''' || id || ''' (number ' || number || ') has status ' || status || ' and end time '
    || coalesce(ended_at_ms, 'none') || ', which do not go together.'
FROM run WHERE (status > 2) <> (ended_at_ms IS NOT NULL)

-- name: check_leases
SELECT 'Run ''' || id || ''' (number ' || number || ') belongs to lease ' || lease
    || ', of which nothing is known: no worker takes it up.'
FROM run WHERE status <= 2 AND lease <> 0 AND lease NOT IN (SELECT lease.number FROM lease)

-- name: blob_uses
SELECT input AS blob FROM run WHERE typeof(input) = 'integer'
UNION ALL SELECT output FROM run WHERE typeof(output) = 'integer'
UNION ALL SELECT payload FROM record WHERE typeof(payload) = 'integer'
UNION ALL SELECT payload FROM state WHERE typeof(payload) = 'integer'
UNION ALL SELECT failure FROM attempt WHERE typeof(failure) = 'integer'
UNION ALL SELECT details FROM attempt WHERE typeof(details) = 'integer'
UNION ALL SELECT arguments FROM job WHERE typeof(arguments) = 'integer'
UNION ALL SELECT payload FROM message WHERE typeof(payload) = 'integer'
UNION ALL SELECT payload FROM reply WHERE typeof(payload) = 'integer'
UNION ALL SELECT payload FROM event WHERE typeof(payload) = 'integer'
UNION ALL SELECT state FROM event_window WHERE typeof(state) = 'integer'

-- name: check_dangling
SELECT DISTINCT 'A payload refers to blob ' || blob || ', which is missing.'
FROM ({blob_uses}) WHERE blob NOT IN (SELECT number FROM blob)

-- name: check_uses
SELECT 'Blob ' || number || ' counts ' || uses || ' uses, but has ' || actual || '.'
FROM (SELECT number, uses, (SELECT count(*) FROM ({blob_uses}) WHERE blob = number) AS actual FROM blob)
WHERE uses <> actual

-- name: check_chunks
SELECT 'Blob ' || number || ' should have ' || size || ' bytes, but has ' || actual || '.'
FROM (
    SELECT number, size, (SELECT coalesce(sum(length(bytes)), 0) FROM blob_chunk WHERE blob = number) AS actual
    FROM blob
)
WHERE size <> actual


-- All rows that have checksums

-- name: all_runs
SELECT {run_columns} FROM run NOT INDEXED

-- name: all_record
SELECT {record_columns} FROM record NOT INDEXED

-- name: all_message
SELECT {message_columns} FROM message NOT INDEXED

-- name: all_state
SELECT {state_columns} FROM state NOT INDEXED

-- name: all_attempt
SELECT {attempt_columns} FROM attempt NOT INDEXED

-- name: all_reply
SELECT {reply_columns} FROM reply NOT INDEXED

-- name: all_blobs
SELECT number FROM blob
