-- Privacy Policy Manager: what persons state once, what recipients ask of everyone, and who may answer
-- for a person. A grant on a person's standing word is refused here unless the statements allow it.

-- The vocabulary in which statements are matched (consent/vocabulary.py, consent/recipient_kinds.py): a
-- statement is read in the version in which it was made, so that the log tells the same for ever.
CREATE TABLE consent.term (
  version text NOT NULL,
  tree text NOT NULL,
  code text NOT NULL,
  above text[] NOT NULL,     -- it and all above it
  reaching text[] NOT NULL,  -- those of which a grant permits it, itself first
  explicit boolean NOT NULL, -- whether it, or one above it, needs a word of its own
  special boolean NOT NULL,  -- whether it, or one above it, requires care
  PRIMARY KEY (version, tree, code)
);
WITH RECURSIVE said (tree, code, parent, explicit, special) AS (VALUES
  ('purpose', 'dpv:ServiceManagement', 'dpv:Purpose', false, false),
  ('purpose', 'dpv:ServiceProvision', 'dpv:ServiceManagement', false, false),
  ('purpose', 'dpv:RequestedServiceProvision', 'dpv:ServiceProvision', false, false),
  ('purpose', 'public:PublicServiceProvision', 'dpv:ServiceProvision', false, false),
  ('purpose', 'health:ServiceProvision', 'dpv:ServiceProvision', true, false),
  ('purpose', 'dpv:PaymentManagement', 'dpv:ServiceManagement', false, false),
  ('purpose', 'dpv:ServicePersonalisation', 'dpv:ServiceManagement', false, false),
  ('purpose', 'dpv:ProvidePersonalisedRecommendations', 'dpv:ServicePersonalisation', false, false),
  ('purpose', 'dpv:ServiceOptimisation', 'dpv:ServiceManagement', false, false),
  ('purpose', 'dpv:ImproveExistingProductsAndServices', 'dpv:ServiceOptimisation', false, false),
  ('purpose', 'dpv:ServiceUsageAnalytics', 'dpv:ServiceManagement', false, false),
  ('purpose', 'dpv:SellDataToThirdParties', 'dpv:ServiceProvision', true, false),
  ('purpose', 'dpv:SellInsightsFromData', 'dpv:ServiceProvision', true, false),
  ('purpose', 'dpv:ResearchAndDevelopment', 'dpv:Purpose', false, false),
  ('purpose', 'dpv:AcademicResearch', 'dpv:ResearchAndDevelopment', false, false),
  ('purpose', 'dpv:ScientificResearch', 'dpv:ResearchAndDevelopment', false, false),
  ('purpose', 'dpv:NonCommercialResearch', 'dpv:ResearchAndDevelopment', false, false),
  ('purpose', 'dpv:CommercialResearch', 'dpv:ResearchAndDevelopment', true, false),
  ('purpose', 'dpv:PublicBenefit', 'dpv:Purpose', false, false),
  ('purpose', 'dpv:ImprovePublicServices', 'dpv:PublicBenefit', false, false),
  ('purpose', 'dpv:ImproveTransportMobility', 'dpv:PublicBenefit', false, false),
  ('purpose', 'dpv:ImproveHealthcare', 'dpv:PublicBenefit', false, false),
  ('purpose', 'dpv:CombatClimateChange', 'dpv:PublicBenefit', false, false),
  ('purpose', 'dpv:ProvideOfficialStatistics', 'dpv:PublicBenefit', false, false),
  ('purpose', 'dpv:ProtectionOfPublicSecurity', 'dpv:PublicBenefit', true, false),
  ('purpose', 'health:PublicHealthSurveillance', 'dpv:Purpose', true, false),
  ('purpose', 'health:EmergencyCareManagement', 'dpv:Purpose', true, false),
  ('purpose', 'infra:CriticalEmergencyResponseManagement', 'dpv:Purpose', true, false),
  ('purpose', 'dpv:Marketing', 'dpv:Purpose', true, false),
  ('purpose', 'dpv:Advertising', 'dpv:Marketing', false, false),
  ('purpose', 'dpv:PersonalisedAdvertising', 'dpv:Advertising', true, false),
  ('purpose', 'dpv:FraudPreventionAndDetection', 'dpv:Purpose', true, false),
  ('purpose', 'dpv:LegalCompliance', 'dpv:Purpose', true, false),
  ('purpose', 'dpv:RightsFulfilment', 'dpv:Purpose', true, false),
  ('category', 'pd:Identifying', 'dpv:PersonalData', false, false),
  ('category', 'pd:Name', 'pd:Identifying', false, false),
  ('category', 'pd:OfficialID', 'pd:Identifying', false, false),
  ('category', 'pd:UID', 'pd:Identifying', false, false),
  ('category', 'pd:Picture', 'pd:Identifying', false, false),
  ('category', 'pd:Biometric', 'pd:Identifying', true, true),
  ('category', 'pd:Contact', 'dpv:PersonalData', false, false),
  ('category', 'pd:EmailAddress', 'pd:Contact', false, false),
  ('category', 'pd:TelephoneNumber', 'pd:Contact', false, false),
  ('category', 'pd:Location', 'dpv:PersonalData', false, false),
  ('category', 'pd:PhysicalAddress', 'pd:Location', true, false),
  ('category', 'pd:CurrentLocation', 'pd:Location', false, false),
  ('category', 'pd:GPSCoordinate', 'pd:CurrentLocation', false, false),
  ('category', 'pd:TravelHistory', 'pd:Location', false, false),
  ('category', 'chimata:MovementTrack', 'pd:TravelHistory', false, false),
  ('category', 'chimata:TransitTap', 'pd:TravelHistory', false, false),
  ('category', 'pd:HomeLocation', 'pd:Location', false, false),
  ('category', 'pd:WorkLocation', 'pd:Location', false, false),
  ('category', 'pd:DeviceBased', 'dpv:PersonalData', false, false),
  ('category', 'pd:Vehicle', 'dpv:PersonalData', false, false),
  ('category', 'pd:VehicleUsage', 'pd:Vehicle', false, false),
  ('category', 'pd:MedicalHealth', 'dpv:PersonalData', true, true),
  ('category', 'pd:HealthRecord', 'pd:MedicalHealth', false, false),
  ('category', 'pd:Prescription', 'pd:MedicalHealth', false, false),
  ('category', 'pd:Health', 'pd:MedicalHealth', false, false),
  ('category', 'pd:PhysicalHealth', 'pd:Health', false, false),
  ('category', 'pd:MentalHealth', 'pd:Health', false, false),
  ('category', 'pd:Genetic', 'pd:Health', true, false),
  ('category', 'chimata:VitalSign', 'pd:PhysicalHealth', false, false),
  ('category', 'chimata:HeartRate', 'chimata:VitalSign', false, false),
  ('category', 'chimata:BloodPressure', 'chimata:VitalSign', false, false),
  ('category', 'chimata:BodyTemperature', 'chimata:VitalSign', false, false),
  ('category', 'chimata:OxygenSaturation', 'chimata:VitalSign', false, false),
  ('category', 'health:PersonGeneratedHealthData', 'pd:MedicalHealth', false, false),
  ('category', 'pd:Behavioural', 'dpv:PersonalData', false, false),
  ('category', 'pd:ServiceConsumptionBehaviour', 'pd:Behavioural', false, false),
  ('category', 'pd:Household', 'dpv:PersonalData', false, false),
  ('category', 'chimata:EnergyUse', 'pd:Household', false, false),
  ('category', 'pd:Financial', 'dpv:PersonalData', true, false),
  ('category', 'pd:Transaction', 'pd:Financial', false, false),
  ('category', 'pd:Demographic', 'dpv:PersonalData', false, false),
  ('category', 'pd:Age', 'dpv:PersonalData', false, false),
  ('category', 'pd:Race', 'dpv:PersonalData', true, true),
  ('category', 'pd:ReligiousBelief', 'dpv:PersonalData', true, true),
  ('category', 'pd:Criminal', 'dpv:PersonalData', true, true),
  ('category', 'pd:SocialStatus', 'dpv:PersonalData', true, true),
  ('kind', 'dpv:GovernmentalOrganisation', 'dpv:Organisation', false, false),
  ('kind', 'chimata:LawEnforcement', 'dpv:GovernmentalOrganisation', true, false),
  ('kind', 'dpv:HealthcareOrganisation', 'dpv:Organisation', false, false),
  ('kind', 'dpv:AcademicScientificOrganisation', 'dpv:Organisation', false, false),
  ('kind', 'dpv:NonProfitOrganisation', 'dpv:Organisation', false, false),
  ('kind', 'dpv:ForProfitOrganisation', 'dpv:Organisation', false, false),
  ('kind', 'chimata:TransportOperator', 'dpv:ForProfitOrganisation', false, false),
  ('kind', 'chimata:UtilityProvider', 'dpv:ForProfitOrganisation', false, false),
  ('kind', 'chimata:Insurer', 'dpv:ForProfitOrganisation', true, false),
  ('kind', 'chimata:CreditProvider', 'dpv:ForProfitOrganisation', true, false),
  ('kind', 'chimata:Employer', 'dpv:ForProfitOrganisation', true, false),
  ('kind', 'chimata:DataBroker', 'dpv:ForProfitOrganisation', true, false)
), chain AS (
  SELECT tree, code AS of, code, parent, explicit, special, 0 AS depth, true AS reached FROM said
  UNION ALL
  SELECT c.tree, c.of, s.code, s.parent, s.explicit, s.special, c.depth + 1,
         c.reached AND NOT c.explicit
  FROM chain c JOIN said s ON (s.tree, s.code) = (c.tree, c.parent)
)
INSERT INTO consent.term
SELECT 'dpv-2.3/chimata-1', tree, of, array_agg(code ORDER BY depth),
       array_agg(code ORDER BY depth) FILTER (WHERE reached), bool_or(explicit), bool_or(special)
FROM chain GROUP BY tree, of;

-- Whether named terms (null: every one) and an asked one have a part in common; an unknown one may be
-- anything. Whether a word for them is one for it.
CREATE FUNCTION consent.touches(of_version text, of_tree text, named text[], asked text)
RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT named IS NULL OR coalesce(
    (SELECT named && t.above FROM consent.term t
     WHERE (t.version, t.tree, t.code) = (of_version, of_tree, asked))
    OR EXISTS (SELECT FROM consent.term t WHERE (t.version, t.tree) = (of_version, of_tree)
               AND t.code = ANY(named) AND asked = ANY(t.reaching)), true)
$$;
CREATE FUNCTION consent.reaches(of_version text, of_tree text, named text[], asked text)
RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT CASE WHEN named IS NULL THEN NOT t.explicit ELSE named && t.reaching END
                   FROM consent.term t
                   WHERE (t.version, t.tree, t.code) = (of_version, of_tree, asked)), false)
$$;

-- One statement of a person; null: every term, every operation, everywhere.
CREATE TABLE consent.preference (
  id uuid PRIMARY KEY,
  subject integer NOT NULL,
  verdict text NOT NULL CHECK (verdict IN ('allow', 'ask', 'refuse')),
  purposes text[],
  categories text[],
  kinds text[],
  level smallint NOT NULL REFERENCES consent.level,
  operations text[],
  countries text[],
  otherwise text NOT NULL CHECK (otherwise IN ('ask', 'refuse')),  -- where a condition is broken
  version text NOT NULL,  -- of the vocabulary
  preset text,            -- the one that it is part of
  guardianship uuid,      -- in whose voice it was said; null: the person's own
  sigma bigint NOT NULL
);
CREATE INDEX ON consent.preference (subject);

-- What a recipient asks of everyone whose data it would read: never of persons by name.
CREATE TABLE consent.request (
  id uuid PRIMARY KEY,
  recipient integer NOT NULL REFERENCES consent.recipient,
  purpose text NOT NULL,
  category text NOT NULL,
  operation text NOT NULL,
  event tstzrange NOT NULL CHECK (consent.is_window(event)),
  valid tstzrange NOT NULL CHECK (consent.is_window(valid)
    AND upper(valid) <= lower(valid) + interval '1096 days'),
  level smallint NOT NULL REFERENCES consent.level,
  countries text[] NOT NULL,
  notice bytea NOT NULL CHECK (length(notice) = 32),  -- SHA-256 of the text that is shown
  told jsonb NOT NULL,                                -- that text, and the benefit to the person
  retention_days integer NOT NULL CHECK (retention_days > 0),
  sector text,  -- of whom it asks: whoever is bound in this sector; null: in any
  sigma bigint NOT NULL,
  closed bigint
);
CREATE INDEX ON consent.request (recipient);

-- Who may grant for persons: information banks.
CREATE TABLE consent.delegate (
  key text PRIMARY KEY,  -- the `sub` of its tokens
  title_ja text NOT NULL,
  title_en text NOT NULL,
  suspended boolean NOT NULL
);
CREATE TABLE consent.mandate (
  id uuid PRIMARY KEY,
  subject integer NOT NULL,
  delegate text NOT NULL REFERENCES consent.delegate,
  valid tstzrange NOT NULL CHECK (consent.is_window(valid) AND NOT upper_inf(valid)),
  special boolean NOT NULL,  -- whether for data that require care, too
  version text NOT NULL,     -- of the vocabulary that says which do
  sigma bigint NOT NULL,
  ended bigint
);
CREATE INDEX ON consent.mandate (subject);

-- Where a grant came from: a request, a mandate, or a person's standing word (delegated, no mandate).
CREATE TABLE consent.origin (
  grant_id uuid PRIMARY KEY,
  subject integer NOT NULL,
  request uuid REFERENCES consent.request,
  mandate uuid REFERENCES consent.mandate,
  delegated boolean NOT NULL
);
CREATE INDEX ON consent.origin (subject);
CREATE INDEX ON consent.origin (request, subject);

-- What a request became for a person; without a grant: no.
CREATE TABLE consent.answer (
  request uuid NOT NULL REFERENCES consent.request,
  subject integer NOT NULL,
  grant_id uuid,
  sigma bigint NOT NULL,
  PRIMARY KEY (request, subject)
);
CREATE INDEX ON consent.answer (grant_id);
INSERT INTO consent.folded (name) VALUES
  ('preference'), ('request'), ('delegate'), ('mandate'), ('origin'), ('answer');

-- The kind of a recipient (consent/recipient_kinds.py), and whether it may ask for this now: to be said
-- by who keeps what recipients are.
CREATE FUNCTION consent.kind_of(of_recipient integer) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT NULL::text
$$;
CREATE FUNCTION consent.is_reviewed(recipient integer, purpose text, category text)
RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$;

-- Whether a person's statements allow a grant without asking: consent.matching says why.
CREATE FUNCTION consent.allows(form consent.granted) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(
    bool_or(p.verdict = 'allow' AND consent.reaches(p.version, 'purpose', p.purposes, form.purpose)
            AND consent.reaches(p.version, 'category', p.categories, form.category)
            AND consent.reaches(p.version, 'kind', p.kinds, r.kind))
    AND bool_and(p.verdict = 'allow' AND form.level >= p.level
                 AND (p.operations IS NULL OR form.operation = ANY(p.operations))
                 AND (p.countries IS NULL OR form.countries <@ p.countries)), false)
  FROM (SELECT consent.kind_of(form.recipient) AS kind) AS r
  JOIN consent.preference p ON p.subject = form.subject
    AND consent.touches(p.version, 'purpose', p.purposes, form.purpose)
    AND consent.touches(p.version, 'category', p.categories, form.category)
    AND consent.touches(p.version, 'kind', p.kinds, r.kind)
$$;

-- End what was granted for persons and is no longer allowed by what they state: one person's, or one
-- recipient's. The requests that it came from are to be answered anew.
CREATE FUNCTION consent.end_unstated(of_sigma bigint, of_subject integer, of_recipient integer)
RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  less integer[];
BEGIN
  WITH gone AS (
    UPDATE consent.granted g SET ended = of_sigma FROM consent.origin o
    WHERE o.grant_id = g.grant_id AND o.delegated AND g.ended IS NULL
      AND (of_subject IS NULL OR g.subject = of_subject)
      AND (of_recipient IS NULL OR g.recipient = of_recipient) AND NOT consent.allows(g)
    RETURNING g.grant_id, g.recipient
  ), open AS (
    DELETE FROM consent.answer a USING gone WHERE a.grant_id = gone.grant_id
  )
  SELECT coalesce(array_agg(DISTINCT recipient), '{}') INTO less FROM gone;
  RETURN less;
END $$;

CREATE FUNCTION consent.texts(list jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN jsonb_typeof(list) = 'array'
              THEN ARRAY(SELECT jsonb_array_elements_text(list)) END
$$;
CREATE FUNCTION consent.state(body jsonb, of_subject integer, of_preset text, voice uuid,
                              of_sigma bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.preference VALUES ((body->>'preference')::uuid, of_subject, body->>'verdict',
    consent.texts(body->'purposes'), consent.texts(body->'categories'), consent.texts(body->'kinds'),
    (body->>'level')::smallint, consent.texts(body->'operations'), consent.texts(body->'countries'),
    body->>'otherwise', body->>'version', of_preset, voice, of_sigma);
END $$;

CREATE FUNCTION consent.apply_prefer(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM consent.preference
    WHERE id = (entry.body->>'preference')::uuid AND subject = entry.subject AND preset IS NULL;
  PERFORM consent.state(entry.body, entry.subject, NULL, (entry.body->>'guardianship')::uuid,
    entry.sigma);
  RETURN consent.end_unstated(entry.sigma, entry.subject, NULL);
END $$;

CREATE FUNCTION consent.apply_unprefer(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  gone uuid;
BEGIN
  DELETE FROM consent.preference
    WHERE id = (entry.body->>'preference')::uuid AND subject = entry.subject AND preset IS NULL
    RETURNING id INTO STRICT gone;
  RETURN consent.end_unstated(entry.sigma, entry.subject, NULL);
END $$;

-- One preset in place of another; what the person stated beside it stays.
CREATE FUNCTION consent.apply_preset(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM consent.preference WHERE subject = entry.subject AND preset IS NOT NULL;
  PERFORM consent.state(said, entry.subject, entry.body->>'preset',
      (entry.body->>'guardianship')::uuid, entry.sigma)
    FROM jsonb_array_elements(entry.body->'statements') AS said;
  RETURN consent.end_unstated(entry.sigma, entry.subject, NULL);
END $$;

CREATE FUNCTION consent.apply_request(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.request VALUES ((entry.body->>'request')::uuid,
    (entry.body->>'recipient')::integer, entry.body->>'purpose', entry.body->>'category',
    entry.body->>'operation', (entry.body->>'event')::tstzrange,
    tstzrange(entry.at, (entry.body->>'valid_to')::timestamptz), (entry.body->>'level')::smallint,
    consent.texts(entry.body->'countries'), decode(entry.body->>'notice', 'hex'),
    entry.body->'told', (entry.body->>'retention_days')::integer, entry.body->>'sector',
    entry.sigma, NULL);
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_withdraw(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  gone uuid;
BEGIN
  UPDATE consent.request SET closed = entry.sigma
    WHERE id = (entry.body->>'request')::uuid AND closed IS NULL RETURNING id INTO STRICT gone;
  RETURN '{}';
END $$;

-- No: and what was granted for this request ends.
CREATE FUNCTION consent.apply_decline(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  less integer[];
BEGIN
  WITH gone AS (
    UPDATE consent.granted g SET ended = entry.sigma FROM consent.origin o
    WHERE o.request = (entry.body->>'request')::uuid AND o.subject = entry.subject
      AND g.grant_id = o.grant_id AND g.ended IS NULL
    RETURNING g.recipient)
  SELECT coalesce(array_agg(DISTINCT recipient), '{}') INTO less FROM gone;
  INSERT INTO consent.answer
    VALUES ((entry.body->>'request')::uuid, entry.subject, NULL, entry.sigma)
  ON CONFLICT (request, subject) DO UPDATE SET grant_id = NULL, sigma = excluded.sigma;
  RETURN less;
END $$;

CREATE FUNCTION consent.apply_register_delegate(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.delegate VALUES (entry.body->>'key', entry.body->>'title_ja',
    entry.body->>'title_en', false)
  ON CONFLICT (key) DO UPDATE SET title_ja = excluded.title_ja, title_en = excluded.title_en,
    suspended = false;
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_suspend_delegate(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
  UPDATE consent.delegate SET suspended = true WHERE key = entry.body->>'key';
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_delegate(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO consent.mandate VALUES ((entry.body->>'mandate')::uuid, entry.subject,
    entry.body->>'delegate', (entry.body->>'valid')::tstzrange, (entry.body->>'special')::boolean,
    entry.body->>'version', entry.sigma, NULL);
  RETURN '{}';
END $$;

CREATE FUNCTION consent.apply_undelegate(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  gone uuid;
  less integer[];
BEGIN
  UPDATE consent.mandate SET ended = entry.sigma WHERE id = (entry.body->>'mandate')::uuid
    AND subject = entry.subject AND ended IS NULL RETURNING id INTO STRICT gone;
  WITH stopped AS (
    UPDATE consent.granted g SET ended = entry.sigma FROM consent.origin o
    WHERE o.mandate = gone AND g.grant_id = o.grant_id AND g.ended IS NULL
    RETURNING g.recipient)
  SELECT coalesce(array_agg(DISTINCT recipient), '{}') INTO less FROM stopped;
  RETURN less;
END $$;

-- A delegate's grant: within a mandate of its own, and within what the person states.
CREATE FUNCTION consent.check_delegated(form consent.granted, entry consent.log) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF entry.body->>'mandate' IS NULL AND entry.body->>'request' IS NULL THEN
    RAISE EXCEPTION 'nobody asked for it' USING ERRCODE = 'check_violation';
  END IF;
  IF entry.body->>'mandate' IS NOT NULL AND NOT EXISTS (
      SELECT FROM consent.mandate m JOIN consent.delegate d ON d.key = m.delegate
      JOIN consent.term t ON (t.version, t.tree, t.code) = (m.version, 'category', form.category)
      WHERE m.id = (entry.body->>'mandate')::uuid AND m.subject = form.subject
        AND m.delegate = entry.actor AND m.ended IS NULL AND NOT d.suspended
        AND m.valid @> entry.at AND form.valid <@ m.valid AND (m.special OR NOT t.special)) THEN
    RAISE EXCEPTION 'it is beyond the mandate' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT consent.allows(form) THEN
    RAISE EXCEPTION 'it is beyond what the person states' USING ERRCODE = 'check_violation';
  END IF;
END $$;

-- Whether a grant is no more than a request that is open asks for.
CREATE FUNCTION consent.is_requested(form consent.granted, of_request uuid, moment timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT FROM consent.request r WHERE r.id = of_request AND r.closed IS NULL AND r.valid @> moment
      AND (form.recipient, form.purpose, form.category, form.operation, form.notice)
        = (r.recipient, r.purpose, r.category, r.operation, r.notice)
      AND form.event <@ r.event AND form.valid <@ r.valid AND form.level >= r.level
      AND form.countries <@ r.countries)
$$;

-- GRANT as it was, and what it takes to grant for another, or on a request.
ALTER FUNCTION consent.apply_grant(consent.log) RENAME TO take_grant;
CREATE FUNCTION consent.apply_grant(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  less integer[] := consent.take_grant(entry);
  of_request uuid := (entry.body->>'request')::uuid;
  delegated boolean := entry.actor_kind = 'delegate';
  form consent.granted;
BEGIN
  IF NOT delegated AND of_request IS NULL THEN
    RETURN less;
  END IF;
  SELECT * INTO STRICT form FROM consent.granted WHERE grant_id = (entry.body->>'grant')::uuid;
  IF delegated THEN
    PERFORM consent.check_delegated(form, entry);
  END IF;
  IF of_request IS NOT NULL THEN
    IF NOT consent.is_requested(form, of_request, entry.at) THEN
      RAISE EXCEPTION 'it is more than was asked for' USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO consent.answer AS a VALUES (of_request, form.subject, form.grant_id, entry.sigma)
    ON CONFLICT (request, subject) DO UPDATE SET grant_id = excluded.grant_id, sigma = excluded.sigma
      WHERE NOT EXISTS (SELECT FROM consent.granted g
                        WHERE g.grant_id = a.grant_id AND g.ended IS NULL)
        AND NOT delegated;  -- what a person answered, that person alone answers anew
    IF NOT FOUND THEN
      RAISE EXCEPTION 'it has been answered' USING ERRCODE = 'unique_violation';
    END IF;
  END IF;
  INSERT INTO consent.origin
    VALUES (form.grant_id, form.subject, of_request, (entry.body->>'mandate')::uuid, delegated);
  RETURN less;
END $$;

-- How far the log was followed to match requests: up to an entry, and within it up to a person.
CREATE TABLE consent.matching (sigma bigint NOT NULL, subject integer NOT NULL);
INSERT INTO consent.matching SELECT sigma, 0 FROM consent.clock;

GRANT SELECT ON consent.term, consent.preference, consent.request, consent.delegate,
  consent.mandate, consent.origin, consent.answer, consent.matching TO chimata_gate;
GRANT UPDATE ON consent.matching TO chimata_gate;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA consent FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.kind_of, consent.is_reviewed TO chimata_gate;
