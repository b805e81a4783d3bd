-- The area of an emergency, to about a centimetre. PostgreSQL takes for equal what differs by 10^-6
-- of its unit, cross products too: in degrees, a small area took in places metres outside of it.
CREATE FUNCTION consent.lies_in(area polygon, longitude double precision, latitude double precision)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (area::path * point(1e7, 0))::polygon @> point(longitude * 1e7, latitude * 1e7)
$$;

CREATE OR REPLACE FUNCTION consent.overridden(
  of_override uuid, of_recipient integer, of_purpose text, of_sector text, properties text[],
  span tstzrange, parties bigint[])
RETURNS TABLE (party bigint, datastream_id integer, kind text, unit text, property text, thing text,
               subjects integer[], grants uuid[], level smallint,
               lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE AS $$
  WITH o AS (
    SELECT o.*, o.event * overridden.span AS times
    FROM consent.override o JOIN consent.recipient r ON r.id = o.recipient
    WHERE o.id = of_override AND o.recipient = of_recipient AND o.purpose = of_purpose
      AND o.sector = of_sector AND o.valid @> clock_timestamp() AND NOT r.suspended
  ), near AS (
    SELECT b.party, t.id, t.key, b.event * o.times AS times, o.area,
           t.key = ANY(o.things) OR consent.lies_in(o.area, t.longitude, t.latitude) AS whole
    FROM o JOIN consent.binding b ON b.sector = o.sector AND b.event && o.times
    JOIN thing t ON t.sector = b.sector AND t.key = b.thing
    WHERE b.party = ANY(parties) AND NOT EXISTS (
      SELECT FROM consent.party_member m JOIN consent.subject s ON s.id = m.subject
      WHERE m.party = b.party AND s.key IS NULL)
  ), place AS (
    SELECT n.party, n.id, n.key, n.times AS within,
           consent.lies_in(n.area, p.longitude, p.latitude) AS inside,
           tstzrange(p.phenomenon_time, lead(p.phenomenon_time) OVER (
             PARTITION BY n.id, n.times ORDER BY p.phenomenon_time)) AS stay
    FROM near n JOIN datastream d ON d.thing_id = n.id AND d.kind = 'position'
    JOIN personal.observation_position p ON p.datastream_id = d.id
      AND p.phenomenon_time >= coalesce(lower(n.times), '-infinity')
      AND p.phenomenon_time < coalesce(upper(n.times), 'infinity')
    WHERE n.area IS NOT NULL AND n.whole IS NOT TRUE
  ), shown AS (
    SELECT party, id, key, tstzmultirange(times) AS times FROM near WHERE whole
    UNION ALL
    SELECT party, id, key, range_agg(stay * within) FROM place
    WHERE inside AND NOT isempty(stay) GROUP BY party, id, key
  )
  SELECT s.party, d.id, d.kind, d.unit, d.property, s.key, p.subjects, '{}'::uuid[], 0::smallint,
         coalesce(lower(piece), '-infinity'), coalesce(upper(piece), 'infinity')
  FROM shown s JOIN consent.party p ON p.id = s.party
  JOIN datastream d ON d.thing_id = s.id
  CROSS JOIN LATERAL unnest(s.times) AS piece
  WHERE split_part(d.property, '/', 1) = ANY(overridden.properties)
$$;

REVOKE ALL ON FUNCTION consent.lies_in FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.lies_in TO chimata_gate;
