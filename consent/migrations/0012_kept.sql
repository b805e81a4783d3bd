-- Documents about consent that decide nothing: a FHIR Consent that is no permit, as the person sent it.
CREATE TABLE consent.kept (
  id uuid PRIMARY KEY,  -- of person and content: the same one is kept once
  subject integer NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sealed bytea NOT NULL  -- under the person's key
);
CREATE INDEX ON consent.kept (subject);
GRANT SELECT, INSERT ON consent.kept TO chimata_gate;

CREATE FUNCTION consent.forget_kept(entry consent.log) RETURNS void LANGUAGE sql AS $$
  DELETE FROM consent.kept WHERE subject = entry.subject;
$$;
REVOKE ALL ON FUNCTION consent.forget_kept FROM PUBLIC;
