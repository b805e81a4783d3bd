-- The same as 0005 says, behind a function: the plan of each decision is set up anew each time, and
-- these joins cost it more than the rest, although at home they are never looked at.
CREATE FUNCTION consent.transferable_now()
RETURNS TABLE (recipient integer, since bigint, until timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN QUERY
  SELECT r.id, 0::bigint, 'infinity'::timestamptz
  FROM consent.recipient r JOIN consent.designated d USING (country)
  UNION ALL
  SELECT r.id, greatest(c.since, m.since), least(c.check_by, m.check_by)
  FROM consent.recipient r
  JOIN consent.transfer_file c ON c.country = r.country AND c.recipient IS NULL AND c.passed
  JOIN consent.transfer_file m ON m.country = r.country AND m.recipient = r.id AND m.passed;
END $$;
CREATE OR REPLACE VIEW consent.transferable AS
  SELECT t.recipient, t.since, t.until FROM consent.transferable_now() AS t;
REVOKE ALL ON FUNCTION consent.transferable_now FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.transferable_now TO chimata_gate;
