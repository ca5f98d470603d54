-- Every statement about the schemas of events. The form is that of `statements.sql`.

-- name: schemas_of
SELECT stream, type, version, fingerprint, schema, at_ms, gone_to FROM schema
WHERE ?1 = '' OR stream = ?1 ORDER BY stream, type, version

-- name: has_schema
SELECT 1 FROM schema WHERE stream = ? AND type = ? AND version = ? AND fingerprint = ?

-- name: put_schema
INSERT OR REPLACE INTO schema (stream, type, version, fingerprint, schema, at_ms, gone_to)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: any_of_version
SELECT 1 FROM event WHERE pos > ?1 AND pos < ?2 AND type = ?3 AND version = ?4 LIMIT 1

-- name: schema_gone
UPDATE schema SET gone_to = ?4 WHERE stream = ?1 AND type = ?2 AND version = ?3
