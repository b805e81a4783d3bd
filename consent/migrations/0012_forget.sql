-- What ERASE ends besides grants and bindings: nobody acts for a person who is no more here.
CREATE FUNCTION consent.forget_preferences(entry consent.log) RETURNS void
LANGUAGE sql AS $$
  DELETE FROM consent.preference WHERE subject = entry.subject;
  UPDATE consent.mandate SET ended = entry.sigma WHERE subject = entry.subject AND ended IS NULL;
$$;
REVOKE ALL ON FUNCTION consent.forget_preferences FROM PUBLIC;
