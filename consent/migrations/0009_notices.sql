-- Stop notices: who had a right to a person's data, and has it no more, is told so. Written with the
-- act, by a trigger of the log: a replay appends nothing to the log, so it tells nobody again.
CREATE SCHEMA notices;
GRANT USAGE ON SCHEMA notices TO chimata_gate, chimata_read;

-- Where a recipient wants to be told. It decides nothing about who reads what.
CREATE TABLE notices.endpoint (
  recipient text PRIMARY KEY,  -- its key: the fold makes its number again
  url text NOT NULL,
  version uuid NOT NULL DEFAULT gen_random_uuid(),  -- of its secret, which is derived, not stored
  set_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  failures integer NOT NULL DEFAULT 0,  -- since it last took a notice
  due_at timestamptz NOT NULL DEFAULT clock_timestamp(),  -- till then somebody tries, or nobody
  error text
);

CREATE TABLE notices.stop (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  sigma bigint NOT NULL,  -- of the act: the order in which a recipient is told
  at timestamptz NOT NULL,
  act text NOT NULL,
  recipient text NOT NULL,
  subject integer NOT NULL,
  grants uuid[] NOT NULL,
  purpose text,  -- of an objection; null: all of them
  -- What has become of it; the columns above never change.
  attempts integer NOT NULL DEFAULT 0,
  tried_at timestamptz,
  acknowledged_at timestamptz,
  escalated_at timestamptz,
  UNIQUE (recipient, sigma, subject)
);
CREATE INDEX ON notices.stop (recipient, sigma, subject)
  WHERE acknowledged_at IS NULL AND escalated_at IS NULL;
CREATE INDEX ON notices.stop (at) WHERE acknowledged_at IS NULL AND escalated_at IS NULL;
CREATE INDEX ON notices.stop (subject, sigma);
CREATE INDEX ON notices.stop (escalated_at) WHERE escalated_at IS NOT NULL;

CREATE TRIGGER append_only
  BEFORE DELETE OR UPDATE OF id, sigma, at, act, recipient, subject, grants, purpose
  ON notices.stop FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON notices.stop
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER said_once BEFORE UPDATE OF acknowledged_at, escalated_at ON notices.stop
  FOR EACH ROW WHEN (old.acknowledged_at <> coalesce(new.acknowledged_at, 'infinity')
                     OR old.escalated_at <> coalesce(new.escalated_at, 'infinity'))
  EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE notices.stop ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE notices.stop ENABLE ALWAYS TRIGGER append_only_whole;
ALTER TABLE notices.stop ENABLE ALWAYS TRIGGER said_once;

CREATE INDEX ON consent.granted (subject);
CREATE INDEX ON consent.granted (ended) WHERE ended IS NOT NULL;

-- An act stops the recipients of the grants that it ended. One that stops others too has a function
-- of its own, consent.stopped_<act>, which says whom, and by which grants they had what they had.
CREATE FUNCTION consent.stopped(entry consent.log)
RETURNS TABLE (recipient text, subject integer, grants uuid[]) LANGUAGE sql STABLE AS $$
  SELECT r.key, g.subject, array_agg(g.grant_id ORDER BY g.grant_id)
  FROM consent.granted g JOIN consent.recipient r ON r.id = g.recipient
  WHERE g.ended = entry.sigma GROUP BY r.key, g.subject
$$;
-- Those who may read now, and those who got something once by a grant that has ended.
CREATE FUNCTION consent.stopped_object(entry consent.log)
RETURNS TABLE (recipient text, subject integer, grants uuid[]) LANGUAGE sql STABLE AS $$
  WITH touched AS MATERIALIZED (
    SELECT g.recipient, g.grant_id, bool_or(g.ended IS NULL) AS lasts FROM consent.granted g
    WHERE g.subject = entry.subject AND g.given < entry.sigma
      AND g.recipient = coalesce((entry.body->>'recipient')::integer, g.recipient)
      AND (coalesce(jsonb_typeof(entry.body->'touches'), 'null') <> 'array'
           OR entry.body->'touches' ? g.purpose)
    GROUP BY g.recipient, g.grant_id
  ), provided AS MATERIALIZED (
    SELECT DISTINCT each AS grant_id FROM audit.provision p CROSS JOIN unnest(p.grants) AS each
    WHERE p.subjects @> ARRAY[entry.subject] AND EXISTS (SELECT FROM touched WHERE NOT lasts)
  )
  SELECT r.key, entry.subject, array_agg(t.grant_id ORDER BY t.grant_id)
  FROM touched t JOIN consent.recipient r ON r.id = t.recipient
  WHERE t.lasts OR t.grant_id IN (SELECT grant_id FROM provided)
  GROUP BY r.key
$$;
-- Whoever got anything, by a grant or without one, and whoever might have.
CREATE FUNCTION consent.stopped_erase(entry consent.log)
RETURNS TABLE (recipient text, subject integer, grants uuid[]) LANGUAGE sql STABLE AS $$
  SELECT f.recipient, entry.subject, coalesce(
    array_agg(f.grant_id ORDER BY f.grant_id) FILTER (WHERE f.grant_id IS NOT NULL), '{}')
  FROM (SELECT r.key AS recipient, g.grant_id
        FROM consent.granted g JOIN consent.recipient r ON r.id = g.recipient
        WHERE g.subject = entry.subject
        UNION
        SELECT r.key, NULL FROM audit.provision p JOIN audit.decision d ON d.id = p.decision
        JOIN consent.recipient r ON r.key = d.recipient
        WHERE p.subjects @> ARRAY[entry.subject]) AS f
  GROUP BY f.recipient
$$;

CREATE FUNCTION notices.emit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
DECLARE
  own text := 'stopped_' || lower(new.act);
  stopped text := 'stopped';
BEGIN
  IF to_regprocedure(format('consent.%I(consent.log)', own)) IS NOT NULL THEN
    stopped := own;
  END IF;
  EXECUTE format(
    'INSERT INTO notices.stop (sigma, at, act, recipient, subject, grants, purpose)
     SELECT $1.sigma, $1.at, $1.act, s.recipient, s.subject, s.grants,
            CASE WHEN $1.act = ''OBJECT'' THEN $1.body->>''purpose'' END
     FROM consent.%I($1) AS s', stopped) USING new;
  RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON consent.log FOR EACH ROW EXECUTE FUNCTION notices.emit();

GRANT SELECT ON notices.stop, notices.endpoint TO chimata_gate;
GRANT UPDATE (attempts, tried_at, acknowledged_at, escalated_at) ON notices.stop TO chimata_gate;
GRANT INSERT, UPDATE, DELETE ON notices.endpoint TO chimata_gate;
-- An operator sees that a recipient was not told, never of whom.
GRANT SELECT (id, at, act, recipient, attempts, tried_at, acknowledged_at, escalated_at)
  ON notices.stop TO chimata_read;
GRANT SELECT (recipient, url, failures, error) ON notices.endpoint TO chimata_read;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA notices FROM PUBLIC;

-- What others say of when a checkpoint was there: tokens of a timestamping authority (RFC 3161).
CREATE TABLE audit.timestamp (
  size bigint PRIMARY KEY,  -- of the checkpoint
  at timestamptz NOT NULL,  -- as the authority says
  token bytea NOT NULL      -- its whole answer
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.timestamp
  FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit.timestamp
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.timestamp ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.timestamp ENABLE ALWAYS TRIGGER append_only_whole;
GRANT SELECT, INSERT ON audit.timestamp TO chimata_gate;
