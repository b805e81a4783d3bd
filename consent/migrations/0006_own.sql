-- A person's own: erasure, what they ask of the platform, and records that can be unmade.

-- What stands for a person outside of the database: their key and their tombstone are found by it,
-- whatever numbers a restored copy gives to others. Persons from before have one that a copy from
-- before comes to as well.
ALTER TABLE consent.subject ADD code uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE;
UPDATE consent.subject SET code = md5(format('chimata/%s/%s', id, key))::uuid;
-- The planner's statistics would be copies of names, in a table that nobody writes anew.
ALTER TABLE consent.subject ALTER COLUMN key SET STATISTICS 0;

-- The log and the audit name a person by number alone (consent/log.py): here what was written before.
ALTER TABLE consent.log DISABLE TRIGGER append_only;
UPDATE consent.log SET actor = 'person/' || subject WHERE actor_kind = 'self';
ALTER TABLE consent.log ENABLE ALWAYS TRIGGER append_only;
GRANT UPDATE ON audit.decision TO CURRENT_USER;
ALTER TABLE audit.decision DISABLE TRIGGER append_only;
UPDATE audit.decision d SET principal = n.name, recipient = n.name
  FROM (SELECT o.id, coalesce('person/' || s.id, 'person') AS name
        FROM audit.decision o LEFT JOIN consent.subject s ON s.key = o.principal
        WHERE o.role = 'citizen') AS n
  WHERE n.id = d.id;
ALTER TABLE audit.decision ENABLE ALWAYS TRIGGER append_only;
REVOKE UPDATE ON audit.decision FROM CURRENT_USER;

-- ---- erasure -------------------------------------------------------------------------------------

CREATE TABLE consent.erasure (
  id uuid PRIMARY KEY,
  subject integer NOT NULL UNIQUE,
  sigma bigint NOT NULL,
  at timestamptz NOT NULL
);
INSERT INTO consent.folded (name) VALUES ('erasure');

-- How far the work has come; not state that anyone reads by.
CREATE TABLE personal.erasure_work (
  subject integer PRIMARY KEY,
  deleted_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- the rows
  done_at timestamptz                                         -- the files too
);
-- Tables of which rows were deleted, and whose files still hold them.
CREATE TABLE personal.to_rewrite (
  subject integer NOT NULL,
  piece text NOT NULL,
  done xid8 NOT NULL DEFAULT pg_current_xact_id(),
  PRIMARY KEY (subject, piece)
);

-- From its commit on nothing of the person is anybody's: their grants have ended, what their devices
-- said so far is kept away, what they say from now on describes nobody, and the number has no name.
-- What else a part of consent holds of a person, its function consent.forget_<part> lets go.
CREATE FUNCTION consent.apply_erase(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  less integer[];
  until tstzrange := tstzrange(NULL, entry.at);
  parties bigint[] := ARRAY(SELECT party FROM consent.party_member WHERE subject = entry.subject);
  part text;
BEGIN
  INSERT INTO consent.erasure
  VALUES ((entry.body->>'erasure')::uuid, entry.subject, entry.sigma, entry.at);
  less := ARRAY(SELECT DISTINCT recipient FROM consent.granted
                WHERE ended IS NULL AND (subject = entry.subject OR subject IN (
                  SELECT m.subject FROM consent.party_member m WHERE m.party = ANY(parties))));
  UPDATE consent.granted SET ended = entry.sigma
    WHERE subject = entry.subject AND ended IS NULL;
  DELETE FROM consent.binding WHERE party = ANY(parties) AND isempty(event * until);
  UPDATE consent.binding SET event = event * until WHERE party = ANY(parties);
  INSERT INTO personal.erased SELECT id, sector, thing, event FROM consent.binding
    WHERE party = ANY(parties) ON CONFLICT (binding) DO NOTHING;
  UPDATE consent.subject SET key = NULL WHERE id = entry.subject;
  FOR part IN SELECT proname FROM pg_proc WHERE pronamespace = 'consent'::regnamespace
    AND proname LIKE 'forget\_%' ORDER BY proname
  LOOP
    EXECUTE format('SELECT consent.%I($1)', part) USING entry;
  END LOOP;
  RETURN less;
END $$;

-- The file of names, written anew without those that were let go.
CREATE FUNCTION consent.rewrite_names() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
BEGIN
  CLUSTER consent.subject USING subject_pkey;
END $$;

-- A leaf's record may be let go, and nothing else of a leaf may change: what it commits to stays.
CREATE FUNCTION audit.only_blanked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'UPDATE' OR (NEW.index, NEW.provision, NEW.record)
     IS DISTINCT FROM (OLD.index, OLD.provision, '') THEN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN NEW;
END $$;
DROP TRIGGER append_only ON audit.leaf;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.leaf
  FOR EACH ROW EXECUTE FUNCTION audit.only_blanked();
ALTER TABLE audit.leaf ENABLE ALWAYS TRIGGER append_only;

-- Records from before they were sealed: let go, for one person, so many at a time.
CREATE FUNCTION consent.blank_records(of_subject integer, rows_max integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = audit, public, pg_temp AS $$
  WITH old AS (
    SELECT l.index FROM audit.provision p JOIN audit.leaf l ON l.provision = p.id
    WHERE p.subjects @> ARRAY[of_subject] AND l.record LIKE '{%' LIMIT rows_max
  ), blanked AS (
    UPDATE audit.leaf SET record = '' WHERE index IN (SELECT index FROM old) RETURNING 1
  ) SELECT count(*) FROM blanked
$$;

-- ---- what a person asks of the platform ----------------------------------------------------------

-- Words and values are sealed under the person's key: without it they are nobody's any more.
CREATE TABLE consent.claim (
  id uuid PRIMARY KEY,
  subject integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('correction', 'stop-of-use', 'complaint', 'consultation')),
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  recipient text,
  disclosure uuid,
  sealed bytea NOT NULL
);
CREATE INDEX ON consent.claim (subject, at);
CREATE INDEX ON consent.claim (at, id);
CREATE TABLE consent.claim_step (
  claim uuid NOT NULL REFERENCES consent.claim,
  number smallint NOT NULL,
  state text NOT NULL CHECK (state IN ('under-review', 'answered', 'accepted', 'refused')),
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  who text NOT NULL,
  sealed bytea NOT NULL,
  PRIMARY KEY (claim, number)
);
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['claim', 'claim_step'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON consent.%I
                    FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON consent.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('ALTER TABLE consent.%I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE consent.%I ENABLE ALWAYS TRIGGER append_only_whole', name);
    EXECUTE format('GRANT SELECT, INSERT ON consent.%I TO chimata_gate', name);
  END LOOP;
END $$;

GRANT SELECT ON consent.erasure TO chimata_gate;
GRANT SELECT, INSERT, UPDATE ON personal.erasure_work TO chimata_gate;
GRANT SELECT, INSERT, UPDATE, DELETE ON personal.to_rewrite TO chimata_gate;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
REVOKE ALL ON FUNCTION audit.only_blanked FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.rewrite_names, consent.blank_records TO chimata_gate;
