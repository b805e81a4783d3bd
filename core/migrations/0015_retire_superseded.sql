-- What a correction took the place of is kept no longer than the observation would be.
CREATE FUNCTION delete_superseded(datastreams integer[], before timestamptz, rows_max integer)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  home text;
  deleted bigint;
  total bigint := 0;
BEGIN
  FOREACH home IN ARRAY ARRAY['public', 'personal'] LOOP
    EXECUTE format('DELETE FROM %1$I.superseded WHERE ctid = ANY(ARRAY(
                    SELECT ctid FROM %1$I.superseded
                    WHERE datastream_id = ANY($1) AND phenomenon_time < $2 LIMIT $3))', home)
      USING datastreams, before, rows_max;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    total := total + deleted;
  END LOOP;
  RETURN total;
END $$;
REVOKE ALL ON FUNCTION delete_superseded FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_superseded TO chimata_ingest;
