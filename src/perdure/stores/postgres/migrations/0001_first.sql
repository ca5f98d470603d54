-- The first schema. It runs with the store's schema as the search path.
--
-- Migrations only add: a worker of the release before must be able to go on beside
-- one of this release. So: no column is dropped, renamed or given a narrower type,
-- and a new column has a default or may be NULL. What is no longer used goes two
-- releases later.
--
-- Text that is compared or sorted has collation "C": in the order of code points, whatever
-- the database's own collation is, and whatever a new version of a C library makes of it.

CREATE SEQUENCE lease_number AS bigint;
CREATE SEQUENCE run_number AS bigint;

-- A lease for each worker. A row goes when no open run belongs to it any more.
CREATE TABLE lease (
    number         bigint PRIMARY KEY, -- the fence; none is given twice
    held           boolean NOT NULL,
    crashed        boolean NOT NULL, -- its holder did not give it back
    worker         text NOT NULL,
    process        bigint NOT NULL,
    since_ms       bigint NOT NULL,
    until_ms       bigint NOT NULL,
    ttl_ms         bigint NOT NULL, -- how long it lasts from when it is renewed
    present_since  timestamptz -- since when the server ran at which its holder has the lock of presence
) WITH (fillfactor = 20);

CREATE TABLE run (
    number          bigint PRIMARY KEY,
    id              text COLLATE "C" NOT NULL,
    generation      bigint NOT NULL,
    latest          boolean NOT NULL,
    workflow        text COLLATE "C" NOT NULL,
    status          smallint NOT NULL,
    lease           bigint NOT NULL,
    wake_at_ms      bigint,
    crashes         bigint NOT NULL,
    deadline_ms     bigint,
    parent          bigint,
    parent_key      text NOT NULL,
    on_parent_close text NOT NULL,
    created_at_ms   bigint NOT NULL,
    ended_at_ms     bigint,
    python          text NOT NULL,
    seed            bytea NOT NULL,
    input           bytea NOT NULL,
    output          bytea
) WITH (fillfactor = 85);

CREATE UNIQUE INDEX run_latest ON run (id) WHERE latest;
CREATE INDEX run_older ON run (id, generation) WHERE NOT latest;
-- What a worker sleeps on, and what others claim from it when it has died. The workflow is at its end so that
-- runs of workflows which nobody knows cost a claim no look at the table.
CREATE INDEX run_due ON run (lease, wake_at_ms, number, workflow) WHERE status = 1;
-- The few that need a person, among the many that do not.
CREATE INDEX run_parked ON run (number) WHERE status = 2;
CREATE INDEX run_failed ON run (number) WHERE status IN (4, 5, 6, 7);
CREATE INDEX run_ended ON run (ended_at_ms, number) INCLUDE (status, latest) WHERE status > 2;
CREATE INDEX run_parent ON run (parent) WHERE parent IS NOT NULL;
CREATE INDEX run_workflow ON run (workflow, number);
-- Runs lie on the disk nearly in the order in which they were made: this is some kilobytes.
CREATE INDEX run_created ON run USING brin (created_at_ms) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE record (
    run     bigint NOT NULL,
    seq     bigint NOT NULL,
    kind    smallint NOT NULL,
    key     text NOT NULL,
    digest  bigint NOT NULL,
    at_ms   bigint NOT NULL,
    payload bytea,
    CONSTRAINT record_run PRIMARY KEY (run, seq)
);

CREATE TABLE state (
    run     bigint NOT NULL,
    name    text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    payload bytea NOT NULL,
    at_ms   bigint NOT NULL,
    PRIMARY KEY (run, name)
) WITH (fillfactor = 70);

CREATE TABLE attempt (
    run     bigint NOT NULL,
    key     text COLLATE "C" NOT NULL,
    number  bigint NOT NULL,
    failure bytea,
    details bytea,
    at_ms   bigint NOT NULL,
    PRIMARY KEY (run, key, number)
) WITH (fillfactor = 70);

-- A position is the number of the transaction that sends, times 2^20, and the message's place in it:
-- so it is known from the running transactions alone up to which position none can come any more.
CREATE TABLE message (
    pos     bigint PRIMARY KEY,
    run     bigint NOT NULL,
    kind    smallint NOT NULL,
    name    text NOT NULL,
    payload bytea,
    request text NOT NULL,
    at_ms   bigint NOT NULL
);

CREATE INDEX message_run ON message (run);

-- The requests that a run has had, kept until the run is removed.
CREATE TABLE request (
    run     bigint NOT NULL,
    request text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, request)
);

CREATE TABLE reply (
    request text COLLATE "C" PRIMARY KEY,
    ok      boolean NOT NULL,
    payload bytea,
    at_ms   bigint NOT NULL
);

CREATE INDEX reply_at ON reply (at_ms);

CREATE TABLE tag (
    run   bigint NOT NULL,
    key   text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, key)
);

CREATE INDEX tag_value ON tag (key, value, run);

-- Journals are JSON, which packs well; lz4 packs it several times faster than pglz, the server's old
-- way, which is what is left where the server was built without lz4.
DO $$
BEGIN
    ALTER TABLE run ALTER COLUMN input SET COMPRESSION lz4, ALTER COLUMN output SET COMPRESSION lz4;
    ALTER TABLE record ALTER COLUMN payload SET COMPRESSION lz4;
    ALTER TABLE state ALTER COLUMN payload SET COMPRESSION lz4;
    ALTER TABLE attempt ALTER COLUMN failure SET COMPRESSION lz4, ALTER COLUMN details SET COMPRESSION lz4;
    ALTER TABLE message ALTER COLUMN payload SET COMPRESSION lz4;
    ALTER TABLE reply ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;

-- These tables are small beside what goes through them: do not wait for a fifth of them to be dead.
ALTER TABLE message SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE run SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
