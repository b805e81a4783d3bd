-- One function an act: consent.apply_<act> takes an entry into the state, and an act that has none
-- cannot be written. So a migration adds an act, or says one anew, without a word about the others.

ALTER TABLE consent.log
  DROP CONSTRAINT log_act_check,
  ADD CHECK (act ~ '^[A-Z]+(_[A-Z]+)*$'),
  DROP CONSTRAINT log_actor_kind_check,
  ADD CHECK (actor_kind IN ('self', 'guardian', 'delegate', 'operator', 'recipient', 'platform'));

-- The tables that the fold makes, each after those that it refers to.
CREATE TABLE consent.folded (
  number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE
);
INSERT INTO consent.folded (name) VALUES
  ('recipient'), ('granted'), ('objected'), ('party'), ('party_member'), ('binding');

CREATE FUNCTION consent.apply_register(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.recipient
  SELECT coalesce(max(id), 0) + 1, entry.body->>'key', entry.body->>'title_ja',
         entry.body->>'title_en', entry.body->>'country', false FROM consent.recipient
  ON CONFLICT (key) DO UPDATE SET title_ja = excluded.title_ja, title_en = excluded.title_en,
    country = excluded.country, suspended = false;
  -- Elsewhere now, perhaps: where its data may not be.
  RETURN ARRAY(SELECT id FROM consent.recipient WHERE key = entry.body->>'key');
END $$;

CREATE FUNCTION consent.apply_suspend(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  UPDATE consent.recipient SET suspended = true WHERE key = entry.body->>'key';
  RETURN ARRAY(SELECT id FROM consent.recipient WHERE key = entry.body->>'key');
END $$;

CREATE FUNCTION consent.apply_bind(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  members integer[];
  chosen bigint;
BEGIN
  SELECT array_agg(DISTINCT s::integer ORDER BY s::integer) INTO members
    FROM jsonb_array_elements_text(entry.body->'subjects') s;
  SELECT id INTO chosen FROM consent.party WHERE subjects = members;
  IF NOT FOUND THEN
    chosen := entry.sigma;
    INSERT INTO consent.party VALUES (chosen, members);
    INSERT INTO consent.party_member SELECT chosen, unnest(members);
  END IF;
  INSERT INTO consent.binding VALUES ((entry.body->>'binding')::uuid, entry.body->>'sector',
    entry.body->>'thing', chosen, (entry.body->>'event')::tstzrange);
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_unbind(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  chosen bigint;
BEGIN
  SELECT party INTO STRICT chosen FROM consent.binding WHERE id = (entry.body->>'binding')::uuid;
  DELETE FROM consent.binding
    WHERE id = (entry.body->>'binding')::uuid AND isempty(event * tstzrange(NULL, entry.at));
  UPDATE consent.binding SET event = event * tstzrange(NULL, entry.at)
    WHERE id = (entry.body->>'binding')::uuid;
  RETURN ARRAY(SELECT DISTINCT g.recipient FROM consent.granted g
               JOIN consent.party_member m USING (subject)
               WHERE m.party = chosen AND g.ended IS NULL);
END $$;

CREATE FUNCTION consent.apply_grant(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  after consent.granted := consent.form(entry);
BEGIN
  IF EXISTS (SELECT FROM consent.granted WHERE grant_id = after.grant_id) THEN
    RAISE EXCEPTION 'another grant has this id' USING ERRCODE = 'unique_violation';
  END IF;
  INSERT INTO consent.granted SELECT after.*;
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_narrow(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  before consent.granted;
  after consent.granted := consent.form(entry);
BEGIN
  UPDATE consent.granted SET ended = entry.sigma
    WHERE grant_id = after.grant_id AND ended IS NULL RETURNING * INTO STRICT before;
  IF NOT consent.is_within(after, before) THEN
    RAISE EXCEPTION 'it permits more than before' USING ERRCODE = 'check_violation';
  END IF;
  after.given := before.given;
  INSERT INTO consent.granted SELECT after.*;
  RETURN ARRAY[after.recipient];
END $$;

CREATE FUNCTION consent.apply_revoke(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  of_recipient integer;
BEGIN
  UPDATE consent.granted SET ended = entry.sigma
    WHERE grant_id = (entry.body->>'grant')::uuid AND subject = entry.subject AND ended IS NULL
    RETURNING recipient INTO STRICT of_recipient;
  RETURN ARRAY[of_recipient];
END $$;

CREATE FUNCTION consent.apply_object(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.objected VALUES ((entry.body->>'objection')::uuid, entry.subject,
    (entry.body->>'recipient')::integer, entry.body->>'purpose', entry.sigma);
  RETURN ARRAY(SELECT DISTINCT recipient FROM consent.granted
               WHERE subject = entry.subject AND ended IS NULL
                 AND recipient = coalesce((entry.body->>'recipient')::integer, recipient));
END $$;

CREATE OR REPLACE FUNCTION consent.apply(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  less integer[];
BEGIN
  EXECUTE format('SELECT consent.%I($1)', 'apply_' || lower(entry.act)) INTO less USING entry;
  RETURN less;
END $$;

CREATE OR REPLACE FUNCTION consent.replay() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
DECLARE
  entry consent.log;
  made text;
  count bigint := 0;
BEGIN
  PERFORM 1 FROM consent.clock FOR UPDATE;
  FOR made IN SELECT name FROM consent.folded ORDER BY number DESC LOOP
    EXECUTE format('DELETE FROM consent.%I', made);
  END LOOP;
  FOR entry IN SELECT * FROM consent.log ORDER BY sigma LOOP
    PERFORM consent.apply(entry);
    count := count + 1;
  END LOOP;
  RETURN count;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
