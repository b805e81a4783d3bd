-- Anonymised releases: what an operator means to release, the evidence of each step of Rule 34, what was
-- published, and the ledger of ε. Nothing here says who may read what, so it is no fold of the log: all
-- of it is evidence, appended to and never changed.
CREATE SCHEMA release;
GRANT USAGE ON SCHEMA release TO chimata_gate, chimata_read;

CREATE TABLE release.definition (
  id uuid PRIMARY KEY,  -- the sender's
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  principal text NOT NULL,
  terms jsonb NOT NULL
);

CREATE TABLE release.evidence (
  release uuid NOT NULL REFERENCES release.definition,
  step smallint NOT NULL CHECK (step BETWEEN 1 AND 5),  -- the item of Rule 34
  checked boolean NOT NULL,  -- by the platform, on what came out; else said by a person
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  principal text NOT NULL,
  method text NOT NULL,
  PRIMARY KEY (release, step, checked)
);

-- Exact numbers of one moment are published once: the difference of two tables that overlap, made at
-- two times, is who joined and who left meanwhile. What has noise may overlap; its ledger counts that.
CREATE TABLE release.publication (
  release uuid PRIMARY KEY REFERENCES release.definition,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  principal text NOT NULL,
  sigma bigint NOT NULL,  -- of the consents that it was counted under
  sector text NOT NULL,
  property text NOT NULL,
  span tstzrange NOT NULL CHECK (NOT isempty(span)),
  exact boolean NOT NULL,
  items jsonb NOT NULL,   -- Art. 43(3): which information about individuals it holds
  method jsonb NOT NULL,  -- Art. 43(4): how it is provided
  EXCLUDE USING gist (sector WITH =, property WITH =, span WITH &&) WHERE (exact)
);
CREATE INDEX ON release.publication (at, release);

CREATE TABLE release.cell (
  release uuid NOT NULL REFERENCES release.publication,
  number integer NOT NULL,
  time timestamptz NOT NULL,
  cell text,  -- null: everyone of that time
  persons integer NOT NULL,
  mean double precision,
  PRIMARY KEY (release, number)
);

-- ε: debited before anything is counted. The sum over one key only rises.
CREATE TABLE release.spent (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  release uuid NOT NULL REFERENCES release.definition,
  population text NOT NULL,
  recipient text NOT NULL,
  data_set text NOT NULL,
  epsilon numeric NOT NULL CHECK (epsilon > 0 AND epsilon < 'Infinity')
);
CREATE INDEX ON release.spent (population, recipient, data_set);

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['definition', 'evidence', 'publication', 'cell', 'spent'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON release.%I
                    FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON release.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('ALTER TABLE release.%I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE release.%I ENABLE ALWAYS TRIGGER append_only_whole', name);
    EXECUTE format('GRANT SELECT, INSERT ON release.%I TO chimata_gate', name);
  END LOOP;
END $$;
-- Who reads open data reads what is published; evidence tells how it was made (Art. 43(2)), and stays.
GRANT SELECT ON release.definition, release.publication, release.cell TO chimata_read;

-- A person's own smallest crowd: in releases that ask for fewer persons a cell, one is not counted.
CREATE TABLE consent.crowd (
  subject integer PRIMARY KEY,
  k integer NOT NULL CHECK (k >= 10)
);
INSERT INTO consent.folded (name) VALUES ('crowd');
GRANT SELECT ON consent.crowd TO chimata_gate;

CREATE FUNCTION consent.apply_crowd(entry consent.log) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
  before integer;
  after integer := (entry.body->>'k')::integer;
BEGIN
  SELECT k INTO before FROM consent.crowd WHERE subject = entry.subject;
  INSERT INTO consent.crowd VALUES (entry.subject, after)
    ON CONFLICT (subject) DO UPDATE SET k = excluded.k;
  IF after <= coalesce(before, 0) THEN
    RETURN '{}';
  END IF;
  RETURN ARRAY(SELECT DISTINCT g.recipient FROM consent.granted g
               WHERE g.subject = entry.subject AND g.operation = 'anonymise' AND g.ended IS NULL);
END $$;
REVOKE ALL ON FUNCTION consent.apply_crowd FROM PUBLIC;
