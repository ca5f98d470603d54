-- What a process has committed last, of its transactions that leave nothing else by which they could be known: after
-- a crash the server may give the number of one that it has lost to another.

CREATE TABLE said (
    process bigint PRIMARY KEY, -- a number of its own, drawn at random
    token   bigint NOT NULL,
    said_at timestamptz NOT NULL
) WITH (fillfactor = 50);
