-- Observations on TimescaleDB: hypertables with columnstore compression; the batch ledger makes a
-- unique index needless, so that bulk rows take direct compress COPY.
CREATE EXTENSION IF NOT EXISTS timescaledb;

CREATE TABLE observation (
  phenomenon_time timestamptz NOT NULL,
  result double precision NOT NULL,
  append_id bigint NOT NULL,
  datastream_id integer NOT NULL,
  quality smallint NOT NULL
);

CREATE TABLE observation_position (
  phenomenon_time timestamptz NOT NULL,
  longitude double precision NOT NULL,
  latitude double precision NOT NULL,
  speed double precision,
  course double precision,
  append_id bigint NOT NULL,
  datastream_id integer NOT NULL,
  quality smallint NOT NULL
);

CREATE TABLE observation_document (
  phenomenon_time timestamptz NOT NULL,
  append_id bigint NOT NULL,
  datastream_id integer NOT NULL,
  quality smallint NOT NULL,
  result jsonb NOT NULL
);

CREATE TABLE personal.observation (LIKE observation);
CREATE TABLE personal.observation_position (LIKE observation_position);
CREATE TABLE personal.observation_document (LIKE observation_document);

SELECT create_hypertable(
  shape, by_range('phenomenon_time', INTERVAL '7 days'), create_default_indexes => false
) FROM unnest(ARRAY[
  'observation', 'observation_position', 'observation_document',
  'personal.observation', 'personal.observation_position', 'personal.observation_document'
]) AS shape;

ALTER TABLE observation SET (
  timescaledb.compress, timescaledb.compress_segmentby = 'datastream_id',
  timescaledb.compress_orderby = 'phenomenon_time');
ALTER TABLE observation_position SET (
  timescaledb.compress, timescaledb.compress_segmentby = 'datastream_id',
  timescaledb.compress_orderby = 'phenomenon_time');

SELECT add_compression_policy('observation', compress_after => INTERVAL '8 days');
SELECT add_compression_policy('observation_position', compress_after => INTERVAL '8 days');

CREATE INDEX ON observation USING brin (phenomenon_time, datastream_id, append_id)
  WITH (pages_per_range = 16);
CREATE INDEX ON observation_position USING brin (phenomenon_time, datastream_id, append_id)
  WITH (pages_per_range = 16);
CREATE INDEX ON observation_document (datastream_id, phenomenon_time);
CREATE INDEX ON personal.observation (datastream_id, phenomenon_time);
CREATE INDEX ON personal.observation_position (datastream_id, phenomenon_time);
CREATE INDEX ON personal.observation_document (datastream_id, phenomenon_time);

CREATE FUNCTION maintain_partitions(keep interval) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT count(*)::integer FROM unnest(ARRAY[
    'observation', 'observation_position', 'observation_document',
    'personal.observation', 'personal.observation_position', 'personal.observation_document'
  ]) AS shape, LATERAL drop_chunks(shape::regclass, keep)
$$;

CREATE FUNCTION summarise_open_partitions() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT brin_summarize_new_values(c.oid)
  FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_index i ON i.indexrelid = c.oid
  JOIN show_chunks('observation') AS chunk ON chunk = i.indrelid
  WHERE a.amname = 'brin' AND c.relkind = 'i'
$$;

REVOKE ALL ON FUNCTION maintain_partitions, summarise_open_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maintain_partitions, summarise_open_partitions TO chimata_ingest;
