-- The statements of the schemas of events.

-- name: schemas_of
SELECT stream, type, version, fingerprint, schema, at_ms, gone_to FROM {s}.schema
WHERE $1::text = '' OR stream = $1::text ORDER BY stream, type, version

-- name: has_schema
SELECT 1 FROM {s}.schema WHERE stream = $1 AND type = $2 AND version = $3 AND fingerprint = $4

-- Of two that put schemas, the second waits until it sees what the first has put. Who reads does not wait.
-- name: lock_schemas
LOCK TABLE {s}.schema IN SHARE ROW EXCLUSIVE MODE

-- name: put_schema
INSERT INTO {s}.schema (stream, type, version, fingerprint, schema, at_ms, gone_to)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (stream, type, version) DO UPDATE
SET fingerprint = excluded.fingerprint, schema = excluded.schema, at_ms = excluded.at_ms, gone_to = excluded.gone_to

-- name: any_of_version
SELECT 1 FROM {s}.event WHERE stream = $1 AND pos > $2 AND type = $3 AND version = $4 LIMIT 1

-- name: schema_gone
UPDATE {s}.schema SET gone_to = $4 WHERE stream = $1 AND type = $2 AND version = $3
AND NOT EXISTS (SELECT 1 FROM {s}.move_mark WHERE stage <> 'arrived')
