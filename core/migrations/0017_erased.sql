-- What a person had erased stays away: rows that come late, of a time in which their device described
-- them, are taken and let go in the same breath. They count as stored: the account tells what came.
CREATE TABLE personal.erased (
  binding uuid PRIMARY KEY,
  sector text NOT NULL,
  thing text NOT NULL,
  event tstzrange NOT NULL
);
CREATE INDEX ON personal.erased (sector, thing);
GRANT SELECT ON personal.erased TO chimata_gate;

-- Returns once no append of these sectors is under way that could not know of what was erased before.
CREATE FUNCTION await_appends(sectors text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT FROM sector_log WHERE sector = ANY(sectors) ORDER BY sector FOR UPDATE
$$;

-- Lets go what is said of Things themselves, where all that they sent is personal.
CREATE FUNCTION forget_things(things integer[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  wanted integer[] := ARRAY(SELECT id FROM thing WHERE id = ANY(things)
                            AND NOT data_classes && ARRAY['open', 'shared']);
BEGIN
  DELETE FROM latest l USING datastream d WHERE d.id = l.datastream_id AND d.thing_id = ANY(wanted);
  DELETE FROM thing_heard WHERE thing_id = ANY(wanted);
  DELETE FROM thing_place WHERE thing_id = ANY(wanted);
  UPDATE thing SET name = NULL, properties = '{}', longitude = NULL, latitude = NULL, geometry = NULL
    WHERE id = ANY(wanted);
END $$;

-- Whether everyone's snapshot is younger than a transaction: only then does a table that is written
-- anew leave behind what the transaction deleted. A restored copy has not come to that number yet.
CREATE FUNCTION is_past(done xid8) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT done >= pg_snapshot_xmax(pg_current_snapshot()) OR NOT EXISTS (
    SELECT FROM (
      SELECT unnest(ARRAY[backend_xmin, backend_xid]) FROM pg_stat_activity
      WHERE pid <> pg_backend_pid()
        AND coalesce(datname = current_database(), true)
      UNION ALL SELECT xmin FROM pg_replication_slots
      UNION ALL SELECT transaction FROM pg_prepared_xacts) AS held (xid)
    WHERE age(held.xid) >= age(done::xid))
$$;

REVOKE ALL ON FUNCTION await_appends, forget_things, is_past FROM PUBLIC;
GRANT EXECUTE ON FUNCTION await_appends, forget_things, is_past TO chimata_gate;

-- The planner's statistics are copies of values, in a table that nobody writes anew: none are kept of
-- personal results. Rows are looked for by Datastream and time alone.
CREATE FUNCTION keep_no_statistics(personal regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  name text;
BEGIN
  FOR name IN SELECT attname FROM pg_attribute WHERE attrelid = personal AND NOT attisdropped
    AND attname IN ('result', 'longitude', 'latitude', 'speed', 'course')
  LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', personal, name);
  END LOOP;
END $$;
REVOKE ALL ON FUNCTION keep_no_statistics FROM PUBLIC;

-- The merge of personal rows, which leaves out what is kept away.
DO $outer$
DECLARE
  shape record;
BEGIN
  FOR shape IN SELECT * FROM (VALUES
    ('observation', 'result', 'to_jsonb(o.result)'),
    ('observation_position', 'longitude, latitude, speed, course',
     'jsonb_build_array(o.longitude, o.latitude, o.speed, o.course)'),
    ('observation_document', 'result', 'o.result')
  ) AS shapes (name, columns, as_json) LOOP
    EXECUTE format($body$
      CREATE OR REPLACE FUNCTION personal.merge_%1$s(
        time_min timestamptz, time_max timestamptz)
      RETURNS TABLE (message integer, stored bigint, duplicate bigint)
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = personal, public, pg_temp
      SET plan_cache_mode = force_custom_plan AS $$
      #variable_conflict use_column
      BEGIN
        RETURN QUERY WITH kept_away AS MATERIALIZED (
          SELECT d.id, e.event FROM personal.erased e
          JOIN thing t ON t.sector = e.sector AND t.key = e.thing
          JOIN datastream d ON d.thing_id = t.id
          WHERE d.id IN (SELECT datastream_id FROM pg_temp.staged_%1$s)
        ),
        met AS MATERIALIZED (
          SELECT s.*, EXISTS (SELECT FROM kept_away k WHERE k.id = s.datastream_id
                              AND k.event @> s.phenomenon_time) AS erased,
                 o.append_id AS old_id, %3$s AS old,
                 o.append_id IS NOT NULL AND (%3$s = %4$s OR EXISTS (
                   SELECT FROM personal.superseded p WHERE p.datastream_id = s.datastream_id
                     AND p.phenomenon_time = s.phenomenon_time AND p.result = %4$s)) AS known
          FROM pg_temp.staged_%1$s s LEFT JOIN personal.%1$I o
            ON o.datastream_id = s.datastream_id AND o.phenomenon_time = s.phenomenon_time
            AND o.phenomenon_time BETWEEN time_min AND time_max
        ),
        kept AS (
          INSERT INTO personal.superseded
          SELECT datastream_id, phenomenon_time, old, old_id, append_id FROM met
          WHERE old_id IS NOT NULL AND NOT known AND NOT erased
        ),
        corrected AS (
          UPDATE personal.%1$I o SET (%2$s, append_id, quality) = (%5$s, s.append_id, s.quality)
          FROM met s WHERE s.old_id IS NOT NULL AND NOT s.known AND NOT s.erased
            AND o.datastream_id = s.datastream_id AND o.phenomenon_time = s.phenomenon_time
            AND o.phenomenon_time BETWEEN time_min AND time_max
        ),
        inserted AS (
          INSERT INTO personal.%1$I (phenomenon_time, %2$s, append_id, datastream_id, quality)
          SELECT phenomenon_time, %2$s, append_id, datastream_id, quality FROM met
          WHERE old_id IS NULL AND NOT erased
        )
        SELECT message, count(*) FILTER (WHERE NOT known), count(*) FILTER (WHERE known)
        FROM met GROUP BY message;
      END $$
    $body$, shape.name, shape.columns, shape.as_json,
      replace(shape.as_json, 'o.', 's.'),
      regexp_replace(shape.columns, '(\w+)', 's.\1', 'g'));
  END LOOP;
END $outer$;
