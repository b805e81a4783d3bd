-- The information bank: who recipients are in full, the ethics board that says which of them may ask for
-- what, what the bank publishes of itself, and its end. Beside the fold, ledgers that decide nothing:
-- what persons got, and what went wrong.

-- All that a recipient says of itself. Without it a recipient reads by a person's own grant alone.
CREATE TABLE consent.recipient_profile (
  recipient integer PRIMARY KEY REFERENCES consent.recipient,
  kind text NOT NULL,
  reach text[] NOT NULL,  -- the purposes that it may ask for, with all below them
  retention_days integer NOT NULL CHECK (retention_days > 0),
  body jsonb NOT NULL,    -- word by word, as published
  sigma bigint NOT NULL
);

-- The ethics board (データ倫理審査会).
CREATE TABLE consent.board_member (
  key text PRIMARY KEY,  -- the `sub` of its tokens
  name_ja text NOT NULL,
  name_en text NOT NULL,
  field text NOT NULL CHECK (field IN ('engineering', 'security', 'law', 'ethics', 'consumer', 'medicine')),
  outside boolean NOT NULL,  -- of no part of the bank
  seated boolean NOT NULL
);

-- What is put to the board: whether a recipient may ask for these purposes of these categories.
CREATE TABLE consent.review (
  id uuid PRIMARY KEY,
  recipient integer NOT NULL REFERENCES consent.recipient,
  purposes text[] NOT NULL,
  categories text[] NOT NULL,
  purposes_reach text[] NOT NULL,    -- with all below them
  categories_reach text[] NOT NULL,
  until timestamptz NOT NULL,
  conditions text NOT NULL,
  material bytea NOT NULL CHECK (length(material) = 32),  -- SHA-256 of what the board reads
  state text NOT NULL CHECK (state IN ('open', 'approved', 'refused', 'lapsed')),
  opened bigint NOT NULL,
  decided bigint
);
CREATE INDEX ON consent.review (recipient);

-- A member's newest word. Who has an interest of its own says so, and neither approves nor refuses.
CREATE TABLE consent.review_vote (
  review uuid NOT NULL REFERENCES consent.review,
  member text NOT NULL REFERENCES consent.board_member,
  vote text NOT NULL CHECK (vote IN ('approve', 'refuse', 'recuse')),
  interest text CHECK ((interest IS NOT NULL) = (vote = 'recuse')),
  reason text NOT NULL,
  sigma bigint NOT NULL,
  PRIMARY KEY (review, member)
);

-- What the bank publishes of itself: certification, desk, terms, liability.
CREATE TABLE consent.charter (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  body jsonb NOT NULL,
  sigma bigint NOT NULL,
  at timestamptz NOT NULL
);

-- The end of the bank's business, and what each person says of the handover; no word is no consent.
CREATE TABLE consent.closing (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL,
  body jsonb NOT NULL,
  grants_ended integer NOT NULL,
  sigma bigint NOT NULL,
  at timestamptz NOT NULL
);
CREATE TABLE consent.handover (
  subject integer PRIMARY KEY,
  choice text NOT NULL CHECK (choice IN ('transfer', 'erase', 'neither')),
  sigma bigint NOT NULL,
  at timestamptz NOT NULL
);
INSERT INTO consent.folded (name) VALUES
  ('recipient_profile'), ('board_member'), ('review'), ('review_vote'), ('charter'), ('closing'),
  ('handover');

-- What the board looked at lapses once the recipient is to do more than it said, or is another.
CREATE OR REPLACE FUNCTION consent.apply_register(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  was consent.recipient;
  before consent.recipient_profile;
  after consent.recipient_profile;
  number integer;
BEGIN
  SELECT * INTO was FROM consent.recipient WHERE key = entry.body->>'key';
  INSERT INTO consent.recipient
  SELECT coalesce(max(id), 0) + 1, entry.body->>'key', entry.body->>'title_ja',
         entry.body->>'title_en', entry.body->>'country', false FROM consent.recipient
  ON CONFLICT (key) DO UPDATE SET title_ja = excluded.title_ja, title_en = excluded.title_en,
    country = excluded.country, suspended = false;
  SELECT id INTO STRICT number FROM consent.recipient WHERE key = entry.body->>'key';
  DELETE FROM consent.recipient_profile WHERE recipient = number RETURNING * INTO before;
  INSERT INTO consent.recipient_profile
  SELECT number, said->>'kind', ARRAY(SELECT jsonb_array_elements_text(entry.body->'reach')),
         (said->>'retention_days')::integer, said, entry.sigma
  FROM (SELECT entry.body->'profile' AS said) AS profile WHERE jsonb_typeof(said) = 'object'
  RETURNING * INTO after;
  IF NOT coalesce(after.reach <@ before.reach AND after.retention_days <= before.retention_days
                  AND (after.kind, after.body->'identifier') = (before.kind, before.body->'identifier')
                  AND was.country = entry.body->>'country', false) THEN
    UPDATE consent.review SET state = 'lapsed', decided = entry.sigma
      WHERE recipient = number AND state IN ('open', 'approved');
  END IF;
  -- What persons state of kinds of recipient may not hold for it any more.
  PERFORM consent.end_unstated(entry.sigma, NULL, number);
  -- Elsewhere now, perhaps: where its data may not be.
  RETURN ARRAY[number];
END $$;

CREATE FUNCTION consent.apply_appoint(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.board_member VALUES (entry.body->>'key', entry.body->>'name_ja',
    entry.body->>'name_en', entry.body->>'field', (entry.body->>'outside')::boolean, true)
  ON CONFLICT (key) DO UPDATE SET name_ja = excluded.name_ja, name_en = excluded.name_en,
    field = excluded.field, outside = excluded.outside, seated = true;
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_dismiss(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  UPDATE consent.board_member SET seated = false WHERE key = entry.body->>'key';
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_review(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  put consent.review;
BEGIN
  IF EXISTS (SELECT FROM consent.closing) THEN
    RAISE EXCEPTION 'the bank has closed' USING ERRCODE = 'check_violation';
  END IF;
  put := ((entry.body->>'review')::uuid, (entry.body->>'recipient')::integer,
    ARRAY(SELECT jsonb_array_elements_text(entry.body->'purposes')),
    ARRAY(SELECT jsonb_array_elements_text(entry.body->'categories')),
    ARRAY(SELECT jsonb_array_elements_text(entry.body->'purposes_reach')),
    ARRAY(SELECT jsonb_array_elements_text(entry.body->'categories_reach')),
    (entry.body->>'until')::timestamptz, entry.body->>'conditions',
    decode(entry.body->>'material', 'hex'), 'open', entry.sigma, NULL);
  IF NOT EXISTS (SELECT FROM consent.recipient_profile
                 WHERE recipient = put.recipient AND put.purposes_reach <@ reach) THEN
    RAISE EXCEPTION 'the recipient is not registered for these purposes'
      USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO consent.review SELECT put.*;
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_vote(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM consent.review WHERE id = (entry.body->>'review')::uuid
    AND state IN ('open', 'approved');
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the review has ended' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM 1 FROM consent.board_member WHERE key = entry.body->>'member' AND seated;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'who has no seat has no vote' USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO consent.review_vote VALUES ((entry.body->>'review')::uuid, entry.body->>'member',
    entry.body->>'vote', entry.body->>'interest', entry.body->>'reason', entry.sigma)
  ON CONFLICT (review, member) DO UPDATE SET vote = excluded.vote, interest = excluded.interest,
    reason = excluded.reason, sigma = excluded.sigma;
  RETURN '{}';
END $$;

-- What the votes carry: null below the quorum, which is three votes of those seated and more than half
-- of the seats, one of them from outside and one for consumers. More than half must approve.
CREATE FUNCTION consent.carried(of_review uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN count(*) < greatest(3, (SELECT count(*) / 2 + 1 FROM consent.board_member WHERE seated))
      OR NOT coalesce(bool_or(m.outside), false)
      OR NOT coalesce(bool_or(m.field = 'consumer'), false) THEN NULL
    WHEN count(*) FILTER (WHERE v.vote = 'approve') * 2 > count(*) THEN 'approved'
    ELSE 'refused' END
  FROM consent.review_vote v JOIN consent.board_member m ON m.key = v.member
  WHERE v.review = of_review AND v.vote <> 'recuse' AND m.seated
$$;

-- Votes may change after: a new count may take an approval back, and never gives one.
CREATE FUNCTION consent.apply_decide(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  outcome text := consent.carried((entry.body->>'review')::uuid);
BEGIN
  IF outcome IS NULL THEN
    RAISE EXCEPTION 'there is no quorum' USING ERRCODE = 'check_violation';
  END IF;
  UPDATE consent.review SET state = outcome, decided = entry.sigma
    WHERE id = (entry.body->>'review')::uuid
      AND (state = 'open' OR (state = 'approved' AND outcome = 'refused'));
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the review has ended' USING ERRCODE = 'check_violation';
  END IF;
  RETURN '{}';
END $$;

CREATE OR REPLACE FUNCTION consent.kind_of(of_recipient integer) RETURNS text
LANGUAGE sql STABLE AS $$
  SELECT kind FROM consent.recipient_profile WHERE recipient = of_recipient
$$;

-- Whether a recipient may ask for this now.
CREATE OR REPLACE FUNCTION consent.is_reviewed(recipient integer, purpose text, category text)
RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT FROM consent.review v JOIN consent.recipient r ON r.id = v.recipient
    JOIN consent.recipient_profile p ON p.recipient = v.recipient
    WHERE v.recipient = is_reviewed.recipient AND v.state = 'approved'
      AND v.until > clock_timestamp() AND NOT r.suspended
      AND is_reviewed.purpose = ANY(v.purposes_reach) AND is_reviewed.purpose = ANY(p.reach)
      AND is_reviewed.category = ANY(v.categories_reach))
    AND NOT EXISTS (SELECT FROM consent.closing)
$$;

CREATE FUNCTION consent.apply_charter(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.charter VALUES (true, entry.body, entry.sigma, entry.at)
  ON CONFLICT (one) DO UPDATE SET body = excluded.body, sigma = excluded.sigma, at = excluded.at;
  RETURN '{}';
END $$;

-- All mandates end, and with them what was granted for persons; so do requests and reviews. What a person
-- granted stands, as that person's own word.
CREATE FUNCTION consent.apply_close(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  ended integer;
  recipients integer[];
BEGIN
  WITH stopped AS (
    UPDATE consent.granted g SET ended = entry.sigma FROM consent.log l
    WHERE l.sigma = g.given AND l.actor_kind = 'delegate' AND g.ended IS NULL
    RETURNING g.recipient)
  SELECT count(*), coalesce(array_agg(DISTINCT recipient), '{}') INTO ended, recipients FROM stopped;
  UPDATE consent.mandate m SET ended = entry.sigma WHERE m.ended IS NULL;
  UPDATE consent.request SET closed = entry.sigma WHERE closed IS NULL;
  UPDATE consent.review SET state = 'lapsed', decided = entry.sigma
    WHERE state IN ('open', 'approved');
  INSERT INTO consent.closing VALUES (true, (entry.body->>'closing')::uuid, entry.body, ended,
    entry.sigma, entry.at);
  RETURN recipients;
END $$;

CREATE FUNCTION consent.apply_handover(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM consent.closing
    WHERE entry.body->>'choice' <> 'transfer' OR jsonb_typeof(body->'successor') = 'object';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'nothing is handed over to anyone' USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO consent.handover
    VALUES (entry.subject, entry.body->>'choice', entry.sigma, entry.at)
  ON CONFLICT (subject) DO UPDATE SET choice = excluded.choice, sigma = excluded.sigma,
    at = excluded.at;
  RETURN '{}';
END $$;

-- A delegate acts for the bank: to recipients that its board approved, and no more once it has closed.
CREATE FUNCTION consent.check_delegate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM consent.closing) THEN
    RAISE EXCEPTION 'the bank has closed' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.act = 'GRANT' AND NOT consent.is_reviewed((NEW.body->>'recipient')::integer,
      NEW.body->>'purpose', NEW.body->>'category') THEN
    RAISE EXCEPTION 'the board has not approved that' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER check_delegate BEFORE INSERT ON consent.log FOR EACH ROW
  WHEN (NEW.actor_kind = 'delegate' AND NEW.act <> 'REVOKE')
  EXECUTE FUNCTION consent.check_delegate();

-- What a recipient gave to a person for its data.
CREATE TABLE consent.benefit (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor text NOT NULL,
  recipient integer NOT NULL,
  subject integer NOT NULL,
  grant_id uuid,  -- the grant that it was for, where one is named
  request uuid,   -- the request that it was promised in
  kind text NOT NULL CHECK (kind IN ('money', 'points', 'discount', 'service', 'information')),
  amount numeric CHECK (amount > 0),
  unit text CHECK ((unit IS NULL) = (amount IS NULL)),
  text text NOT NULL,
  day date NOT NULL
);
CREATE INDEX ON consent.benefit (subject, at, id);

-- A leak, loss or damage of personal data (Art. 26 of the Act on the Protection of Personal Information).
CREATE TABLE consent.incident (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor text NOT NULL,
  known_at timestamptz NOT NULL,
  recipient integer,        -- at whom it happened; null: at the bank
  happened tstzrange NOT NULL,
  grounds text[] NOT NULL,  -- of Rule 7: why it has to be reported
  body jsonb NOT NULL       -- as it was sent
);
CREATE INDEX ON consent.incident (at, id);
CREATE TABLE consent.incident_person (
  incident uuid NOT NULL REFERENCES consent.incident,
  subject integer NOT NULL,
  PRIMARY KEY (subject, incident)
);
CREATE INDEX ON consent.incident_person (incident);
CREATE TABLE consent.incident_step (
  id uuid PRIMARY KEY,
  incident uuid NOT NULL REFERENCES consent.incident,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor text NOT NULL,
  step text NOT NULL CHECK (step IN ('preliminary', 'final', 'told', 'published', 'recourse', 'closed')),
  body jsonb NOT NULL
);
CREATE INDEX ON consent.incident_step (incident, at);
CREATE TABLE consent.compensation (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor text NOT NULL,
  incident uuid NOT NULL,
  subject integer NOT NULL,
  amount numeric NOT NULL CHECK (amount > 0),
  unit text NOT NULL,
  text text NOT NULL,
  FOREIGN KEY (subject, incident) REFERENCES consent.incident_person
);
CREATE INDEX ON consent.compensation (incident);

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['benefit', 'incident', 'incident_person', 'incident_step',
                              'compensation'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON consent.%I
                    FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON consent.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('ALTER TABLE consent.%I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE consent.%I ENABLE ALWAYS TRIGGER append_only_whole', name);
    EXECUTE format('GRANT SELECT, INSERT ON consent.%I TO chimata_gate', name);
  END LOOP;
END $$;

GRANT SELECT ON consent.recipient_profile, consent.board_member, consent.review,
  consent.review_vote, consent.charter, consent.closing, consent.handover TO chimata_gate;
-- What everyone may know is read by the role that sees nothing personal.
GRANT USAGE ON SCHEMA consent TO chimata_read;
GRANT SELECT ON consent.recipient, consent.recipient_profile, consent.board_member, consent.review,
  consent.charter, consent.closing TO chimata_read;
GRANT SELECT (id) ON consent.incident TO chimata_read;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.kind_of, consent.is_reviewed, consent.carried
  TO chimata_gate;
