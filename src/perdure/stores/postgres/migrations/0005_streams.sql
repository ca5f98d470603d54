-- Event streams. A position is the number of the transaction that appends, as the clock of the streams counts it, times
-- 2^20, and the event's place in it: so it is known from the running transactions alone up to which position
-- none can come any more.

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

CREATE TABLE stream (
    number bigint PRIMARY KEY, -- a hash of the name: nobody has to look it up, or wait for who makes the stream
    name   text COLLATE "C" NOT NULL
);

CREATE TABLE event (
    stream   bigint NOT NULL,
    pos      bigint NOT NULL,
    id       text NOT NULL,
    source   text NOT NULL,
    type     text NOT NULL,
    version  bigint NOT NULL,
    key      text NOT NULL,
    time_ms  bigint NOT NULL,
    at_ms    bigint NOT NULL,
    trace    text NOT NULL,
    payload  bytea NOT NULL,
    identity bytea, -- a hash of stream, source and id; NULL for an id that was drawn with the event
    PRIMARY KEY (stream, pos)
);

CREATE UNIQUE INDEX event_identity ON event (identity) WHERE identity IS NOT NULL;

CREATE SEQUENCE subscription_number AS bigint;

CREATE TABLE subscription (
    number bigint PRIMARY KEY,
    stream bigint NOT NULL,
    name   text COLLATE "C" NOT NULL,
    lanes  bigint NOT NULL,
    UNIQUE (stream, name)
);

-- Written with nearly every commit of its worker, in the room that is left in its page.
CREATE TABLE lane (
    subscription bigint NOT NULL,
    lane         bigint NOT NULL,
    lease        bigint NOT NULL, -- whose it is; free when that is 0, or has ended
    cursor       bigint NOT NULL,
    done         bigint[] NOT NULL, -- positions above the cursor
    PRIMARY KEY (subscription, lane)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Which workers serve a subscription: each is due its share of the lanes. Rows of leases that have ended mean nothing.
CREATE TABLE serving (
    subscription bigint NOT NULL,
    lease        bigint NOT NULL,
    PRIMARY KEY (subscription, lease)
);

-- Events that a subscription has parked, until they are redriven or discarded.
CREATE TABLE dead (
    subscription bigint NOT NULL,
    pos          bigint NOT NULL,
    lane         bigint NOT NULL,
    key          text COLLATE "C" NOT NULL,
    kind         smallint NOT NULL,
    attempts     bigint NOT NULL,
    failure      bytea,
    at_ms        bigint NOT NULL,
    PRIMARY KEY (subscription, pos)
);

DO $$
BEGIN
    ALTER TABLE event ALTER COLUMN payload SET COMPRESSION lz4;
    ALTER TABLE dead ALTER COLUMN failure SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    NULL;
END
$$;

-- The server that the store is in, as long as it has lost nothing: a copy in another one has another, and so has a
-- standby that took over. Not on a standby.
-- (In plpgsql, which keeps its plans: it is asked at each append.)
CREATE FUNCTION server_life() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system()) || '/'
        || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/'
        || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
END
$$;

-- One row: how far the clock of the streams is ahead of the server's numbers of transactions, and in which life of
-- the server. Who finds another life sets it on by 2^32, past every position that the one before may have given:
-- one that was lost with it is not given to another event.
CREATE TABLE stream_clock (
    one   boolean PRIMARY KEY CHECK (one),
    ahead bigint NOT NULL,
    life  text NOT NULL
);

INSERT INTO stream_clock SELECT true, 0, server_life();

CREATE FUNCTION set_stream_clock() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE stream_clock SET life = server_life(), ahead = (1::bigint << 32) + greatest(ahead, (
        SELECT (max(last) >> 20) - pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        FROM (
            SELECT (SELECT max(pos) FROM event WHERE event.stream = stream.number) AS last FROM stream
            UNION ALL SELECT max(cursor) FROM lane
        ) AS given
    ))
    WHERE life <> server_life()
$$;

-- Appends events; of those with the same number in `appends` all or none. No identity may be there twice.
-- `at_store` is for transactions of others, and NULL in the store's own. Gives no row where the clock is to be set
-- first, or one row that says why not (`elsewhere`, `moved`, with the mark). Else `first`, with the position before
-- the first one's, which then each event has that comes n places later; but for these: `twin`, the nth is there
-- already, with the same content; `clash`, it is there with another, and nothing of its append was written.
CREATE FUNCTION append_events(
    at_store text, appends bigint[], streams bigint[], ids text[], sources text[], types text[], versions bigint[],
    keys text[], times bigint[], ats bigint[], traces text[], payloads bytea[], identities bytea[]
) RETURNS TABLE (outcome text, n bigint, pos bigint, mark text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    wanted bigint := cardinality(ids);
    had bigint := coalesce(nullif(current_setting('perdure.places', true), ''), '0');
    base bigint;
    written bigint;
    missing bigint[];
    gone bigint[];
    refused bigint[];
BEGIN
    n := 0;
    IF at_store <> store_identity() THEN
        outcome := 'elsewhere';
        RETURN NEXT;
        RETURN;
    ELSIF at_store IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock_shared(move_gate.space, 0) FROM move_gate;
        IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
            PERFORM 1 FROM move_gate FOR SHARE;
        END IF;
        SELECT row_to_json(move_mark)::text INTO mark FROM move_mark WHERE move_mark.stage <> 'arrived';
        IF FOUND THEN
            outcome := 'moved';
            RETURN NEXT;
            RETURN;
        END IF;
        -- Heard when, and if, the transaction commits.
        PERFORM pg_notify('perdure ' || current_schema(), '');
    END IF;
    SELECT ((pg_current_xact_id()::text::bigint + stream_clock.ahead) << 20) + had INTO base
    FROM stream_clock WHERE stream_clock.life = server_life();
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF had + wanted >= 1 << 20 THEN
        RAISE program_limit_exceeded USING MESSAGE = 'A transaction can append 1,048,575 events.';
    END IF;
    PERFORM set_config('perdure.places', (had + wanted)::text, true);
    outcome := 'first';
    pos := base;
    RETURN NEXT;
    -- In the order of identities: so two that append the same cannot wait for each other.
    INSERT INTO event (stream, pos, id, source, type, version, key, time_ms, at_ms, trace, payload, identity)
    SELECT given.stream, base + given.n, given.id, given.source, given.type, given.version, given.key, given.time_ms,
        given.at_ms, given.trace, given.payload, given.identity
    FROM unnest(streams, ids, sources, types, versions, keys, times, ats, traces, payloads, identities) WITH ORDINALITY
        AS given (stream, id, source, type, version, key, time_ms, at_ms, trace, payload, identity, n)
    ORDER BY given.identity, given.n
    ON CONFLICT (identity) WHERE event.identity IS NOT NULL DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written = wanted THEN
        RETURN;
    END IF;
    missing := ARRAY(
        SELECT given.n FROM unnest(streams, identities) WITH ORDINALITY AS given (stream, identity, n)
        WHERE given.identity IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM event WHERE event.stream = given.stream AND event.pos = base + given.n)
    );
    LOOP
        gone := '{}';
        FOREACH n IN ARRAY missing LOOP
            SELECT event.pos, CASE WHEN event.type = types[n] AND event.version = versions[n] AND event.key = keys[n]
                AND event.payload = payloads[n] THEN 'twin' ELSE 'clash' END
            INTO pos, outcome FROM event WHERE event.identity = identities[n];
            IF FOUND THEN
                RETURN NEXT;
                IF outcome = 'clash' THEN
                    refused := refused || appends[n];
                END IF;
            ELSE
                gone := gone || n;
            END IF;
        END LOOP;
        EXIT WHEN gone = '{}';
        -- It was removed since: then it is not there already.
        missing := '{}';
        FOREACH n IN ARRAY gone LOOP
            INSERT INTO event (stream, pos, id, source, type, version, key, time_ms, at_ms, trace, payload, identity)
            VALUES (streams[n], base + n, ids[n], sources[n], types[n], versions[n], keys[n], times[n], ats[n],
                traces[n], payloads[n], identities[n])
            ON CONFLICT (identity) WHERE event.identity IS NOT NULL DO NOTHING;
            IF NOT FOUND THEN
                missing := missing || n;
            END IF;
        END LOOP;
    END LOOP;
    IF refused IS NOT NULL THEN
        DELETE FROM event USING unnest(appends, streams) WITH ORDINALITY AS given (append, stream, n)
        WHERE given.append = ANY (refused) AND event.stream = given.stream AND event.pos = base + given.n;
    END IF;
END
$$;

REVOKE EXECUTE ON FUNCTION append_events FROM PUBLIC;
