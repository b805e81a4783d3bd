-- Rollups on TimescaleDB: hypertables. Its continuous aggregates know no time in a state, and one
-- late row makes them compute everything between it and the rest of its transaction again.
DROP MATERIALIZED VIEW observation_hour;

DO $$
DECLARE tier record;
BEGIN
  FOR tier IN SELECT * FROM (VALUES
    ('minute', interval '7 days'), ('quarter', interval '60 days'),
    ('hour', interval '180 days'), ('day', interval '3600 days')
  ) AS tiers (name, chunk) LOOP
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
      );
      CREATE TABLE state_%1$s (
        datastream_id integer NOT NULL,
        count integer NOT NULL,
        bucket timestamptz NOT NULL,
        first_time timestamptz NOT NULL,
        last integer NOT NULL,
        codes integer[] NOT NULL,
        micros bigint[] NOT NULL,
        PRIMARY KEY (datastream_id, bucket)
      )
    $body$, tier.name);
    PERFORM create_hypertable(
      shape || tier.name, by_range('bucket', tier.chunk), create_default_indexes => false
    ) FROM unnest(ARRAY['rollup_', 'state_']) AS shape;
  END LOOP;
END $$;

-- Chunks make themselves; the worker asks for them on every server alike.
CREATE FUNCTION ensure_rollups(moment timestamptz) RETURNS void LANGUAGE sql AS 'SELECT';
