-- Steps that only a worker with a certain tag may run, and that wait for one, or are run by one.
CREATE TABLE job (
    run         bigint NOT NULL,
    key         text COLLATE "C" NOT NULL,
    tag         text COLLATE "C" NOT NULL,
    step        text NOT NULL,
    source      text NOT NULL,
    digest      bigint NOT NULL, -- CRC-32 of the arguments
    arguments   bytea NOT NULL,
    asked_at_ms bigint NOT NULL,
    lease       bigint NOT NULL DEFAULT 0, -- whose worker has it; 0, or one that has ended: nobody's
    crashes     bigint NOT NULL DEFAULT 0, -- how many workers died while they had it
    PRIMARY KEY (run, key)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE INDEX job_free ON job (lease, tag, asked_at_ms, run, key);

-- Which jobs a worker claims.
ALTER TABLE lease ADD COLUMN tags text[] NOT NULL DEFAULT '{}';

DO $$
BEGIN
    ALTER TABLE job ALTER COLUMN arguments SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;
