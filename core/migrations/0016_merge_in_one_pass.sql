-- The merge in one pass, planned anew each time. A plan kept for all times knows neither how many rows
-- are staged nor which times they span: it read the whole span again for each row that it corrected.
DO $outer$
DECLARE
  home text;
  shape record;
BEGIN
  FOREACH home IN ARRAY ARRAY['public', 'personal'] LOOP
    FOR shape IN SELECT * FROM (VALUES
      ('observation', 'result', 'to_jsonb(o.result)'),
      ('observation_position', 'longitude, latitude, speed, course',
       'jsonb_build_array(o.longitude, o.latitude, o.speed, o.course)'),
      ('observation_document', 'result', 'o.result')
    ) AS shapes (name, columns, as_json) LOOP
      EXECUTE format($body$
        CREATE OR REPLACE FUNCTION %1$I.merge_%2$s(
          time_min timestamptz, time_max timestamptz)
        RETURNS TABLE (message integer, stored bigint, duplicate bigint)
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, public, pg_temp
        SET plan_cache_mode = force_custom_plan AS $$
        #variable_conflict use_column
        BEGIN
          RETURN QUERY WITH met AS MATERIALIZED (
            SELECT s.*, o.append_id AS old_id, %4$s AS old,
                   o.append_id IS NOT NULL AND (%4$s = %5$s OR EXISTS (
                     SELECT FROM %1$I.superseded p WHERE p.datastream_id = s.datastream_id
                       AND p.phenomenon_time = s.phenomenon_time AND p.result = %5$s)) AS known
            FROM pg_temp.staged_%2$s s LEFT JOIN %1$I.%2$I o
              ON o.datastream_id = s.datastream_id AND o.phenomenon_time = s.phenomenon_time
              AND o.phenomenon_time BETWEEN time_min AND time_max
          ),
          kept AS (
            INSERT INTO %1$I.superseded
            SELECT datastream_id, phenomenon_time, old, old_id, append_id FROM met
            WHERE old_id IS NOT NULL AND NOT known
          ),
          corrected AS (
            UPDATE %1$I.%2$I o SET (%3$s, append_id, quality) = (%6$s, s.append_id, s.quality)
            FROM met s WHERE s.old_id IS NOT NULL AND NOT s.known
              AND o.datastream_id = s.datastream_id AND o.phenomenon_time = s.phenomenon_time
              AND o.phenomenon_time BETWEEN time_min AND time_max
          ),
          inserted AS (
            INSERT INTO %1$I.%2$I (phenomenon_time, %3$s, append_id, datastream_id, quality)
            SELECT phenomenon_time, %3$s, append_id, datastream_id, quality FROM met
            WHERE old_id IS NULL
          )
          SELECT message, count(*) FILTER (WHERE NOT known), count(*) FILTER (WHERE known)
          FROM met GROUP BY message;
        END $$
      $body$, home, shape.name, shape.columns, shape.as_json,
        replace(shape.as_json, 'o.', 's.'),
        regexp_replace(shape.columns, '(\w+)', 's.\1', 'g'));
    END LOOP;
  END LOOP;
END $outer$;
