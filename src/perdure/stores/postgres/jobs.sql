-- The statements of jobs: steps that only a worker with a certain tag may run. They may use the blocks of
-- statements.sql.

-- name: job_columns
job.run, job.key, job.tag, job.step, job.source, job.digest, job.arguments, job.asked_at_ms

-- Waits for whoever is about to take one away: whether its outcome was sent is looked at after that.
-- name: lock_jobs
SELECT 1 FROM unnest($1::int8[], $2::text[]) AS given (run, key)
JOIN {s}.job ON job.run = given.run AND job.key = given.key
ORDER BY job.run, job.key FOR UPDATE OF job

-- One whose outcome waits for its run is not queued again. Where the code has changed, nobody waits for what it
-- was before.
-- name: queue_jobs
INSERT INTO {s}.job (run, key, tag, step, source, digest, arguments, asked_at_ms)
SELECT given.*
FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::bytea[], $8::int8[])
    AS given (run, key, tag, step, source, digest, arguments, asked_at_ms)
WHERE NOT EXISTS (
    SELECT 1 FROM {s}.message WHERE message.run = given.run AND message.kind = 9 AND message.name = given.key
)
ORDER BY given.run, given.key
ON CONFLICT (run, key) DO UPDATE
SET tag = excluded.tag, source = excluded.source, digest = excluded.digest, arguments = excluded.arguments,
    lease = 0, crashes = 0
WHERE job.digest <> excluded.digest OR job.tag <> excluded.tag

-- An empty key: all of the run's.
-- name: withdraw_jobs
DELETE FROM {s}.job USING unnest($1::int8[], $2::text[]) AS given (run, key)
WHERE job.run = given.run AND (given.key = '' OR job.key = given.key)

-- name: remove_jobs
DELETE FROM {s}.job WHERE run = ANY ($1::int8[])

-- What is sent of steps takes their jobs away; of one that the lease ($8) has not, nothing is sent.
-- name: insert_outcomes
WITH given AS (
    SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::text[], $5::bytea[], $6::text[], $7::int8[])
        AS given (n, run, kind, name, payload, request, at_ms)
), ended AS (
    DELETE FROM {s}.job USING given
    WHERE given.kind = 9 AND job.run = given.run AND job.key = given.name AND job.lease = $8
    RETURNING given.n
), kept AS (
    INSERT INTO {s}.message (pos, run, kind, name, payload, request, at_ms)
    SELECT {position} + given.n, given.run, given.kind, given.name, given.payload, given.request, given.at_ms
    FROM given
    WHERE EXISTS (SELECT 1 FROM {s}.run WHERE run.number = given.run AND run.status <= 2)
    AND (given.kind <> 9 OR given.n IN (SELECT n FROM ended))
    RETURNING pos, run
)
SELECT kept.pos, run.lease FROM kept JOIN {s}.run ON run.number = kept.run

-- name: free_jobs
SELECT found.asked_at_ms, found.run, found.key, found.died FROM ({free_leases}) AS free CROSS JOIN unnest($1::text[]) AS wanted (tag)
CROSS JOIN LATERAL ({jobs_of_lease}) AS found
ORDER BY found.asked_at_ms, found.run, found.key LIMIT $4

-- Who claims at the same time passes these over, and takes the next.
-- name: lock_free_jobs
SELECT found.asked_at_ms, found.run, found.key, found.died FROM ({free_leases}) AS free CROSS JOIN unnest($1::text[]) AS wanted (tag)
CROSS JOIN LATERAL ({jobs_of_lease} FOR UPDATE OF job SKIP LOCKED) AS found
ORDER BY found.asked_at_ms, found.run, found.key LIMIT $4

-- name: jobs_of_lease
SELECT job.asked_at_ms, job.run, job.key, job.crashes + {job_crash} AS died FROM {s}.job
WHERE job.lease = free.number AND job.tag = wanted.tag
AND (job.step = ANY ($2::text[]) OR job.source = ANY ($2::text[]))
AND ($3::int8 <> 0 OR job.crashes + {job_crash} < 2)
AND (SELECT run.status FROM {s}.run WHERE run.number = job.run) = 1
ORDER BY job.asked_at_ms, job.run, job.key LIMIT $4

-- name: job_crash
(SELECT count(*) FROM {s}.lease WHERE lease.number = job.lease AND lease.crashed)

-- As with runs: whether it is free is asked of the job's row alone, and not by a join.
-- name: claim_jobs
WITH taken AS (
    SELECT job.run, job.key, job.crashes + {job_crash} AS crashes
    FROM unnest($2::int8[], $3::text[]) AS given (run, key) CROSS JOIN LATERAL (
        SELECT job.run, job.key, job.crashes, job.lease FROM {s}.job
        WHERE job.run = given.run AND job.key = given.key AND job.lease = ANY (ARRAY({free_leases}))
        FOR UPDATE SKIP LOCKED
    ) AS job
)
UPDATE {s}.job SET lease = $1, crashes = taken.crashes
FROM taken CROSS JOIN LATERAL (
    SELECT number, id, workflow, seed FROM {s}.run WHERE run.number = taken.run OFFSET 0
) AS run
WHERE job.run = taken.run AND job.key = taken.key
RETURNING {job_columns}, job.crashes, run.id, run.workflow, run.seed

-- name: attempts_of_jobs
SELECT attempt.run, attempt.key, attempt.number, attempt.failure, attempt.details, attempt.at_ms
FROM unnest($1::int8[], $2::text[]) AS given (run, key)
JOIN {s}.attempt ON attempt.run = given.run AND attempt.key = given.key
ORDER BY attempt.run, attempt.key, attempt.number

-- name: held_jobs
SELECT job.run, job.key FROM {s}.job
WHERE job.lease = $1 AND (SELECT run.status FROM {s}.run WHERE run.number = job.run) = 1

-- name: tagged_workers
SELECT count(*) FROM {s}.lease WHERE held AND tags && $1::text[]

-- name: jobs
SELECT job.key, job.tag, (SELECT worker FROM {s}.lease WHERE lease.number = job.lease AND lease.held)
FROM {s}.job WHERE job.run = $1 ORDER BY job.key

-- name: waiting_jobs
SELECT tag, count(*) FROM {s}.job
WHERE NOT EXISTS (SELECT 1 FROM {s}.lease WHERE lease.number = job.lease AND lease.held) GROUP BY tag ORDER BY tag

-- name: jobs_of
SELECT {job_columns} FROM {s}.job WHERE run = ANY ($1::int8[]) ORDER BY run, key

-- name: remove_all_job
DELETE FROM {s}.job

-- name: free_all_jobs
UPDATE {s}.job SET lease = 0 WHERE lease <> 0
