-- Retention by sector and data class on plain PostgreSQL; each function is one short transaction.

-- Makes today's and tomorrow's partitions, and drops what is older than `keep` whatever it holds.
CREATE OR REPLACE FUNCTION maintain_partitions(keep interval) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  piece record;
  changed integer := 0;
BEGIN
  PERFORM ensure_partition(now());
  PERFORM ensure_partition(now() + interval '1 day');
  FOR piece IN SELECT * FROM partition_range WHERE upper <= now() - keep LOOP
    PERFORM drop_piece(to_regclass('observation' || piece.suffix));
    changed := changed + 1;
  END LOOP;
  RETURN changed;
END $$;

-- Gives the oldest closed day that has none its btree; whether there was one. Nothing else is
-- locked meanwhile: appends go on, and so do new partitions.
CREATE FUNCTION seal_partition() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  range partition_range;
  shape text;
BEGIN
  SELECT * INTO range FROM partition_range
    WHERE NOT sealed AND upper <= now() - interval '1 hour' ORDER BY lower LIMIT 1
    FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN false; END IF;
  FOREACH shape IN ARRAY ARRAY['observation', 'observation_position', 'observation_document'] LOOP
    EXECUTE format('CREATE INDEX ON %I (datastream_id, phenomenon_time)', shape || range.suffix);
  END LOOP;
  UPDATE partition_range SET sealed = true WHERE lower = range.lower;
  RETURN true;
END $$;

-- Every table that retention may drop or thin out, with the times that it holds.
CREATE FUNCTION retention_pieces()
RETURNS TABLE (source text, piece regclass, lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'observation', to_regclass(home || '.' || shape || r.suffix), r.lower, r.upper
  FROM partition_range r, unnest(ARRAY['public', 'personal']) AS home,
    unnest(ARRAY['observation', 'observation_position', 'observation_document']) AS shape
  UNION ALL
  SELECT split_part(p.relname, '_', 2), c.oid::regclass, m.lower AT TIME ZONE 'UTC',
         (m.lower + interval '1 month') AT TIME ZONE 'UTC'
  FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid
  CROSS JOIN LATERAL to_date(right(c.relname, 6), 'YYYYMM') AS d (day)
  CROSS JOIN LATERAL (SELECT d.day::timestamp) AS m (lower)
  WHERE p.relname ~ '^(rollup|state)_(minute|quarter|hour|day)$' AND p.relkind = 'p'
$$;

-- Drops a piece: for observations the whole range, in every shape and both schemas.
CREATE FUNCTION drop_piece(piece regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  range partition_range;
  shape text;
BEGIN
  IF NOT EXISTS (SELECT FROM retention_pieces() p WHERE p.piece = drop_piece.piece) THEN
    RETURN;  -- gone already
  END IF;
  SELECT * INTO range FROM partition_range r WHERE piece::text LIKE '%observation%' || r.suffix;
  IF NOT FOUND THEN
    EXECUTE format('DROP TABLE %s', piece);
    RETURN;
  END IF;
  FOREACH shape IN ARRAY ARRAY['observation', 'observation_position', 'observation_document'] LOOP
    EXECUTE format('DROP TABLE public.%1$I, personal.%1$I', shape || range.suffix);
  END LOOP;
  DELETE FROM partition_range WHERE lower = range.lower;
END $$;

-- Deletes up to `rows_max` rows of these Datastreams before a moment; returns how many it deleted.
CREATE FUNCTION delete_rows(
  piece regclass, datastreams integer[], before timestamptz, rows_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  moment text := CASE WHEN piece::text LIKE '%observation%' THEN 'phenomenon_time' ELSE 'bucket' END;
  deleted bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM retention_pieces() p WHERE p.piece = delete_rows.piece) THEN
    RETURN 0;
  END IF;
  EXECUTE format('DELETE FROM %1$s WHERE ctid = ANY(ARRAY(SELECT ctid FROM %1$s
                  WHERE datastream_id = ANY($1) AND %2$I < $2 LIMIT $3))', piece, moment)
    USING datastreams, before, rows_max;
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END $$;

-- There is no columnstore here.
CREATE FUNCTION set_columnstore(hours double precision) RETURNS void LANGUAGE sql AS 'SELECT';
