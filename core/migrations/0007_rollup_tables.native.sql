-- Rollups on plain PostgreSQL: partitions of a month, each with its key as a btree from birth.
DROP VIEW observation_hour;

DO $$
DECLARE tier text;
BEGIN
  FOREACH tier IN ARRAY ARRAY['minute', 'quarter', 'hour', 'day'] LOOP
    EXECUTE format($body$
      CREATE TABLE rollup_%1$s (
        datastream_id integer NOT NULL,
        count integer NOT NULL,
        bucket timestamptz NOT NULL,
        sum double precision NOT NULL,
        minimum double precision NOT NULL,
        maximum double precision NOT NULL,
        last double precision NOT NULL,
        PRIMARY KEY (datastream_id, bucket)
      ) PARTITION BY RANGE (bucket);
      CREATE TABLE state_%1$s (
        datastream_id integer NOT NULL,
        count integer NOT NULL,
        bucket timestamptz NOT NULL,
        first_time timestamptz NOT NULL,
        last integer NOT NULL,
        codes integer[] NOT NULL,
        micros bigint[] NOT NULL,
        PRIMARY KEY (datastream_id, bucket)
      ) PARTITION BY RANGE (bucket)
    $body$, tier);
  END LOOP;
END $$;

-- Makes the month's partition of every tier that holds `moment`, without a lock that stops anyone.
CREATE FUNCTION ensure_rollups(moment timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  lower timestamptz := date_trunc('month', moment AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
  upper timestamptz := (date_trunc('month', moment AT TIME ZONE 'UTC') + interval '1 month')
                       AT TIME ZONE 'UTC';
  suffix text := to_char(moment AT TIME ZONE 'UTC', '_YYYYMM');
  tier text;
  parent text;
BEGIN
  FOREACH tier IN ARRAY ARRAY['minute', 'quarter', 'hour', 'day'] LOOP
    FOREACH parent IN ARRAY ARRAY['rollup_' || tier, 'state_' || tier] LOOP
      CONTINUE WHEN to_regclass(parent || suffix) IS NOT NULL;
      EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', parent || suffix, parent);
      EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                     parent, parent || suffix, lower, upper);
    END LOOP;
  END LOOP;
END $$;
REVOKE ALL ON FUNCTION ensure_rollups FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_rollups TO chimata_ingest;
