-- The statements of jobs: steps that only a worker with a certain tag may run. They may use the blocks of
-- statements.sql.

-- name: job_columns
job.run, job.key, job.tag, job.step, job.source, job.digest, job.arguments, job.asked_at_ms, job.crc

-- One whose outcome waits for its run is not queued again.
-- name: queue_job
INSERT INTO job (run, key, tag, step, source, digest, arguments, asked_at_ms, crc)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- The code has changed: nobody waits for what it was before.
-- name: replace_job
DELETE FROM job WHERE run = ? AND key = ? AND (digest <> ? OR tag <> ?)

-- name: knows_job
SELECT EXISTS (SELECT 1 FROM job WHERE run = ?1 AND key = ?2)
    OR EXISTS (SELECT 1 FROM message WHERE run = ?1 AND kind = 9 AND name = ?2)

-- name: withdraw_job
DELETE FROM job WHERE run = ? AND key = ?

-- name: remove_jobs
DELETE FROM job WHERE run = ?

-- name: end_job
DELETE FROM job WHERE run = ? AND key = ? AND lease = ?

-- name: free_jobs
SELECT job.asked_at_ms, job.run, job.key, job.crashes + {job_crash} AS died FROM job CROSS JOIN run ON run.number = job.run
WHERE job.lease = ?1 AND job.tag = ?2 AND run.status = 1
AND (job.step IN (SELECT value FROM json_each(?3)) OR job.source IN (SELECT value FROM json_each(?3)))
AND (?4 OR died < 2)
ORDER BY job.asked_at_ms, job.run, job.key LIMIT ?5

-- name: job_crash
coalesce((SELECT crashed FROM lease WHERE lease.number = job.lease), 0)

-- name: claim_job
UPDATE job SET crashes = crashes + {job_crash}, lease = ?1 WHERE run = ?2 AND key = ?3

-- name: claimed_job
SELECT job.crashes, run.id, run.workflow, run.seed, {job_columns}
FROM job JOIN run ON run.number = job.run WHERE job.run = ? AND job.key = ?

-- name: attempts_of_job
SELECT {attempt_columns} FROM attempt WHERE run = ? AND key = ? ORDER BY number

-- name: held_jobs
SELECT job.run, job.key FROM job CROSS JOIN run ON run.number = job.run WHERE job.lease = ? AND run.status = 1

-- name: tagged_workers
SELECT count(*) FROM lease WHERE held
AND EXISTS (SELECT 1 FROM json_each(lease.tags) WHERE value IN (SELECT value FROM json_each(?)))

-- name: jobs
SELECT job.key, job.tag, lease.worker FROM job LEFT JOIN lease ON lease.number = job.lease AND lease.held
WHERE job.run = ? ORDER BY job.key

-- name: waiting_jobs
SELECT tag, count(*) FROM job WHERE lease NOT IN (SELECT number FROM lease WHERE held) GROUP BY tag ORDER BY tag

-- name: jobs_of
SELECT {job_columns} FROM job WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, key

-- name: all_job
SELECT {job_columns} FROM job NOT INDEXED

-- name: remove_all_job
DELETE FROM job

-- name: free_all_jobs
UPDATE job SET lease = 0 WHERE lease <> 0
