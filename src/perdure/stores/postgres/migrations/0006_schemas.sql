-- What the events of a type and version look like, in each stream.

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE schema (
    stream      text COLLATE "C" NOT NULL,
    type        text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    fingerprint text NOT NULL,
    schema      bytea NOT NULL, -- JSON Schema
    at_ms       bigint NOT NULL,
    gone_to     bigint NOT NULL, -- no event up to this position of the stream is of this version
    PRIMARY KEY (stream, type, version)
);
