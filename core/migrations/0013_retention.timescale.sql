-- Retention by sector and data class on TimescaleDB, and after how long rows go to the columnstore.
ALTER TABLE rollup_minute SET (
  timescaledb.compress, timescaledb.compress_segmentby = 'datastream_id',
  timescaledb.compress_orderby = 'bucket');
ALTER TABLE state_minute SET (
  timescaledb.compress, timescaledb.compress_segmentby = 'datastream_id',
  timescaledb.compress_orderby = 'bucket');
SELECT add_compression_policy('rollup_minute', compress_after => INTERVAL '8 days');
SELECT add_compression_policy('state_minute', compress_after => INTERVAL '8 days');

-- Chunks need no index when they close.
CREATE FUNCTION seal_partition() RETURNS boolean LANGUAGE sql AS 'SELECT false';

-- Every chunk that retention may drop or thin out, with the times that it holds.
CREATE FUNCTION retention_pieces()
RETURNS TABLE (source text, piece regclass, lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT CASE WHEN hypertable_name LIKE 'observation%' THEN 'observation'
              ELSE split_part(hypertable_name, '_', 2) END,
         to_regclass(format('%I.%I', chunk_schema, chunk_name)), range_start, range_end
  FROM timescaledb_information.chunks
  WHERE hypertable_schema IN ('public', 'personal')
    AND hypertable_name ~ '^(observation|(rollup|state)_(minute|quarter|hour|day)$)'
$$;

CREATE FUNCTION drop_piece(piece regclass) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT drop_chunks(format('%I.%I', hypertable_schema, hypertable_name)::regclass,
                     older_than => range_end, newer_than => range_start)
  FROM timescaledb_information.chunks
  WHERE to_regclass(format('%I.%I', chunk_schema, chunk_name)) = piece
    AND piece IN (SELECT p.piece FROM retention_pieces() p)
$$;

-- The columnstore lets rows go by segment, so the bound is on the Datastreams and not on the rows.
CREATE FUNCTION delete_rows(
  piece regclass, datastreams integer[], before timestamptz, rows_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  moment text;
  deleted bigint;
BEGIN
  SELECT CASE WHEN p.source = 'observation' THEN 'phenomenon_time' ELSE 'bucket' END INTO moment
    FROM retention_pieces() p WHERE p.piece = delete_rows.piece;
  IF NOT FOUND THEN RETURN 0; END IF;
  PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
  EXECUTE format('DELETE FROM %s WHERE datastream_id = ANY($1) AND %I < $2', piece, moment)
    USING datastreams, before;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN CASE WHEN deleted < rows_max THEN deleted ELSE rows_max - 1 END;
END $$;

-- Rows go to the columnstore so many hours after their chunk has closed; chunks follow that length.
CREATE FUNCTION set_columnstore(hours double precision) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  wanted interval := make_interval(secs => hours * 3600);
  job record;
BEGIN
  FOR job IN
    SELECT * FROM timescaledb_information.jobs
    WHERE proc_name IN ('policy_compression', 'policy_columnstore') AND hypertable_schema = 'public'
      AND (config ->> 'compress_after')::interval <> wanted
  LOOP
    PERFORM alter_job(job.job_id, config => jsonb_set(
      job.config, '{compress_after}', to_jsonb(wanted::text)));
    PERFORM set_chunk_time_interval(
      format('%I.%I', job.hypertable_schema, job.hypertable_name)::regclass,
      least(interval '7 days', greatest(interval '1 day', wanted)));
  END LOOP;
END $$;
