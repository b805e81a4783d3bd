-- A partition of personal rows keeps no statistics of their results, from its birth on.
-- Makes the partition of every shape in both schemas that holds `moment`; returns its bounds.
CREATE OR REPLACE FUNCTION ensure_partition(
  moment timestamptz, OUT lower timestamptz, OUT upper timestamptz, OUT suffix text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  home text;
  shape text;
  child text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('chimata.ensure_partition'));
  SELECT b.lower, b.upper, b.suffix INTO lower, upper, suffix FROM partition_range b
    WHERE moment >= b.lower AND moment < b.upper;
  IF FOUND THEN RETURN; END IF;
  SELECT b.lower, b.upper INTO lower, upper FROM partition_bounds(moment) b;
  -- A month whose other days were made while they were recent is completed day by day.
  IF EXISTS (SELECT FROM partition_range b WHERE b.lower < ensure_partition.upper
             AND b.upper > ensure_partition.lower) THEN
    lower := date_trunc('day', moment AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    upper := lower + interval '1 day';
  END IF;
  suffix := to_char(lower AT TIME ZONE 'UTC', '_YYYYMMDD')
            || CASE WHEN upper - lower > interval '1 day' THEN 'm' ELSE '' END;
  FOREACH home IN ARRAY ARRAY['public', 'personal'] LOOP
    FOREACH shape IN ARRAY ARRAY['observation', 'observation_position', 'observation_document'] LOOP
      child := shape || suffix;
      EXECUTE format('CREATE TABLE %I.%I (LIKE %I.%I INCLUDING ALL)', home, child, home, shape);
      IF home = 'personal' THEN
        EXECUTE format('CREATE INDEX ON %I.%I (datastream_id, phenomenon_time)', home, child);
        PERFORM keep_no_statistics(format('personal.%I', child)::regclass);
        EXECUTE format('ALTER TABLE %I.%I OWNER TO chimata_gate', home, child);
      ELSE
        EXECUTE format(
          'CREATE INDEX ON %I.%I USING brin (phenomenon_time, datastream_id, append_id)
             WITH (pages_per_range = 16)', home, child);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I.%I TO chimata_ingest', home, child);
        EXECUTE format('GRANT SELECT ON %I.%I TO chimata_read, chimata_gate', home, child);
        IF upper <= now() THEN
          EXECUTE format('CREATE INDEX ON %I.%I (datastream_id, phenomenon_time)', home, child);
        END IF;
      END IF;
      EXECUTE format('ALTER TABLE %I.%I ATTACH PARTITION %I.%I FOR VALUES FROM (%L) TO (%L)',
                     home, shape, home, child, lower, upper);
    END LOOP;
  END LOOP;
  INSERT INTO partition_range (lower, upper, suffix, sealed) VALUES (
    ensure_partition.lower, ensure_partition.upper, ensure_partition.suffix,
    ensure_partition.upper <= now());
END $$;

SELECT keep_no_statistics(c.oid) FROM pg_class c
WHERE c.relnamespace = 'personal'::regnamespace AND c.relkind IN ('r', 'p')
  AND c.relname ~ '^(observation|superseded)';
