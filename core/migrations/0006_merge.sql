-- Rows that may meet one already stored: the same result is a duplicate, another is a correction.
-- A correction takes the row's place and the row moves here: both are kept, and a key is never twice
-- in the table that readers and rollups use.
CREATE TABLE superseded (
  datastream_id integer NOT NULL,
  phenomenon_time timestamptz NOT NULL,
  result jsonb NOT NULL,
  append_id bigint NOT NULL,
  superseded_by bigint NOT NULL
);
CREATE INDEX ON superseded (datastream_id, phenomenon_time);
CREATE TABLE personal.superseded (LIKE superseded INCLUDING ALL);
ALTER TABLE personal.superseded OWNER TO chimata_gate;
ALTER TABLE personal.observation OWNER TO chimata_gate;
ALTER TABLE personal.observation_position OWNER TO chimata_gate;
ALTER TABLE personal.observation_document OWNER TO chimata_gate;

GRANT SELECT, INSERT, UPDATE ON observation, observation_position, observation_document
  TO chimata_ingest;
GRANT SELECT, INSERT ON superseded TO chimata_ingest;
GRANT SELECT ON observation, observation_position, observation_document, observation_hour, superseded
  TO chimata_read, chimata_gate;

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
        CREATE FUNCTION %1$I.merge_%2$s(
          time_min timestamptz, time_max timestamptz)
        RETURNS TABLE (message integer, stored bigint, duplicate bigint)
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = %1$I, public, pg_temp AS $$
        #variable_conflict use_column
        BEGIN
          RETURN QUERY WITH staged AS MATERIALIZED (SELECT * FROM pg_temp.staged_%2$s),
          matched AS MATERIALIZED (
            SELECT s.message, o.datastream_id, o.phenomenon_time, o.append_id, %4$s AS old,
                   %4$s = %5$s OR EXISTS (
                     SELECT FROM %1$I.superseded p WHERE p.datastream_id = s.datastream_id
                       AND p.phenomenon_time = s.phenomenon_time AND p.result = %5$s) AS known
            FROM staged s JOIN %1$I.%2$I o USING (datastream_id, phenomenon_time)
            WHERE o.phenomenon_time BETWEEN time_min AND time_max
          ),
          kept AS (
            INSERT INTO %1$I.superseded
            SELECT m.datastream_id, m.phenomenon_time, m.old, m.append_id, s.append_id
            FROM matched m JOIN staged s USING (datastream_id, phenomenon_time) WHERE NOT m.known
            RETURNING 1
          ),
          corrected AS (
            UPDATE %1$I.%2$I o SET (%3$s, append_id, quality) = (%6$s, s.append_id, s.quality)
            FROM staged s JOIN matched m USING (datastream_id, phenomenon_time)
            WHERE NOT m.known AND o.datastream_id = s.datastream_id
              AND o.phenomenon_time = s.phenomenon_time
              AND o.phenomenon_time BETWEEN time_min AND time_max
            RETURNING 1
          ),
          inserted AS (
            INSERT INTO %1$I.%2$I (phenomenon_time, %3$s, append_id, datastream_id, quality)
            SELECT phenomenon_time, %3$s, append_id, datastream_id, quality FROM staged s
            WHERE NOT EXISTS (SELECT FROM matched m WHERE m.datastream_id = s.datastream_id
                              AND m.phenomenon_time = s.phenomenon_time)
            RETURNING 1
          )
          SELECT s.message, count(*) FILTER (WHERE m.known IS NOT TRUE),
                 count(*) FILTER (WHERE m.known)
          FROM staged s LEFT JOIN matched m USING (datastream_id, phenomenon_time)
          GROUP BY s.message;
        END $$
      $body$, home, shape.name, shape.columns, shape.as_json,
        replace(shape.as_json, 'o.', 's.'),
        regexp_replace(shape.columns, '(\w+)', 's.\1', 'g'));
      EXECUTE format('REVOKE ALL ON FUNCTION %I.merge_%s FROM PUBLIC', home, shape.name);
      EXECUTE format('GRANT EXECUTE ON FUNCTION %I.merge_%s TO chimata_ingest', home, shape.name);
      IF home = 'personal' THEN
        EXECUTE format('ALTER FUNCTION personal.merge_%s OWNER TO chimata_gate', shape.name);
      END IF;
    END LOOP;
  END LOOP;
END $outer$;
