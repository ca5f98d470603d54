-- Every statement of the PostgreSQL store. A block begins with its name; `{other}` stands for
-- another block, and `{s}` for the store's schema. Tables are in migrations/.

-- name: run_columns
run.number, run.id, run.generation, run.workflow, run.status, run.input, run.output, run.seed,
run.wake_at_ms, run.crashes, run.deadline_ms, run.parent, run.parent_key, run.on_parent_close,
run.created_at_ms, run.ended_at_ms, run.python, run.lease

-- name: record_columns
record.seq, record.kind, record.key, record.digest, record.at_ms, record.payload, record.run

-- name: message_columns
message.pos, message.run, message.kind, message.name, message.payload, message.request, message.at_ms

-- name: state_columns
run, name, version, payload, at_ms

-- name: attempt_columns
run, key, number, failure, details, at_ms

-- Milliseconds by the server's clock; or, in tests, those that were given.
-- name: now
coalesce($1::int8, {server_ms})

-- name: server_ms
(extract(epoch FROM clock_timestamp()) * 1000)::int8

-- Transactions

-- name: server
SELECT pg_backend_pid(), pg_is_in_recovery(), backend_start::text, ({life})
FROM pg_stat_get_activity(pg_backend_pid())

-- Of this server, since it was started: a pooler may lead to another one from one transaction to the next.
-- name: life
SELECT pg_postmaster_start_time()::text

-- name: server_clock
SELECT {server_ms}

-- Each statement is for a few rows by an index. Tables that were empty when its plan was made must not lead to
-- one that reads them whole later. Without jit: what is forbidden counts as dear, and so would be compiled.
-- name: settings
SELECT set_config(name, value, $1) FROM (VALUES
    ('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END),
    ('default_transaction_isolation', 'read committed'), ('default_transaction_read_only', 'off'),
    ('idle_in_transaction_session_timeout', '5s'), ('lock_timeout', '10s'), ('jit', 'off'),
    ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')
) AS setting (name, value)

-- name: transaction
SELECT pg_current_xact_id()::text::int8, pg_backend_pid()

-- name: transaction_status
SELECT pg_xact_status($1::int8::text::xid8)

-- name: end_transaction
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND backend_xid::text::int8 = $1::int8 & 4294967295

-- name: end_session
SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity($1::int4) WHERE backend_start = $2::timestamptz

-- name: pause
SELECT pg_sleep($1::int8 / 1000.0)

-- name: tell
SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')

-- name: witness_record
SELECT 1 FROM {s}.record WHERE run = $1 AND seq = $2

-- Asked after a witness: a lease that has ended is never held again, so it was held then, too.
-- name: holds_lease
SELECT 1 FROM {s}.lease WHERE number = $1 AND held

-- For what leaves no other trace: one row for each process.
-- name: say
INSERT INTO {s}.said (process, token, said_at) VALUES ($1, $2, now())
ON CONFLICT (process) DO UPDATE SET token = excluded.token, said_at = excluded.said_at

-- name: witness_said
SELECT 1 FROM {s}.said WHERE process = $1 AND token >= $2

-- Later than a process can have been idle: it asks for its last token when its connection was cut.
-- name: forget_said
DELETE FROM {s}.said WHERE said_at < now() - interval '30 days'

-- name: witness_run
SELECT 1 FROM {s}.run WHERE number = $1 AND seed = $2

-- name: witness_request
SELECT 1 FROM {s}.request WHERE run = $1 AND request = $2

-- Leases. The lock of a lease, in the space $1: every commit shares it, who ends the lease has it alone.

-- name: share_lease
SELECT pg_advisory_xact_lock_shared($1::int4, $2::int4)

-- name: lock_lease
SELECT pg_advisory_xact_lock($1::int4, $2::int4)

-- name: try_lock_lease
SELECT pg_try_advisory_xact_lock($1::int4, $2::int4)

-- name: end_lease_users
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND classid = ($1::int8 & 4294967295)::oid AND objid = $2::int8::oid AND objsubid = 2

-- name: be_present
SELECT pg_try_advisory_lock($1::int4, $2::int4)

-- name: be_absent
SELECT pg_advisory_unlock($1::int4, $2::int4)

-- A statement of its own, after the lock: so it sees what was committed while it waited.
-- name: fence
SELECT pg_current_xact_id()::text::int8, pg_backend_pid(), (SELECT held FROM {s}.lease WHERE number = $1)

-- The same, where the whole transaction has been sent already: who does not hold the lease, or speaks to another
-- process of the server ($2) than was thought, divides by zero, which ends the transaction. So does who would not see
-- here what was committed during the wait, as a step may have changed a setting of the connection.
-- name: fence_or_fail
SELECT pg_current_xact_id()::text::int8, 1 / count(*) FROM {s}.lease
WHERE number = $1 AND held AND pg_backend_pid() = $2 AND current_setting('transaction_isolation') = 'read committed'

-- name: insert_lease
INSERT INTO {s}.lease (number, held, crashed, worker, process, since_ms, until_ms, ttl_ms, tags)
SELECT nextval('{s}.lease_number'), true, false, $2, $3, now, now + $4, $4, $5::text[] FROM (SELECT {now} AS now) AS clock
RETURNING number

-- name: note_presence
UPDATE {s}.lease SET present_since = pg_postmaster_start_time() WHERE number = $1 AND held

-- name: renew_lease
UPDATE {s}.lease SET until_ms = greatest(until_ms, coalesce($1::int8, {server_ms} + ttl_ms))
WHERE number = $2 AND held

-- name: release_lease
UPDATE {s}.lease SET held = false WHERE number = $1 AND held

-- name: remove_leases
DELETE FROM {s}.lease WHERE NOT held
AND NOT EXISTS (SELECT 1 FROM {s}.run WHERE status = 1 AND run.lease = lease.number)
AND NOT EXISTS (SELECT 1 FROM {s}.run WHERE status = 2 AND run.lease = lease.number)
AND NOT EXISTS (SELECT 1 FROM {s}.job WHERE job.lease = lease.number)
AND NOT EXISTS (SELECT 1 FROM {s}.lane WHERE lane.lease = lease.number)

-- Those that are held: whether their time is over, and whether nobody has the lock of presence which their
-- holder had. The lock that is tried is let go again with the statement's transaction.
-- name: held_leases
SELECT number, worker, process, since_ms, until_ms, until_ms <= {now} AS over,
    number <> $3 AND CASE WHEN present_since = pg_postmaster_start_time()
        THEN pg_try_advisory_xact_lock_shared($2::int4, number::int4) ELSE false END AS absent, tags
FROM {s}.lease WHERE held ORDER BY number

-- name: end_lease
UPDATE {s}.lease SET held = false, crashed = true WHERE number = $1 AND held

-- name: free_leases
SELECT 0::int8 AS number UNION ALL SELECT number FROM {s}.lease WHERE NOT held

-- Claims: of runs that belong to no lease that is held

-- What a glance finds: up to where messages are settled; the leases that are free; how many others are held; whether
-- one of them may be dead; whether free runs are due, or were sent something above $6; whether something above $7
-- was sent to runs of the lease $4. Whether one of the lanes of the subscriptions $9 is free, or the lease has
-- more than its share of those of $12, or one of its own was sent elsewhere, or one of $9 stands otherwise than in the
-- edition in $13; whether a stream of $10 goes on after its position in $11; whether there may be events for runs that
-- wait for them.
-- name: seen
{settled}, (SELECT string_agg(number::text, ' ' ORDER BY number) FROM {s}.lease WHERE NOT held),
    (SELECT count(*) FROM {s}.lease WHERE held AND number <> $4),
    EXISTS (SELECT 1 FROM {s}.lease WHERE held AND number <> $4 AND (until_ms <= coalesce($8::int8, {server_ms}) OR
        CASE WHEN present_since = pg_postmaster_start_time()
            THEN pg_try_advisory_xact_lock_shared($5::int4, number::int4) ELSE false END)),
    EXISTS ({free_due}),
    EXISTS (SELECT 1 {with_messages} AND {is_free} AND message.pos > $6 AND run.workflow = ANY ($2::text[])),
    EXISTS (
        SELECT 1 FROM {s}.message
        WHERE message.pos > $7 AND (SELECT run.lease FROM {s}.run WHERE run.number = message.run) = $4
    ),
    EXISTS (
        SELECT 1 FROM {s}.lane WHERE lane.subscription = ANY ($9::int8[])
        AND (lane.lease = $4 AND lane.taken <> lane.generation
            OR NOT EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = lane.lease AND lease.held))
    ) OR EXISTS (
        SELECT 1 FROM unnest($12::int8[]) AS shared (number) WHERE (
            SELECT count(*) FROM {s}.lane WHERE lane.subscription = shared.number AND lane.lease = $4
        ) > (
            SELECT (
                (SELECT lanes FROM {s}.subscription WHERE subscription.number = shared.number)
                + greatest(count(*), 1) - 1
            ) / greatest(count(*), 1)
            FROM {s}.serving
            WHERE serving.subscription = shared.number
            AND EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = serving.lease AND lease.held)
        )
    ) OR EXISTS (
        SELECT 1 FROM unnest($9::int8[], $13::int8[]) AS known (number, edition)
        JOIN {s}.subscription ON subscription.number = known.number WHERE subscription.edition <> known.edition
    ),
    EXISTS (
        SELECT 1 FROM unnest($10::int8[], $11::int8[]) AS reading (stream, pos) CROSS JOIN LATERAL (
            SELECT 1 FROM {s}.event WHERE event.stream = reading.stream AND event.pos > reading.pos LIMIT 1
        ) AS following
    ),
    EXISTS (SELECT 1 FROM {s}.correlation WHERE {is_asked} OR {has_more_events})

-- name: glance
SELECT (SELECT held FROM {s}.lease WHERE number = $4::int8), {seen}

-- name: glance_and_renew
WITH renewed AS (
    UPDATE {s}.lease SET until_ms = greatest(until_ms, coalesce($14::int8, {server_ms} + ttl_ms))
    WHERE number = $4::int8 AND held RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM renewed), {seen}

-- name: free_due
SELECT due.number, due.wake_at_ms FROM ({free_leases}) AS free CROSS JOIN LATERAL ({due_of_lease}) AS due
ORDER BY due.wake_at_ms, due.number LIMIT $3

-- Who claims at the same time passes these over, and takes the next.
-- name: lock_free_due
SELECT due.number, due.wake_at_ms
FROM ({free_leases}) AS free CROSS JOIN LATERAL ({due_of_lease} FOR UPDATE SKIP LOCKED) AS due
ORDER BY due.wake_at_ms, due.number LIMIT $3

-- name: due_of_lease
SELECT run.number, run.wake_at_ms FROM {s}.run
WHERE run.status = 1 AND run.lease = free.number AND run.wake_at_ms <= $1 AND run.workflow = ANY ($2::text[])
ORDER BY run.wake_at_ms, run.number LIMIT $3

-- name: free_with_messages
SELECT DISTINCT run.number {with_messages} AND {is_free}
AND message.pos > $1 AND run.workflow = ANY ($2::text[]) ORDER BY run.number LIMIT $3

-- OFFSET 0, here and below: first the messages, which are few, and then their runs. A plan that was made while
-- the tables were empty would go the other way about, for as long as the server keeps it.
-- A parked run can take an update, a cancel, a terminate and a resume. What was sent to one that has ended
-- meanwhile, and was not taken, is refused by a worker; or, if it continued as new, handed on.
-- name: with_messages
FROM {s}.message CROSS JOIN LATERAL (
    SELECT number, status, lease, workflow FROM {s}.run WHERE run.number = message.run OFFSET 0
) AS run
WHERE (
    run.status = 1 OR run.status = 2 AND message.kind IN (3, 4, 5, 6) OR run.status > 2
)

-- name: is_free
NOT EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = run.lease AND lease.held)

-- Those of leases that are still held, and are to be ended, are free here too.
-- name: free_workflows
SELECT due.workflow
FROM ({free_leases} UNION SELECT unnest($2::int8[])) AS free CROSS JOIN LATERAL (
    SELECT DISTINCT run.workflow FROM {s}.run
    WHERE run.status = 1 AND run.lease = free.number AND run.wake_at_ms <= $1
) AS due
UNION SELECT run.workflow {with_messages} AND (run.lease = ANY ($2::int8[]) OR {is_free})

-- Of two that claim the same at once, one has the row and the other passes it over: nobody waits.
-- Whether the run is free is asked of its row alone, and not by a join: a row that somebody else has changed
-- meanwhile is looked at again, but a row that was joined to it is not.
-- Those of a status up to $3. Of the lease of a run that has ended the row may have gone.
-- A crash is one of a run that was due when the lease of its dead worker was last renewed.
-- name: claim
WITH taken AS (
    SELECT run.number, run.lease FROM {s}.run
    WHERE run.number = ANY ($2::int8[]) AND run.status <= $3::int8 AND run.lease = ANY (ARRAY(
        {free_leases}
        UNION ALL SELECT run.lease FROM {s}.run WHERE run.number = ANY ($2::int8[]) AND run.status > 2 AND {is_free}
    ))
    FOR UPDATE SKIP LOCKED
)
UPDATE {s}.run SET lease = $1, crashes = run.crashes + (run.status = 1 AND EXISTS (
    SELECT 1 FROM {s}.lease
    WHERE lease.number = taken.lease AND lease.crashed AND run.wake_at_ms <= lease.until_ms - lease.ttl_ms
))::int
FROM taken WHERE run.number = taken.number
RETURNING run.number

-- name: free_runs
UPDATE {s}.run SET lease = 0 WHERE number = ANY ($1::int8[]) AND status <= 2

-- Starts. Numbers in the order of the batch; rows in the order of ids, so that two batches cannot
-- wait for each other.

-- name: given_starts
SELECT nextval('{s}.run_number') AS number, given.*
FROM unnest(
    $1::text[], $2::text[], $3::int8[], $4::int8[], $5::text[], $6::text[], $7::int8[], $8::text[],
    $9::bytea[], $10::bytea[]
) AS given (
    id, workflow, deadline_ms, parent, parent_key, on_parent_close, created_at_ms, python, seed, input
)

-- name: started_columns
number, id, generation, latest, workflow, status, lease, wake_at_ms, crashes, deadline_ms, parent, parent_key,
on_parent_close, created_at_ms, python, seed, input

-- name: insert_first_runs
WITH given AS MATERIALIZED ({given_starts})
INSERT INTO {s}.run ({started_columns})
SELECT number, id, 1, true, workflow, 1, $11, 0, 0, deadline_ms, parent, parent_key, on_parent_close,
    created_at_ms, python, seed, input
FROM given ORDER BY id, number
ON CONFLICT (id) WHERE latest DO NOTHING
RETURNING number, id

-- name: insert_continued_runs
WITH given AS MATERIALIZED ({given_starts})
INSERT INTO {s}.run ({started_columns})
SELECT number, id, coalesce((
        SELECT older.generation FROM {s}.run AS older
        WHERE older.id = given.id AND NOT older.latest ORDER BY older.generation DESC LIMIT 1
    ), 0) + 1,
    true, workflow, 1, $11, 0, 0, deadline_ms, parent, parent_key, on_parent_close, created_at_ms, python, seed, input
FROM given ORDER BY id, number
ON CONFLICT (id) WHERE latest DO NOTHING
RETURNING number, id, generation

-- name: leave_continued
UPDATE {s}.run SET latest = false WHERE id = ANY ($1::text[]) AND latest AND status = 8

-- name: mark_older
UPDATE {s}.run SET latest = false WHERE number = $1 AND latest

-- name: insert_tags
INSERT INTO {s}.tag (run, key, value) SELECT * FROM unnest($1::int8[], $2::text[], $3::text[])

-- name: latest_of_ids
SELECT {run_columns} FROM {s}.run WHERE id = ANY ($1::text[]) AND latest

-- Starts on a connection of the user's, in migrations/0003_start.sql

-- name: store_identity
SELECT {s}.store_identity()

-- name: start_once
SELECT outcome, mark, run_number, run_generation, run_workflow, run_status, first_input
FROM {s}.start_run_once(
    $1::text, $2::text, $3::text, $4::bytea, $5::bytea, $6::text::jsonb, $7::int8, $8::int8, $9::text
)

-- The other fields of a batch

-- name: insert_records
INSERT INTO {s}.record (seq, kind, key, digest, at_ms, payload, run)
SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::bytea[], $7::int8[])

-- name: forget_records
DELETE FROM {s}.record USING unnest($1::int8[], $2::int8[]) AS given (run, seq)
WHERE record.run = given.run AND record.seq >= given.seq

-- name: end_runs
UPDATE {s}.run SET status = given.status, output = given.output, ended_at_ms = given.ended_at_ms,
    wake_at_ms = given.wake_at_ms, crashes = CASE given.status WHEN 1 THEN 0 ELSE run.crashes END,
    lease = CASE given.status WHEN 1 THEN $6 WHEN 2 THEN 0 ELSE run.lease END
FROM unnest($1::int8[], $2::bytea[], $3::int8[], $4::int8[], $5::int8[])
    AS given (status, output, ended_at_ms, wake_at_ms, run)
WHERE run.number = given.run AND run.status <= 2

-- name: forget_attempts
DELETE FROM {s}.attempt WHERE run = ANY ($1::int8[])

-- `< 2` and not `= 1`: or else the index of those that are due, made for another question, would do too, and
-- while it is empty it is the cheapest.
-- name: wake_runs
UPDATE {s}.run SET wake_at_ms = given.wake_at_ms, crashes = given.crashes
FROM unnest($1::int8[], $2::int8[], $3::int8[]) AS given (wake_at_ms, crashes, run)
WHERE run.number = given.run AND run.status < 2

-- name: put_states
INSERT INTO {s}.state ({state_columns})
SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::bytea[], $5::int8[])
ON CONFLICT (run, name) DO UPDATE
SET version = excluded.version, payload = excluded.payload, at_ms = excluded.at_ms
WHERE excluded.version > state.version

-- name: put_attempts
INSERT INTO {s}.attempt ({attempt_columns})
SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::bytea[], $5::bytea[], $6::int8[])
ON CONFLICT (run, key, number) DO UPDATE
SET failure = excluded.failure, details = excluded.details, at_ms = excluded.at_ms

-- name: take_messages
DELETE FROM {s}.message WHERE pos = ANY ($1::int8[])

-- name: insert_replies
INSERT INTO {s}.reply (request, ok, payload, at_ms)
SELECT request, ok <> 0, payload, at_ms
FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::int8[]) AS given (request, ok, payload, at_ms)
ON CONFLICT DO NOTHING

-- Messages

-- name: position
(pg_current_xact_id()::text::int8 << 20)

-- Positions up to this one are settled: every transaction that could still commit one has a higher number.
-- name: settled
(pg_snapshot_xmin(pg_current_snapshot())::text::int8 << 20) - 1

-- name: horizon
SELECT {settled}

-- Which of the requests each run, or one that it continues, had before.
-- name: had_requests
WITH RECURSIVE earlier (n, request, number, id, generation) AS (
    SELECT given.n, given.request, run.number, run.id, run.generation
    FROM unnest($1::int8[], $2::int8[], $3::text[]) AS given (n, run, request)
    JOIN {s}.run ON run.number = given.run
    UNION ALL
    SELECT earlier.n, earlier.request, run.number, run.id, run.generation
    FROM earlier CROSS JOIN LATERAL (
        SELECT number, id, generation, status FROM {s}.run
        WHERE id = earlier.id AND generation = earlier.generation - 1 AND NOT latest OFFSET 0
    ) AS run
    WHERE run.status = 8
)
SELECT DISTINCT earlier.n FROM earlier
JOIN {s}.request ON request.run = earlier.number AND request.request = earlier.request

-- name: note_requests
INSERT INTO {s}.request (run, request)
SELECT given.run, given.request FROM unnest($1::int8[], $2::text[]) AS given (run, request)
WHERE EXISTS (SELECT 1 FROM {s}.run WHERE run.number = given.run AND run.status <= 2)
ORDER BY given.run, given.request
ON CONFLICT DO NOTHING
RETURNING run, request

-- name: known_requests
SELECT request.run, request.request FROM unnest($1::int8[], $2::text[]) AS given (run, request)
JOIN {s}.request ON request.run = given.run AND request.request = given.request

-- Gives also whether the run is in the hands of another worker.
-- name: insert_messages
WITH kept AS (
    INSERT INTO {s}.message (pos, run, kind, name, payload, request, at_ms)
    SELECT {position} + given.n, given.run, given.kind, given.name, given.payload, given.request, given.at_ms
    FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::bytea[], $6::text[], $7::int8[])
        AS given (n, run, kind, name, payload, request, at_ms)
    WHERE EXISTS (SELECT 1 FROM {s}.run WHERE run.number = given.run AND run.status <= 2)
    RETURNING pos, run
)
SELECT kept.pos, run.lease FROM kept JOIN {s}.run ON run.number = kept.run

-- name: messages
SELECT {message_columns} FROM {s}.message
WHERE message.pos > $1 AND (SELECT run.lease FROM {s}.run WHERE run.number = message.run) = $2
ORDER BY message.pos LIMIT $3

-- name: last_position
SELECT max(pos), (pg_snapshot_xmax(pg_current_snapshot())::text::int8 << 20) FROM {s}.message

-- name: number_messages_anew
UPDATE {s}.message SET pos = fresh.pos
FROM (SELECT message.pos AS old, row_number() OVER (ORDER BY message.pos) AS pos FROM {s}.message) AS fresh
WHERE message.pos = fresh.old

-- Reads

-- name: latest_run
SELECT {run_columns} FROM {s}.run WHERE id = $1 AND latest

-- name: run_of_generation
SELECT {run_columns} FROM {s}.run WHERE id = $1 AND generation = $2 AND latest
UNION ALL
SELECT {run_columns} FROM {s}.run WHERE id = $1 AND generation = $2 AND NOT latest

-- name: run_by_number
SELECT {run_columns} FROM {s}.run WHERE number = $1

-- name: stopped_runs
SELECT {run_columns} FROM {s}.run WHERE number = ANY ($1::int8[]) AND status <> 1

-- name: missing_runs
SELECT given.number FROM unnest($1::int8[]) AS given (number)
WHERE NOT EXISTS (SELECT 1 FROM {s}.run WHERE run.number = given.number)

-- name: records
SELECT {record_columns} FROM {s}.record WHERE run = $1 ORDER BY seq

-- name: loaded_runs
SELECT {run_columns} FROM {s}.run WHERE number = ANY ($1::int8[]) ORDER BY number

-- name: loaded_records
SELECT {record_columns} FROM {s}.record WHERE run = ANY ($1::int8[]) ORDER BY run, seq

-- name: loaded_attempts
SELECT {attempt_columns} FROM {s}.attempt WHERE run = ANY ($1::int8[]) ORDER BY run, key, number

-- name: loaded_messages
SELECT {message_columns} FROM {s}.message WHERE run = ANY ($1::int8[]) ORDER BY pos

-- name: open_runs
SELECT {run_columns} FROM {s}.run WHERE status <= 2 AND number > $1 ORDER BY number LIMIT $2

-- name: open_records
SELECT {record_columns} FROM {s}.record WHERE run IN (
    SELECT number FROM {s}.run WHERE status <= 2 AND number > $1 ORDER BY number LIMIT $2
) ORDER BY run, seq

-- name: parked_runs
SELECT {run_columns} FROM {s}.run WHERE status = 2 AND number > $1 ORDER BY number LIMIT $2

-- name: sleeping_runs
SELECT asleep.wake_at_ms, asleep.number
FROM (SELECT $1::int8 AS number UNION {free_leases}) AS holder CROSS JOIN LATERAL (
    SELECT run.wake_at_ms, run.number FROM {s}.run
    WHERE run.status = 1 AND run.lease = holder.number AND run.wake_at_ms > 0
    AND (run.wake_at_ms, run.number) > ($2, $3) AND run.wake_at_ms <= $4
    ORDER BY run.wake_at_ms, run.number LIMIT $5
) AS asleep
ORDER BY asleep.wake_at_ms, asleep.number LIMIT $5

-- name: messages_for
SELECT {message_columns} FROM {s}.message WHERE run = $1 ORDER BY pos

-- name: list_runs
SELECT {run_columns} FROM {s}.run WHERE

-- name: list_tagged
SELECT run FROM {s}.tag WHERE

-- name: tags_of
SELECT run, key, value FROM {s}.tag WHERE run = ANY ($1::int8[]) ORDER BY run, key

-- name: states
SELECT {state_columns} FROM {s}.state WHERE run = $1 ORDER BY name

-- name: attempts
SELECT {attempt_columns} FROM {s}.attempt WHERE run = $1 ORDER BY key, number

-- name: attempted
SELECT DISTINCT run FROM {s}.attempt WHERE run > $1 AND run <= $2

-- name: children
SELECT {run_columns} FROM {s}.run WHERE parent = $1 AND latest ORDER BY number

-- name: reply
SELECT request, ok, payload, at_ms FROM {s}.reply WHERE request = $1

-- name: counts
SELECT status, count(*) FROM (
    SELECT status FROM {s}.run WHERE status = 1
    UNION ALL SELECT status FROM {s}.run WHERE status = 2
    UNION ALL SELECT status FROM {s}.run WHERE status > 2 AND latest
) AS counted GROUP BY status

-- name: size
SELECT coalesce(sum(pg_total_relation_size(pg_class.oid)), 0)::int8
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 AND relkind = 'r'

-- name: setting
SELECT current_setting($1, true)

-- Removal

-- name: ended_before
SELECT number FROM {s}.run WHERE status > 2 AND ended_at_ms < $1
ORDER BY ended_at_ms, number LIMIT $2 FOR UPDATE SKIP LOCKED

-- name: remove_runs
WITH records AS (DELETE FROM {s}.record WHERE run = ANY ($1::int8[])),
    states AS (DELETE FROM {s}.state WHERE run = ANY ($1::int8[])),
    attempts AS (DELETE FROM {s}.attempt WHERE run = ANY ($1::int8[])),
    jobs AS (DELETE FROM {s}.job WHERE run = ANY ($1::int8[])),
    messages AS (DELETE FROM {s}.message WHERE run = ANY ($1::int8[])),
    requests AS (DELETE FROM {s}.request WHERE run = ANY ($1::int8[])),
    tags AS (DELETE FROM {s}.tag WHERE run = ANY ($1::int8[])),
    awaited AS (DELETE FROM {s}.awaiting WHERE run = ANY ($1::int8[]))
DELETE FROM {s}.run WHERE number = ANY ($1::int8[])

-- name: remove_replies
DELETE FROM {s}.reply WHERE request IN (
    SELECT request FROM {s}.reply WHERE at_ms < $1 ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- Checks: each gives one sentence a row, and no row when all is well

-- name: check_gaps
SELECT 'Run ' || run || ' has ' || count(*) || ' records, but they count from ' || min(seq) || ' to ' || max(seq)
    || ': some are missing.'
FROM {s}.record GROUP BY run HAVING min(seq) <> 0 OR max(seq) <> count(*) - 1 ORDER BY run

-- name: check_strays
SELECT 'There are rows of run ' || run || ' in table ' || place || ', but there is no such run.'
FROM (
    SELECT DISTINCT run, 'record' AS place FROM {s}.record
    UNION ALL SELECT DISTINCT run, 'state' FROM {s}.state
    UNION ALL SELECT DISTINCT run, 'attempt' FROM {s}.attempt
    UNION ALL SELECT DISTINCT run, 'message' FROM {s}.message
    UNION ALL SELECT DISTINCT run, 'job' FROM {s}.job
    UNION ALL SELECT DISTINCT run, 'request' FROM {s}.request
    UNION ALL SELECT DISTINCT run, 'tag' FROM {s}.tag
    UNION ALL SELECT DISTINCT run, 'awaiting' FROM {s}.awaiting
) AS owned
WHERE NOT EXISTS (SELECT 1 FROM {s}.run WHERE number = owned.run) ORDER BY run, place

-- name: check_latest
SELECT 'Run ''' || id || ''' has ' || count(*) FILTER (WHERE latest) || ' latest generations; generation '
    || max(generation) || ' should be the only one.'
FROM {s}.run GROUP BY id
HAVING count(*) FILTER (WHERE latest) <> 1 OR max(generation) <> max(generation) FILTER (WHERE latest) ORDER BY id

-- name: check_ends
SELECT 'Run ''' || id || ''' (number ' || number || ') has status ' || status || ' and end time '
    || coalesce(ended_at_ms::text, 'none') || ', which do not go together.'
FROM {s}.run WHERE (status > 2) <> (ended_at_ms IS NOT NULL) ORDER BY number

-- name: check_fsync
SELECT 'The server runs with ' || name || ' = off: a loss of power may damage everything in it.'
FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name
