-- Starting runs in a transaction of somebody else's, whatever wrote the rest of it.
--
-- The functions find their tables whatever the caller's search_path is, and whatever temporary tables it has.
-- They act with the rights of the schema's owner; who may start runs is for the owner to say (GRANT EXECUTE).

SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- One row: the lock that who writes without a lease shares, and how often the mark of a move was changed. A
-- transaction that sees one moment throughout would miss a mark that is newer; that its row here was changed it
-- cannot miss.
CREATE TABLE move_gate (
    one     boolean PRIMARY KEY CHECK (one),
    space   integer NOT NULL,
    changes bigint NOT NULL
);

INSERT INTO move_gate VALUES (true, current_setting('perdure.gate')::integer, 0);

CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE move_gate SET changes = changes + 1;
    RETURN NULL;
END
$$;

CREATE TRIGGER move_mark_changed AFTER INSERT OR UPDATE OR DELETE ON move_mark
FOR EACH STATEMENT EXECUTE FUNCTION note_move();

-- Which database of which server this is: a copy in another one has another.
CREATE FUNCTION store_identity() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT system_identifier || '/' || pg_database.oid
    FROM pg_control_system(), pg_database WHERE datname = current_database()
$$;

-- For programs. Says what became of it, and raises nothing that would end the caller's transaction:
-- `elsewhere` (this is not the store that was meant), `moved` (with the mark), `started`, or `taken`: then the run
-- that has the id, and the input of the one that was once started under it (NULL where that was removed).
CREATE FUNCTION start_run_once(
    at_store text, new_id text, new_workflow text, new_input bytea, new_seed bytea, new_tags jsonb,
    new_created_at_ms bigint, new_deadline_ms bigint, new_python text
) RETURNS TABLE (
    outcome text, mark text, run_number bigint, run_generation bigint, run_workflow text, run_status smallint,
    first_input bytea
) LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    its run;
    before run;
BEGIN
    IF at_store <> store_identity() THEN
        outcome := 'elsewhere';
        RETURN NEXT;
        RETURN;
    END IF;
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
    LOOP
        INSERT INTO run (
            number, id, generation, latest, workflow, status, lease, wake_at_ms, crashes, deadline_ms, parent_key,
            on_parent_close, created_at_ms, python, seed, input
        )
        VALUES (
            nextval('run_number'), new_id, coalesce((
                SELECT older.generation FROM run AS older
                WHERE older.id = new_id AND NOT older.latest ORDER BY older.generation DESC LIMIT 1
            ), 0) + 1,
            true, new_workflow, 1, 0, 0, 0, new_deadline_ms, '', 'cancel', new_created_at_ms, new_python, new_seed,
            new_input
        )
        ON CONFLICT (id) WHERE latest DO NOTHING
        RETURNING * INTO its;
        outcome := CASE WHEN FOUND THEN 'started' ELSE 'taken' END;
        IF outcome = 'started' THEN
            INSERT INTO tag (run, key, value) SELECT its.number, key, value FROM jsonb_each_text(new_tags);
            -- Heard when, and if, the transaction commits.
            PERFORM pg_notify('perdure ' || current_schema(), '');
            EXIT;
        END IF;
        SELECT * INTO its FROM run WHERE id = new_id AND latest;
        EXIT WHEN FOUND AND its.status <> 8;
        -- It was removed meanwhile, or continued as a run that has been.
        UPDATE run SET latest = false WHERE number = its.number AND latest;
    END LOOP;
    run_number := its.number;
    run_generation := its.generation;
    run_workflow := its.workflow;
    run_status := its.status;
    WHILE its.generation > 1 AND outcome = 'taken' LOOP
        SELECT * INTO before FROM run WHERE id = new_id AND generation = its.generation - 1 AND NOT latest;
        IF before IS NULL OR before.status = 8 THEN
            its := before;
        ELSE
            EXIT;
        END IF;
    END LOOP;
    first_input := its.input;
    RETURN NEXT;
END
$$;

-- For people and triggers: gives the run's id, and raises where the id is another run's. `input` is an object with
-- the workflow's arguments by name.
CREATE FUNCTION start_run(
    workflow text, input json, id text DEFAULT NULL, tags jsonb DEFAULT '{}', timeout interval DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    random_bytes bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    its_id text := coalesce(start_run.id, encode(substring(random_bytes FROM 17), 'hex'));
    its_input bytea := convert_to(input::text, 'UTF8');
    now_ms bigint := extract(epoch FROM clock_timestamp()) * 1000;
    started record;
BEGIN
    IF json_typeof(input) IS DISTINCT FROM 'object' OR coalesce(workflow, '') = ''
            OR length(its_id) NOT BETWEEN 1 AND 1000 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'A run needs the name of a workflow, an id of 1 to 1,000 characters, and a JSON object as input.',
            HINT = 'The input has the workflow''s arguments by name: {"order": {"id": "17"}}.';
    END IF;
    SELECT * INTO started FROM start_run_once(
        store_identity(), its_id, workflow, its_input, substring(random_bytes FOR 16), tags, now_ms,
        now_ms + (extract(epoch FROM timeout) * 1000)::bigint, ''
    );
    IF started.outcome = 'moved' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'The runs of this store were moved, or are being moved: it takes no new ones.',
            HINT = 'The mark of the move: ' || started.mark;
    END IF;
    IF started.outcome = 'taken' AND (started.run_workflow <> workflow OR NOT coalesce(
        started.first_input = its_input OR convert_from(started.first_input, 'UTF8')::jsonb = input::jsonb, true
    )) THEN
        RAISE unique_violation USING
            MESSAGE = format('Run %L exists: it belongs to another workflow, or was started with other input.', its_id),
            HINT = 'Nothing was started. Use another id.';
    END IF;
    RETURN its_id;
END
$$;

REVOKE EXECUTE ON FUNCTION start_run, start_run_once, note_move FROM PUBLIC;
