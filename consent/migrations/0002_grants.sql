-- Grants. The state of consent is a fold of one append-only log: consent.apply is its step, nothing
-- else writes the tables of state, and consent.replay makes them again from nothing.
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE SCHEMA consent;
GRANT USAGE ON SCHEMA consent TO chimata_gate;

-- Who a number stands for. Not in the log: what is forgotten here leaves the log without a name.
CREATE TABLE consent.subject (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text UNIQUE  -- the `sub` of the person's tokens; null once erased
);

-- σ: its row lock, held until the commit, makes the order of numbers the order of commits.
CREATE TABLE consent.clock (sigma bigint NOT NULL);
INSERT INTO consent.clock VALUES (0);

CREATE TABLE consent.log (
  sigma bigint PRIMARY KEY,
  at timestamptz NOT NULL,
  act text NOT NULL CHECK (act IN (
    'REGISTER', 'SUSPEND', 'BIND', 'UNBIND', 'GRANT', 'NARROW', 'REVOKE', 'OBJECT')),
  subject integer,  -- null: an act about no single person
  actor text NOT NULL,
  actor_kind text NOT NULL CHECK (actor_kind IN ('self', 'operator')),
  body jsonb NOT NULL,
  less integer[] NOT NULL  -- the recipients who may see less since then
);
CREATE INDEX ON consent.log (subject, sigma);
CREATE INDEX ON consent.log (sigma) WHERE subject IS NULL;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON consent.log
  FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON consent.log
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE consent.log ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE consent.log ENABLE ALWAYS TRIGGER append_only_whole;

-- Who may be granted anything.
CREATE TABLE consent.recipient (
  id integer PRIMARY KEY,  -- in the order of registration
  key text NOT NULL UNIQUE,  -- the `sub` of its tokens
  title_ja text NOT NULL,
  title_en text NOT NULL,
  country text NOT NULL,  -- ISO 3166-1 alpha-2: where it keeps the data
  suspended boolean NOT NULL
);

-- How far what is disclosed is reduced (consent/levels.py says why, and of what standard).
CREATE TABLE consent.level (
  number smallint PRIMARY KEY,
  name text NOT NULL UNIQUE,
  step interval NOT NULL,
  longitude double precision NOT NULL,  -- the width of a cell, degrees
  latitude double precision NOT NULL    -- its height
);
INSERT INTO consent.level VALUES
  (0, 'exact', '0', 0, 0),
  (1, 'minute', '1 minute', 4.5 / 3600, 3.0 / 3600),
  (2, 'quarter', '15 minutes', 22.5 / 3600, 15.0 / 3600),
  (3, 'hour', '1 hour', 45.0 / 3600, 30.0 / 3600),
  (4, 'day', '1 day', 7.5 / 60, 5.0 / 60);

-- The beginning of the step that holds a moment, or of the first one that is not before it.
CREATE FUNCTION consent.down(moment timestamptz, step interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN step = '0' THEN moment
              ELSE date_bin(step, moment, '1970-01-01 00:00:00+09') END
$$;
CREATE FUNCTION consent.up(moment timestamptz, step interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
  SELECT consent.down(moment + CASE WHEN step = '0' THEN '0' ELSE step - interval '1 us' END, step)
$$;
-- The whole steps inside of some times.
CREATE FUNCTION consent.inward(times tstzmultirange, step interval) RETURNS tstzmultirange
LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(range_agg(CASE WHEN coalesce(first < last, true) THEN tstzrange(first, last) END),
                  '{}')
  FROM unnest(times) AS r
  CROSS JOIN LATERAL (SELECT consent.up(lower(r), step) AS first, consent.down(upper(r), step) AS last
                     ) AS step_of
$$;

CREATE FUNCTION consent.is_window(span tstzrange) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT NOT isempty(span) AND (lower_inf(span) OR lower_inc(span)) AND NOT upper_inc(span)
$$;

-- Each form that a grant has had: NARROW ends one and begins the next, REVOKE ends the last.
CREATE TABLE consent.granted (
  grant_id uuid NOT NULL,
  sigma bigint NOT NULL,  -- of this form
  given bigint NOT NULL,  -- of the grant
  ended bigint,
  subject integer NOT NULL,
  recipient integer NOT NULL REFERENCES consent.recipient,
  purpose text NOT NULL,
  category text NOT NULL,
  operation text NOT NULL,
  event tstzrange NOT NULL CHECK (consent.is_window(event)),  -- of what time the data may be
  valid tstzrange NOT NULL CHECK (consent.is_window(valid)),  -- when they may be read
  level smallint NOT NULL REFERENCES consent.level,
  countries text[] NOT NULL,                                  -- where the recipient may be
  notice bytea NOT NULL CHECK (length(notice) = 32),          -- SHA-256 of what the person read
  PRIMARY KEY (grant_id, sigma)
);
CREATE UNIQUE INDEX ON consent.granted (grant_id) WHERE ended IS NULL;
CREATE INDEX ON consent.granted (subject, recipient) WHERE ended IS NULL;
CREATE INDEX ON consent.granted (recipient, category, purpose, operation) INCLUDE (subject)
  WHERE ended IS NULL;

-- An objection shuts every grant that was given before it; a later grant is the person's new word.
CREATE TABLE consent.objected (
  id uuid PRIMARY KEY,
  subject integer NOT NULL,
  recipient integer,  -- null: any
  purpose text,       -- null: any; else it and all below it
  sigma bigint NOT NULL
);
CREATE INDEX ON consent.objected (subject);

-- The set of persons whom one observation describes: those in a shared car.
CREATE TABLE consent.party (
  id bigint PRIMARY KEY,  -- the σ of the first binding to it
  subjects integer[] NOT NULL UNIQUE CHECK (cardinality(subjects) > 0)
);
CREATE TABLE consent.party_member (
  party bigint NOT NULL REFERENCES consent.party,
  subject integer NOT NULL,
  PRIMARY KEY (subject, party)
);
CREATE INDEX ON consent.party_member (party);

-- Whom a Thing's observations describe at a time of theirs: said once for each moment, never
-- changed; an open end may be set, for what is yet to come. A Thing may be bound before it is heard.
CREATE TABLE consent.binding (
  id uuid PRIMARY KEY,
  sector text NOT NULL,
  thing text NOT NULL,
  party bigint NOT NULL REFERENCES consent.party,
  event tstzrange NOT NULL CHECK (consent.is_window(event)),
  EXCLUDE USING gist (sector WITH =, thing WITH =, event WITH &&)
);
CREATE INDEX ON consent.binding (party);

-- The form of a grant that an entry's body tells.
CREATE FUNCTION consent.form(entry consent.log) RETURNS consent.granted
LANGUAGE sql STABLE AS $$
  SELECT (entry.body->>'grant')::uuid, entry.sigma, entry.sigma, NULL::bigint, entry.subject,
         (entry.body->>'recipient')::integer,
         entry.body->>'purpose', entry.body->>'category', entry.body->>'operation',
         (entry.body->>'event')::tstzrange, (entry.body->>'valid')::tstzrange,
         (entry.body->>'level')::smallint,
         ARRAY(SELECT c FROM jsonb_array_elements_text(entry.body->'countries') c ORDER BY c),
         decode(entry.body->>'notice', 'hex')
$$;

-- Whether a form permits nothing that another does not: what NARROW may say.
CREATE FUNCTION consent.is_within(narrow consent.granted, wide consent.granted) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
  SELECT (narrow.subject, narrow.recipient, narrow.purpose, narrow.category, narrow.operation)
       = (wide.subject, wide.recipient, wide.purpose, wide.category, wide.operation)
     AND narrow.event <@ wide.event AND narrow.valid <@ wide.valid
     AND narrow.level >= wide.level AND narrow.countries <@ wide.countries
$$;

-- Take one entry into the state; whose readers may have to see less from now on.
CREATE FUNCTION consent.apply(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  body jsonb := entry.body;
  before consent.granted;
  after consent.granted;
  members integer[];
  chosen bigint;
BEGIN
  CASE entry.act
  WHEN 'REGISTER' THEN
    INSERT INTO consent.recipient
    SELECT coalesce(max(id), 0) + 1, body->>'key', body->>'title_ja', body->>'title_en',
           body->>'country', false FROM consent.recipient
    ON CONFLICT (key) DO UPDATE SET title_ja = excluded.title_ja, title_en = excluded.title_en,
      country = excluded.country, suspended = false;
    -- Elsewhere now, perhaps: where its data may not be.
    RETURN ARRAY(SELECT id FROM consent.recipient WHERE key = body->>'key');
  WHEN 'SUSPEND' THEN
    UPDATE consent.recipient SET suspended = true WHERE key = body->>'key';
    RETURN ARRAY(SELECT id FROM consent.recipient WHERE key = body->>'key');
  WHEN 'BIND' THEN
    SELECT array_agg(DISTINCT s::integer ORDER BY s::integer) INTO members
      FROM jsonb_array_elements_text(body->'subjects') s;
    SELECT id INTO chosen FROM consent.party WHERE subjects = members;
    IF NOT FOUND THEN
      chosen := entry.sigma;
      INSERT INTO consent.party VALUES (chosen, members);
      INSERT INTO consent.party_member SELECT chosen, unnest(members);
    END IF;
    INSERT INTO consent.binding VALUES ((body->>'binding')::uuid, body->>'sector', body->>'thing',
      chosen, (body->>'event')::tstzrange);
    RETURN '{}';
  WHEN 'UNBIND' THEN
    SELECT party INTO STRICT chosen FROM consent.binding WHERE id = (body->>'binding')::uuid;
    DELETE FROM consent.binding
      WHERE id = (body->>'binding')::uuid AND isempty(event * tstzrange(NULL, entry.at));
    UPDATE consent.binding SET event = event * tstzrange(NULL, entry.at)
      WHERE id = (body->>'binding')::uuid;
    RETURN ARRAY(SELECT DISTINCT g.recipient FROM consent.granted g
                 JOIN consent.party_member m USING (subject)
                 WHERE m.party = chosen AND g.ended IS NULL);
  WHEN 'GRANT' THEN
    after := consent.form(entry);
    IF EXISTS (SELECT FROM consent.granted WHERE grant_id = after.grant_id) THEN
      RAISE EXCEPTION 'another grant has this id' USING ERRCODE = 'unique_violation';
    END IF;
    INSERT INTO consent.granted SELECT after.*;
    RETURN '{}';
  WHEN 'NARROW' THEN
    after := consent.form(entry);
    UPDATE consent.granted SET ended = entry.sigma
      WHERE grant_id = after.grant_id AND ended IS NULL RETURNING * INTO STRICT before;
    IF NOT consent.is_within(after, before) THEN
      RAISE EXCEPTION 'it permits more than before' USING ERRCODE = 'check_violation';
    END IF;
    after.given := before.given;
    INSERT INTO consent.granted SELECT after.*;
    RETURN ARRAY[after.recipient];
  WHEN 'REVOKE' THEN
    UPDATE consent.granted SET ended = entry.sigma
      WHERE grant_id = (body->>'grant')::uuid AND subject = entry.subject AND ended IS NULL
      RETURNING * INTO STRICT before;
    RETURN ARRAY[before.recipient];
  WHEN 'OBJECT' THEN
    INSERT INTO consent.objected VALUES ((body->>'objection')::uuid, entry.subject,
      (body->>'recipient')::integer, body->>'purpose', entry.sigma);
    RETURN ARRAY(SELECT DISTINCT recipient FROM consent.granted
                 WHERE subject = entry.subject AND ended IS NULL
                   AND recipient = coalesce((body->>'recipient')::integer, recipient));
  END CASE;
END $$;

-- Append one act and take it in: its number, its time, and whose readers may have to see less. Must be
-- the last statement of its transaction: every other writer waits for its commit.
CREATE FUNCTION consent.write(act text, subject integer, actor text, actor_kind text, body jsonb,
                              OUT sigma bigint, OUT at timestamptz, OUT less integer[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  entry consent.log;
BEGIN
  UPDATE consent.clock c SET sigma = c.sigma + 1 RETURNING c.sigma INTO entry.sigma;
  entry.at := clock_timestamp();
  entry.act := write.act;
  entry.subject := write.subject;
  entry.actor := write.actor;
  entry.actor_kind := write.actor_kind;
  entry.body := write.body;
  less := consent.apply(entry);
  entry.less := less;
  INSERT INTO consent.log SELECT entry.*;
  write.sigma := entry.sigma;
  write.at := entry.at;
END $$;

-- Make the state again from the log, in its order; how many entries it has.
CREATE FUNCTION consent.replay() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
DECLARE
  entry consent.log;
  count bigint := 0;
BEGIN
  PERFORM 1 FROM consent.clock FOR UPDATE;
  DELETE FROM consent.granted;
  DELETE FROM consent.objected;
  DELETE FROM consent.binding;
  DELETE FROM consent.party_member;
  DELETE FROM consent.party;
  DELETE FROM consent.recipient;
  FOR entry IN SELECT * FROM consent.log ORDER BY sigma LOOP
    PERFORM consent.apply(entry);
    count := count + 1;
  END LOOP;
  RETURN count;
END $$;

-- The number of a person or, for one never heard of, a new one.
CREATE FUNCTION consent.subject_of(person text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
DECLARE
  found integer;
BEGIN
  SELECT id INTO found FROM consent.subject WHERE key = person;
  IF found IS NULL THEN
    INSERT INTO consent.subject (key) VALUES (person) ON CONFLICT (key) DO NOTHING;
    SELECT id INTO found FROM consent.subject WHERE key = person;
  END IF;
  RETURN found;
END $$;

-- What one recipient may read of some parties for one purpose, at one moment: spans of Datastreams,
-- each with the level that it is to be reduced to. Each person of a span must permit it, and the
-- strictest counts; of several grants of one person the least strict does, else taking one back could
-- show more. Reduced, only steps that are over and wholly permitted count: else the edge of a window
-- would choose which of a step's observations is shown, and an open step would show each. Categories
-- come as pairs: an observed property, and a category whose grant reaches it. `above` is the purpose
-- with all above it, `purposes` those whose grant reaches it. The plan is kept: planning took longer.
CREATE FUNCTION consent.permits(
  of_recipient integer, purposes text[], above text[], operation text,
  of_sector text, properties text[], categories text[],
  span tstzrange, parties bigint[])
RETURNS TABLE (party bigint, datastream_id integer, kind text, unit text, property text, thing text,
               subjects integer[], grants uuid[], level smallint,
               lower timestamptz, upper timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY WITH live AS MATERIALIZED (
    SELECT g.grant_id, g.subject, g.category, g.event, g.level
    FROM (SELECT DISTINCT m.subject FROM consent.party_member m WHERE m.party = ANY(parties)) AS m
    JOIN consent.granted g ON g.subject = m.subject AND g.recipient = of_recipient
      AND g.ended IS NULL
    JOIN consent.recipient r ON r.id = g.recipient
    WHERE g.operation = permits.operation
      AND g.purpose = ANY(permits.purposes) AND g.category = ANY(permits.categories)
      AND g.valid @> clock_timestamp() AND g.event && permits.span
      AND NOT r.suspended AND r.country = ANY(g.countries)
      AND NOT EXISTS (SELECT FROM consent.objected o
                      WHERE o.subject = g.subject AND o.sigma > g.given
                        AND (o.recipient IS NULL OR o.recipient = g.recipient)
                        AND (o.purpose IS NULL OR o.purpose = ANY(permits.above)))
  ), stream AS MATERIALIZED (
    SELECT d.id, d.kind, d.unit, d.property, split_part(d.property, '/', 1) AS name,
           t.key AS thing, b.party, b.event
    FROM consent.binding b
    JOIN thing t ON t.sector = b.sector AND t.key = b.thing
    JOIN datastream d ON d.thing_id = t.id
    WHERE b.party = ANY(parties) AND b.event && permits.span AND b.sector = of_sector
      AND split_part(d.property, '/', 1) = ANY(permits.properties)
  ), held AS (
    SELECT s.id, s.party, s.event, m.subject, v.number AS level, v.step,
           coalesce(range_agg(g.event * s.event) FILTER (WHERE g.level <= v.number), '{}') AS times,
           array_agg(g.grant_id) FILTER (WHERE g.grant_id IS NOT NULL) AS grants
    FROM stream s JOIN consent.party_member m ON m.party = s.party
    CROSS JOIN (SELECT * FROM consent.level WHERE number IN (SELECT l.level FROM live l)) AS v
    LEFT JOIN (unnest(permits.properties, permits.categories) AS p (name, category)
               JOIN live g ON g.category = p.category)
      ON p.name = s.name AND g.subject = m.subject AND g.event && s.event
    GROUP BY s.id, s.party, s.event, m.subject, v.number, v.step
  ), given AS (
    SELECT h.id, h.party, h.event, array_agg(DISTINCT g ORDER BY g) AS grants
    FROM held h CROSS JOIN unnest(h.grants) AS g GROUP BY h.id, h.party, h.event
  ), joint AS (
    SELECT id, party, event, level, step, array_agg(DISTINCT subject) AS subjects,
           range_intersect_agg(times) * CASE WHEN step = '0' THEN tstzmultirange(tstzrange(NULL, NULL))
             ELSE tstzmultirange(tstzrange(NULL, clock_timestamp())) END AS times
    FROM held GROUP BY id, party, event, level, step
  ), apart AS (
    SELECT id, party, event, level, step, subjects,
           consent.inward(times, step) - consent.inward(
             lag(times, 1, '{}') OVER (PARTITION BY id, party, event ORDER BY level), step) AS times
    FROM joint
  )
  SELECT s.party, s.id, s.kind, s.unit, s.property, s.thing, a.subjects,
         i.grants, a.level, coalesce(lower(piece), '-infinity'), coalesce(upper(piece), 'infinity')
  FROM apart a JOIN stream s USING (id, party, event) JOIN given i USING (id, party, event)
  CROSS JOIN LATERAL unnest(a.times * tstzmultirange(tstzrange(
    consent.up(lower(permits.span), a.step), consent.up(upper(permits.span), a.step)))) AS piece;
END $$;

-- One delivery to a recipient (Art. 29 and 30 of the Act on the Protection of Personal Information):
-- the decision is audit.decision's, with the same id; its items say whose data of which times.
ALTER TABLE audit.decision ADD sigma bigint;  -- of the state it was decided on
CREATE TABLE audit.provision (
  decision uuid NOT NULL,
  subjects integer[] NOT NULL,
  sector text NOT NULL,
  datastream_id integer NOT NULL,
  grants uuid[] NOT NULL,
  rows integer NOT NULL,
  time_min timestamptz NOT NULL,
  time_max timestamptz NOT NULL
);
CREATE INDEX ON audit.provision (decision);
CREATE INDEX ON audit.provision USING gin (subjects);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.provision
  FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit.provision
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.provision ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.provision ENABLE ALWAYS TRIGGER append_only_whole;
GRANT INSERT, SELECT ON audit.provision TO chimata_gate;

GRANT SELECT ON ALL TABLES IN SCHEMA consent TO chimata_gate;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.write, consent.subject_of, consent.permits, consent.up,
  consent.down, consent.inward TO chimata_gate;
