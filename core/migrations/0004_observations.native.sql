-- Observations on plain PostgreSQL: range partitions, a day each near today, a month each in the past.
-- An open day has BRIN only (a btree costs a third of the throughput); it gets its btree once closed.
CREATE TABLE observation (
  phenomenon_time timestamptz NOT NULL,
  result double precision NOT NULL,
  append_id bigint NOT NULL,
  datastream_id integer NOT NULL,
  quality smallint NOT NULL
) PARTITION BY RANGE (phenomenon_time);

CREATE TABLE observation_position (
  phenomenon_time timestamptz NOT NULL,
  longitude double precision NOT NULL,
  latitude double precision NOT NULL,
  speed double precision,
  course double precision,
  append_id bigint NOT NULL,
  datastream_id integer NOT NULL,
  quality smallint NOT NULL
) PARTITION BY RANGE (phenomenon_time);

CREATE TABLE observation_document (
  phenomenon_time timestamptz NOT NULL,
  append_id bigint NOT NULL,
  datastream_id integer NOT NULL,
  quality smallint NOT NULL,
  result jsonb NOT NULL
) PARTITION BY RANGE (phenomenon_time);

CREATE TABLE personal.observation (LIKE observation) PARTITION BY RANGE (phenomenon_time);
CREATE TABLE personal.observation_position (LIKE observation_position)
  PARTITION BY RANGE (phenomenon_time);
CREATE TABLE personal.observation_document (LIKE observation_document)
  PARTITION BY RANGE (phenomenon_time);

CREATE FUNCTION partition_bounds(moment timestamptz, OUT lower timestamptz, OUT upper timestamptz)
LANGUAGE sql STABLE AS $$
  SELECT unit_start AT TIME ZONE 'UTC', (unit_start + width) AT TIME ZONE 'UTC'
  FROM (
    SELECT CASE WHEN moment >= now() - interval '40 days' THEN interval '1 day'
                ELSE interval '1 month' END AS width,
           date_trunc(CASE WHEN moment >= now() - interval '40 days' THEN 'day' ELSE 'month' END,
                      moment AT TIME ZONE 'UTC') AS unit_start
  ) AS chosen
$$;

-- Makes the partition of every shape in both schemas that holds `moment`; returns its bounds.
CREATE FUNCTION ensure_partition(
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

CREATE TABLE partition_range (
  lower timestamptz PRIMARY KEY,
  upper timestamptz NOT NULL,
  suffix text NOT NULL,
  sealed boolean NOT NULL
);
GRANT SELECT ON partition_range TO chimata_ingest;

-- Gives closed days their btree, and drops what is older than `keep`; returns how many it changed.
CREATE FUNCTION maintain_partitions(keep interval) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  range record;
  shape text;
  child text;
  changed integer := 0;
BEGIN
  PERFORM ensure_partition(now());
  PERFORM ensure_partition(now() + interval '1 day');
  FOR range IN SELECT * FROM partition_range ORDER BY lower LOOP
    CONTINUE WHEN range.sealed AND range.upper > now() - keep;
    CONTINUE WHEN NOT range.sealed AND range.upper > now() - interval '1 hour';
    FOREACH shape IN ARRAY ARRAY['observation', 'observation_position', 'observation_document'] LOOP
      child := shape || range.suffix;
      IF range.upper <= now() - keep THEN
        EXECUTE format('DROP TABLE public.%I, personal.%I', child, child);
      ELSE
        EXECUTE format('CREATE INDEX ON public.%I (datastream_id, phenomenon_time)', child);
      END IF;
    END LOOP;
    IF range.upper <= now() - keep THEN
      DELETE FROM partition_range WHERE lower = range.lower;
    ELSE
      UPDATE partition_range SET sealed = true WHERE lower = range.lower;
    END IF;
    changed := changed + 1;
  END LOOP;
  RETURN changed;
END $$;

-- New rows are found by BRIN only once their pages are summarised; appends outrun autovacuum.
CREATE FUNCTION summarise_open_partitions() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT brin_summarize_new_values(c.oid)
  FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_index i ON i.indexrelid = c.oid
  JOIN pg_inherits p ON p.inhrelid = i.indrelid
  WHERE a.amname = 'brin' AND c.relkind = 'i'
    AND p.inhparent IN ('observation'::regclass, 'observation_position'::regclass,
                        'observation_document'::regclass)
    AND pg_relation_size(i.indrelid) > 0
$$;

REVOKE ALL ON FUNCTION ensure_partition, maintain_partitions, summarise_open_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partition, maintain_partitions, summarise_open_partitions
  TO chimata_ingest;

CREATE VIEW observation_hour AS
  SELECT datastream_id, date_bin('1 hour', phenomenon_time, 'epoch') AS bucket,
         count(*) AS count, sum(result) AS sum, min(result) AS minimum, max(result) AS maximum,
         (array_agg(result ORDER BY phenomenon_time DESC))[1] AS last
  FROM observation GROUP BY 1, 2;
