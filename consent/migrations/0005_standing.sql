-- Who else may speak or be heard: guardians for their wards, two operators in an emergency, and the
-- files without which nothing goes abroad (docs/decisions/0011-standing.md).

-- Who acts for whom, and when: until the ward comes of age, or the guardianship ends.
CREATE TABLE consent.guardianship (
  id uuid PRIMARY KEY,
  ward integer NOT NULL,
  guardian integer NOT NULL CHECK (guardian <> ward),
  kind text NOT NULL,
  valid tstzrange NOT NULL CHECK (consent.is_window(valid)),
  EXCLUDE USING gist (ward WITH =, guardian WITH =, valid WITH &&)
);
CREATE INDEX ON consent.guardianship (guardian);

-- A voice: the person's own (null), or that of a guardianship.
ALTER TABLE consent.granted
  ADD guardianship uuid,
  ADD given_at timestamptz NOT NULL DEFAULT '-infinity';
UPDATE consent.granted g SET given_at = l.at FROM consent.log l WHERE l.sigma = g.given;
ALTER TABLE consent.objected
  ADD guardianship uuid,
  -- What other voices grant before that is shut too, however late it was granted.
  ADD until timestamptz NOT NULL DEFAULT 'infinity';

-- A guardian's grant holds no longer than the guardianship: the end is known when it is given, and
-- the clock does the rest. Of a guardianship that there is not, nothing: no window, so no grant.
CREATE OR REPLACE FUNCTION consent.form(entry consent.log) RETURNS consent.granted
LANGUAGE sql STABLE AS $$
  SELECT (entry.body->>'grant')::uuid, entry.sigma, entry.sigma, NULL::bigint, entry.subject,
         (entry.body->>'recipient')::integer,
         entry.body->>'purpose', entry.body->>'category', entry.body->>'operation',
         (entry.body->>'event')::tstzrange,
         (entry.body->>'valid')::tstzrange * CASE WHEN entry.body ? 'guardianship' THEN coalesce(
           (SELECT w.valid FROM consent.guardianship w
            WHERE w.id = (entry.body->>'guardianship')::uuid AND w.ward = entry.subject), 'empty')
           ELSE tstzrange(NULL, NULL) END,
         (entry.body->>'level')::smallint,
         ARRAY(SELECT c FROM jsonb_array_elements_text(entry.body->'countries') c ORDER BY c),
         decode(entry.body->>'notice', 'hex'),
         (entry.body->>'guardianship')::uuid, entry.at
$$;

CREATE FUNCTION consent.apply_guard(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.guardianship VALUES ((entry.body->>'guardianship')::uuid,
    (entry.body->>'ward')::integer, (entry.body->>'guardian')::integer, entry.body->>'kind',
    (entry.body->>'valid')::tstzrange);
  RETURN '{}';
END $$;

-- What was granted by it ends with it; what it objected to stays shut, and binds no later grant.
CREATE FUNCTION consent.apply_unguard(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  voice uuid := entry.body->>'guardianship';
  of_ward integer;
  less integer[];
BEGIN
  SELECT ward INTO STRICT of_ward FROM consent.guardianship WHERE id = voice;
  DELETE FROM consent.guardianship
    WHERE id = voice AND isempty(valid * tstzrange(NULL, entry.at));
  UPDATE consent.guardianship SET valid = valid * tstzrange(NULL, entry.at) WHERE id = voice;
  UPDATE consent.objected SET until = least(until, entry.at) WHERE guardianship = voice;
  WITH closed AS (
    UPDATE consent.granted SET ended = entry.sigma
    WHERE subject = of_ward AND guardianship = voice AND ended IS NULL RETURNING recipient)
  SELECT array_agg(DISTINCT recipient) INTO less FROM closed;
  RETURN coalesce(less, '{}');
END $$;

-- Whoever narrows a grant, it stays in the voice that gave it.
CREATE OR REPLACE FUNCTION consent.apply_narrow(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  before consent.granted;
  after consent.granted := consent.form(entry);
BEGIN
  UPDATE consent.granted SET ended = entry.sigma
    WHERE grant_id = after.grant_id AND ended IS NULL RETURNING * INTO STRICT before;
  after.given := before.given;
  after.given_at := before.given_at;
  after.guardianship := before.guardianship;
  after.valid := (entry.body->>'valid')::tstzrange;
  IF NOT consent.is_within(after, before) THEN
    RAISE EXCEPTION 'it permits more than before' USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO consent.granted SELECT after.*;
  RETURN ARRAY[after.recipient];
END $$;

-- `with`: what other voices granted of the same, which a narrower grant held back while it stood.
CREATE OR REPLACE FUNCTION consent.apply_revoke(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  of_recipient integer;
BEGIN
  UPDATE consent.granted SET ended = entry.sigma
    WHERE grant_id = (entry.body->>'grant')::uuid AND subject = entry.subject AND ended IS NULL
    RETURNING recipient INTO STRICT of_recipient;
  UPDATE consent.granted SET ended = entry.sigma
    WHERE subject = entry.subject AND recipient = of_recipient AND ended IS NULL
      AND grant_id IN (SELECT w::uuid FROM jsonb_array_elements_text(entry.body->'with') w);
  RETURN ARRAY[of_recipient];
END $$;

CREATE OR REPLACE FUNCTION consent.apply_object(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  voice uuid := entry.body->>'guardianship';
BEGIN
  INSERT INTO consent.objected (id, subject, recipient, purpose, sigma, guardianship, until)
  VALUES ((entry.body->>'objection')::uuid, entry.subject, (entry.body->>'recipient')::integer,
    entry.body->>'purpose', entry.sigma, voice,
    coalesce((SELECT upper(valid) FROM consent.guardianship WHERE id = voice), 'infinity'));
  RETURN ARRAY(SELECT DISTINCT recipient FROM consent.granted
               WHERE subject = entry.subject AND ended IS NULL
                 AND recipient = coalesce((entry.body->>'recipient')::integer, recipient));
END $$;

-- Nobody acts for a person who was erased.
CREATE FUNCTION consent.forget_standing(entry consent.log) RETURNS void LANGUAGE sql AS $$
  DELETE FROM consent.guardianship WHERE ward = entry.subject
$$;

-- Countries whose protection of personal information is held to be as good as Japan's: not "foreign"
-- in the sense of Art. 28(1), so nobody need be told of their regime. Law, not an act of ours.
CREATE TABLE consent.designated (
  country text PRIMARY KEY,
  source text NOT NULL
);
INSERT INTO consent.designated
SELECT country, 'APPI Art. 28(1), Rule 15; PPC Notice No. 1 of 2019 (平成31年告示第1号)'
FROM unnest(ARRAY[
  'AT', 'BE', 'BG', 'CY', 'CZ', 'DE', 'DK', 'EE', 'ES', 'FI', 'FR', 'GB', 'GR', 'HR', 'HU', 'IE',
  'IS', 'IT', 'LI', 'LT', 'LU', 'LV', 'MT', 'NL', 'NO', 'PL', 'PT', 'RO', 'SE', 'SI', 'SK'
]) AS country;

-- What a person is told before anything goes abroad (Art. 28(2), Rule 17(2)): of a country its
-- regime, of a recipient there its measures; each holds until its next check is due (Rule 18(1)).
CREATE TABLE consent.transfer_file (
  country text NOT NULL,
  recipient integer REFERENCES consent.recipient,  -- null: of the country itself
  since bigint NOT NULL,  -- who granted before was not told
  text_ja text NOT NULL,
  text_en text NOT NULL,
  source text NOT NULL,
  checked_at timestamptz NOT NULL,
  check_by timestamptz NOT NULL CHECK (check_by > checked_at),
  passed boolean NOT NULL
);
CREATE UNIQUE INDEX ON consent.transfer_file (country, coalesce(recipient, 0));

CREATE TABLE consent.transfer_check (
  id uuid PRIMARY KEY,
  country text NOT NULL,
  recipient integer REFERENCES consent.recipient,
  passed boolean NOT NULL,
  note text NOT NULL,
  checked_at timestamptz NOT NULL,
  check_by timestamptz NOT NULL
);

-- Which recipients abroad may be given anything: until when, and by grants after which act.
CREATE VIEW consent.transferable AS
  SELECT r.id AS recipient, 0::bigint AS since, 'infinity'::timestamptz AS until
  FROM consent.recipient r JOIN consent.designated d USING (country)
  UNION ALL
  SELECT r.id, greatest(c.since, m.since), least(c.check_by, m.check_by)
  FROM consent.recipient r
  JOIN consent.transfer_file c ON c.country = r.country AND c.recipient IS NULL AND c.passed
  JOIN consent.transfer_file m ON m.country = r.country AND m.recipient = r.id AND m.passed;

CREATE FUNCTION consent.recipients_in(of_country text, only_one integer) RETURNS integer[]
LANGUAGE sql STABLE AS $$
  SELECT ARRAY(SELECT id FROM consent.recipient
               WHERE country = of_country AND id = coalesce(only_one, id))
$$;

CREATE FUNCTION consent.apply_transfer_file(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.transfer_file VALUES (entry.body->>'country',
    (entry.body->>'recipient')::integer, entry.sigma, entry.body->>'text_ja',
    entry.body->>'text_en', entry.body->>'source', (entry.body->>'checked_at')::timestamptz,
    (entry.body->>'check_by')::timestamptz, true)
  ON CONFLICT (country, (coalesce(recipient, 0))) DO UPDATE SET
    text_ja = excluded.text_ja, text_en = excluded.text_en, source = excluded.source,
    checked_at = excluded.checked_at, check_by = excluded.check_by, passed = true;
  RETURN consent.recipients_in(entry.body->>'country', (entry.body->>'recipient')::integer);
END $$;

CREATE FUNCTION consent.apply_transfer_check(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  checked consent.transfer_check;
BEGIN
  INSERT INTO consent.transfer_check VALUES ((entry.body->>'check')::uuid, entry.body->>'country',
    (entry.body->>'recipient')::integer, (entry.body->>'passed')::boolean, entry.body->>'note',
    (entry.body->>'checked_at')::timestamptz, (entry.body->>'check_by')::timestamptz)
  RETURNING * INTO checked;
  UPDATE consent.transfer_file f
  SET passed = checked.passed, checked_at = checked.checked_at, check_by = checked.check_by
  WHERE f.country = checked.country AND f.recipient IS NOT DISTINCT FROM checked.recipient
    AND f.checked_at <= checked.checked_at;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no file, or a later check' USING ERRCODE = 'check_violation';
  END IF;
  RETURN consent.recipients_in(checked.country, checked.recipient);
END $$;

-- What one recipient may read of some parties for one purpose, at one moment, as 0002 says it. A
-- voice is a person's own or a guardianship's. Those that granted of the same agree: what any of them
-- leaves out (a time, a country, an exactness) is not permitted, so a grant of other times is a word
-- too. An objection shuts what was given before it by anyone, and what another voice gives later.
CREATE OR REPLACE FUNCTION consent.permits(
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
    SELECT g.grant_id, g.subject, g.guardianship AS voice, g.category, g.event, g.level,
           r.country = ANY(g.countries) AS here
    FROM (SELECT DISTINCT m.subject FROM consent.party_member m WHERE m.party = ANY(parties)) AS m
    JOIN consent.granted g ON g.subject = m.subject AND g.recipient = of_recipient
      AND g.ended IS NULL
    JOIN consent.recipient r ON r.id = g.recipient
    WHERE g.operation = permits.operation
      AND g.purpose = ANY(permits.purposes) AND g.category = ANY(permits.categories)
      AND g.valid @> clock_timestamp() AND NOT r.suspended
      AND (r.country = 'JP' OR EXISTS (
        SELECT FROM consent.transferable t
        WHERE t.recipient = r.id AND t.since < g.given AND t.until > clock_timestamp()))
      AND NOT EXISTS (SELECT FROM consent.objected o
                      WHERE o.subject = g.subject
                        AND (o.sigma > g.given OR (o.guardianship IS DISTINCT FROM g.guardianship
                                                   AND o.until > g.given_at))
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
           coalesce(range_agg(g.event * s.event) FILTER (WHERE g.here AND g.level <= v.number),
                    '{}') AS times,
           array_agg(g.grant_id) FILTER (WHERE g.event && s.event AND g.event && permits.span)
             AS grants
    FROM stream s JOIN consent.party_member m ON m.party = s.party
    CROSS JOIN (SELECT * FROM consent.level WHERE number IN (SELECT l.level FROM live l)) AS v
    LEFT JOIN (unnest(permits.properties, permits.categories) AS p (name, category)
               JOIN live g ON g.category = p.category)
      ON p.name = s.name AND g.subject = m.subject
    GROUP BY s.id, s.party, s.event, m.subject, g.voice, v.number, v.step
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

-- Reading without consent, where a life, a body, property or public health is at stake and consent is
-- hard to get (Art. 27(1)(ii) and (iii)): asked for by one operator, allowed by another, for hours.
CREATE TABLE consent.override (
  id uuid PRIMARY KEY,
  sigma bigint NOT NULL,
  recipient integer NOT NULL REFERENCES consent.recipient,
  purpose text NOT NULL,
  category text NOT NULL,
  sector text NOT NULL,
  event tstzrange NOT NULL CHECK (consent.is_window(event)),
  area polygon,   -- degrees, of a Thing's fixed place or of its positions
  things text[],
  reason text NOT NULL,     -- what has happened
  authority text NOT NULL,  -- who asked for it
  hardship text NOT NULL,   -- why nobody can be asked
  hours integer NOT NULL CHECK (hours BETWEEN 1 AND 24),
  proposer text NOT NULL,
  proposed_at timestamptz NOT NULL,
  approver text CHECK (approver <> proposer),
  valid tstzrange CHECK (upper(valid) - lower(valid) <= interval '24 hours'),
  ended boolean NOT NULL DEFAULT false,
  CHECK (num_nonnulls(area, things) = 1),
  CHECK ((approver IS NULL) = (valid IS NULL))
);

CREATE FUNCTION consent.apply_override(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.override VALUES ((entry.body->>'override')::uuid, entry.sigma,
    (entry.body->>'recipient')::integer, entry.body->>'purpose', entry.body->>'category',
    entry.body->>'sector', (entry.body->>'event')::tstzrange, (entry.body->>'area')::polygon,
    CASE WHEN entry.body ? 'things' THEN ARRAY(
      SELECT t FROM jsonb_array_elements_text(entry.body->'things') t ORDER BY t) END,
    entry.body->>'reason', entry.body->>'authority', entry.body->>'hardship',
    (entry.body->>'hours')::integer, entry.actor, entry.at);
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_override_approve(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  asked consent.override;
BEGIN
  SELECT * INTO STRICT asked FROM consent.override WHERE id = (entry.body->>'override')::uuid;
  IF asked.proposer = entry.actor THEN
    RAISE EXCEPTION 'who asked for it does not approve it' USING ERRCODE = 'check_violation';
  END IF;
  IF asked.approver IS NOT NULL OR asked.ended
     OR entry.at >= asked.proposed_at + interval '24 hours' THEN
    RAISE EXCEPTION 'it was approved or ended before, or asked for too long ago'
      USING ERRCODE = 'check_violation';
  END IF;
  UPDATE consent.override SET approver = entry.actor,
    valid = tstzrange(entry.at, entry.at + make_interval(hours => hours)) WHERE id = asked.id;
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_override_end(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  of_recipient integer;
BEGIN
  UPDATE consent.override SET ended = true, valid = valid * tstzrange(NULL, entry.at)
    WHERE id = (entry.body->>'override')::uuid RETURNING recipient INTO STRICT of_recipient;
  RETURN ARRAY[of_recipient];
END $$;

-- What an override opens of some parties: Things that it names, or the times that a Thing was in its
-- area (a fixed one always; a moving one from each position inside until its next position). Nobody
-- is asked, so objections do not count; of whom was erased nothing is read.
CREATE FUNCTION consent.overridden(
  of_override uuid, of_recipient integer, of_purpose text, of_sector text, properties text[],
  span tstzrange, parties bigint[])
RETURNS TABLE (party bigint, datastream_id integer, kind text, unit text, property text, thing text,
               subjects integer[], grants uuid[], level smallint,
               lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE AS $$
  WITH o AS (
    SELECT o.*, o.event * overridden.span AS times
    FROM consent.override o JOIN consent.recipient r ON r.id = o.recipient
    WHERE o.id = of_override AND o.recipient = of_recipient AND o.purpose = of_purpose
      AND o.sector = of_sector AND o.valid @> clock_timestamp() AND NOT r.suspended
  ), near AS (
    SELECT b.party, t.id, t.key, b.event * o.times AS times, o.area,
           t.key = ANY(o.things) OR o.area @> point(t.longitude, t.latitude) AS whole
    FROM o JOIN consent.binding b ON b.sector = o.sector AND b.event && o.times
    JOIN thing t ON t.sector = b.sector AND t.key = b.thing
    WHERE b.party = ANY(parties) AND NOT EXISTS (
      SELECT FROM consent.party_member m JOIN consent.subject s ON s.id = m.subject
      WHERE m.party = b.party AND s.key IS NULL)
  ), place AS (
    SELECT n.party, n.id, n.key, n.times AS within, n.area @> point(p.longitude, p.latitude) AS inside,
           tstzrange(p.phenomenon_time, lead(p.phenomenon_time) OVER (
             PARTITION BY n.id, n.times ORDER BY p.phenomenon_time)) AS stay
    FROM near n JOIN datastream d ON d.thing_id = n.id AND d.kind = 'position'
    JOIN personal.observation_position p ON p.datastream_id = d.id
      AND p.phenomenon_time >= coalesce(lower(n.times), '-infinity')
      AND p.phenomenon_time < coalesce(upper(n.times), 'infinity')
    WHERE n.area IS NOT NULL AND n.whole IS NOT TRUE
  ), shown AS (
    SELECT party, id, key, tstzmultirange(times) AS times FROM near WHERE whole
    UNION ALL
    SELECT party, id, key, range_agg(stay * within) FROM place
    WHERE inside AND NOT isempty(stay) GROUP BY party, id, key
  )
  SELECT s.party, d.id, d.kind, d.unit, d.property, s.key, p.subjects, '{}'::uuid[], 0::smallint,
         coalesce(lower(piece), '-infinity'), coalesce(upper(piece), 'infinity')
  FROM shown s JOIN consent.party p ON p.id = s.party
  JOIN datastream d ON d.thing_id = s.id
  CROSS JOIN LATERAL unnest(s.times) AS piece
  WHERE split_part(d.property, '/', 1) = ANY(overridden.properties)
$$;

-- By which override a decision was made, and whom it touched: they are told (docs/consent.md).
ALTER TABLE audit.decision ADD override uuid;
CREATE TABLE audit.to_tell (
  override uuid NOT NULL,
  subject integer NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (override, subject)
);
CREATE INDEX ON audit.to_tell (subject);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.to_tell
  FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit.to_tell
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
ALTER TABLE audit.to_tell ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.to_tell ENABLE ALWAYS TRIGGER append_only_whole;
GRANT SELECT, INSERT ON audit.to_tell TO chimata_gate;

CREATE TABLE consent.told (
  override uuid NOT NULL REFERENCES consent.override,
  subject integer NOT NULL,
  at timestamptz NOT NULL,
  how text NOT NULL,
  PRIMARY KEY (override, subject)
);

CREATE FUNCTION consent.apply_override_tell(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.told
  SELECT (entry.body->>'override')::uuid, s::integer, entry.at, entry.body->>'how'
  FROM jsonb_array_elements_text(entry.body->'subjects') s ON CONFLICT DO NOTHING;
  RETURN '{}';
END $$;

INSERT INTO consent.folded (name) VALUES
  ('guardianship'), ('transfer_file'), ('transfer_check'), ('override'), ('told');
GRANT SELECT ON consent.guardianship, consent.designated, consent.transfer_file,
  consent.transfer_check, consent.transferable, consent.override, consent.told TO chimata_gate;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.overridden TO chimata_gate;
