-- A grant for a part of the map: of the times of its window those count at which the observation was in
-- it. What is within is worked out here as spans of time, so that every channel has the same answer.

-- The rings of a Polygon or MultiPolygon (RFC 7946), without the point that closes each. In units of
-- 10^-7 degree, about a centimetre: PostgreSQL takes for equal what differs by 10^-6 of its unit.
CREATE FUNCTION consent.rings(said text) RETURNS polygon[] LANGUAGE sql IMMUTABLE STRICT AS $$
  SELECT array_agg((SELECT '(' || string_agg('(' || round((c->>0)::numeric * 1e7) || ','
                                             || round((c->>1)::numeric * 1e7) || ')', ',' ORDER BY n)
                           || ')' FROM jsonb_array_elements(ring) WITH ORDINALITY AS corner (c, n)
                    WHERE n < jsonb_array_length(ring))::polygon)
  FROM jsonb_path_query(said::jsonb, CASE said::jsonb->>'type'
    WHEN 'Polygon' THEN 'strict $.coordinates[*]' ELSE 'strict $.coordinates[*][*]' END::jsonpath) ring
$$;

-- Where grants hold. Not in the log, which names it by a salted commitment: the fence around a home is
-- forgotten with the person, as the name is.
CREATE TABLE consent.area (
  id bytea PRIMARY KEY CHECK (id = sha256(salt || convert_to(said, 'UTF8'))),
  subject integer NOT NULL,
  salt bytea NOT NULL CHECK (length(salt) = 16),
  said text NOT NULL,  -- GeoJSON, as consent.areas has checked it
  rings polygon[] NOT NULL GENERATED ALWAYS AS (consent.rings(said)) STORED
);
CREATE INDEX ON consent.area (subject);
ALTER TABLE consent.area ALTER COLUMN said SET STATISTICS 0, ALTER COLUMN rings SET STATISTICS 0;
GRANT SELECT, INSERT ON consent.area TO chimata_gate;

CREATE FUNCTION consent.forget_area(entry consent.log) RETURNS void LANGUAGE sql AS $$
  DELETE FROM consent.area WHERE subject = entry.subject
$$;
CREATE OR REPLACE FUNCTION consent.rewrite_names() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = consent, public, pg_temp AS $$
BEGIN
  CLUSTER consent.subject USING subject_pkey;
  CLUSTER consent.area USING area_pkey;
END $$;

-- All of them must hold, the last one said last: a narrower area joins those before it, so whatever a
-- map's arithmetic does at an edge, nothing is within that was not within before.
ALTER TABLE consent.granted ADD areas bytea[] NOT NULL DEFAULT '{}';

CREATE OR REPLACE FUNCTION consent.form(entry consent.log) RETURNS consent.granted
LANGUAGE sql STABLE AS $$
  SELECT (entry.body->>'grant')::uuid, entry.sigma, entry.sigma, NULL::bigint, entry.subject,
         (entry.body->>'recipient')::integer,
         entry.body->>'purpose', entry.body->>'category', entry.body->>'operation',
         (entry.body->>'event')::tstzrange,
         (entry.body->>'valid')::tstzrange * CASE WHEN entry.body ? 'guardianship' THEN coalesce(
           (SELECT w.valid FROM consent.guardianship w
            WHERE w.id = (entry.body->>'guardianship')::uuid AND w.ward = entry.subject), 'empty')
           ELSE tstzrange(NULL, NULL) END,
         (entry.body->>'level')::smallint,
         ARRAY(SELECT c FROM jsonb_array_elements_text(entry.body->'countries') c ORDER BY c),
         decode(entry.body->>'notice', 'hex'),
         (entry.body->>'guardianship')::uuid, entry.at,
         CASE WHEN entry.body ? 'area' THEN ARRAY[decode(entry.body->>'area', 'hex')] ELSE '{}' END
$$;

CREATE OR REPLACE FUNCTION consent.is_within(narrow consent.granted, wide consent.granted)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT (narrow.subject, narrow.recipient, narrow.purpose, narrow.category, narrow.operation)
       = (wide.subject, wide.recipient, wide.purpose, wide.category, wide.operation)
     AND narrow.event <@ wide.event AND narrow.valid <@ wide.valid
     AND narrow.level >= wide.level AND narrow.countries <@ wide.countries
     AND narrow.areas @> wide.areas
$$;

CREATE OR REPLACE FUNCTION consent.apply_narrow(entry consent.log) RETURNS integer[]
LANGUAGE plpgsql AS $$
DECLARE
  before consent.granted;
  after consent.granted := consent.form(entry);
BEGIN
  UPDATE consent.granted SET ended = entry.sigma
    WHERE grant_id = after.grant_id AND ended IS NULL RETURNING * INTO STRICT before;
  after.given := before.given;
  after.given_at := before.given_at;
  after.guardianship := before.guardianship;
  after.valid := (entry.body->>'valid')::tstzrange;
  after.areas := CASE WHEN after.areas = '{}' THEN '{}' WHEN after.areas <@ before.areas
                      THEN before.areas ELSE before.areas || after.areas END;
  IF NOT consent.is_within(after, before) THEN
    RAISE EXCEPTION 'it permits more than before' USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO consent.granted SELECT after.*;
  RETURN ARRAY[after.recipient];
END $$;

-- Whether a place is within rings: within an odd number of them, so holes and islands need no word of
-- their own. Of a level above 0 the place's whole cell has to be: an edge would else tell more of the
-- place than the cell that is shown. An edge belongs to its ring, and no cell meets one.
CREATE FUNCTION consent.lies_within(rings polygon[], longitude double precision,
  latitude double precision, of_level consent.level) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  west double precision;
  south double precision;
  cell polygon;
BEGIN
  IF (longitude BETWEEN -180 AND 180 AND latitude BETWEEN -90 AND 90) IS NOT TRUE THEN
    RETURN false;
  END IF;
  IF of_level.number = 0 THEN
    RETURN (SELECT count(*) % 2 = 1 FROM unnest(rings) AS r
            WHERE r @> point(longitude * 1e7, latitude * 1e7));
  END IF;
  west := floor(longitude / of_level.longitude) * of_level.longitude * 1e7;
  south := floor(latitude / of_level.latitude) * of_level.latitude * 1e7;
  cell := polygon(box(point(west, south), point(west + of_level.longitude * 1e7,
                                                south + of_level.latitude * 1e7)));
  RETURN (SELECT bool_and(r @> cell OR NOT r && cell)
                 AND count(*) FILTER (WHERE r @> cell) % 2 = 1 FROM unnest(rings) AS r);
END $$;

-- The times at which a Thing was within all of some areas, as far as is known: one that moves from each
-- of its positions there until its next one, for five minutes at most; any other one always or never.
-- A place that is not known, or not plausible, is nowhere; so is an area that was forgotten.
CREATE FUNCTION consent.stays(of_areas bytea[], of_thing integer, of_level smallint,
                              during tstzrange) RETURNS tstzmultirange LANGUAGE plpgsql STABLE AS $$
DECLARE
  times tstzmultirange := tstzmultirange(during);
  level consent.level;
  area bytea;
  rings polygon[];
  found tstzmultirange;
BEGIN
  SELECT * INTO STRICT level FROM consent.level WHERE number = of_level;
  FOREACH area IN ARRAY of_areas LOOP
    EXIT WHEN isempty(times);
    rings := (SELECT a.rings FROM consent.area a WHERE a.id = area);
    IF EXISTS (SELECT FROM datastream d WHERE d.thing_id = of_thing AND d.kind = 'position') THEN
      WITH place AS (
        SELECT p.phenomenon_time AS time,
               bool_and(p.quality = 0
                        AND consent.lies_within(rings, p.longitude, p.latitude, level)) AS inside
        FROM datastream d JOIN personal.observation_position p ON p.datastream_id = d.id
        WHERE d.thing_id = of_thing AND d.kind = 'position' AND d.data_class = 'personal'
          AND p.phenomenon_time >= coalesce(lower(during) - interval '5 minutes', '-infinity')
          AND p.phenomenon_time < coalesce(upper(during), 'infinity')
        GROUP BY p.phenomenon_time
      ), stay AS (
        SELECT time, inside,
               least(lead(time) OVER (ORDER BY time), time + interval '5 minutes') AS until
        FROM place
      ), further AS (
        SELECT *, lag(CASE WHEN inside THEN until END) OVER (ORDER BY time) AS before FROM stay
      ), run AS (
        SELECT time, until, count(*) FILTER (WHERE before IS DISTINCT FROM time)
                            OVER (ORDER BY time) AS number
        FROM further WHERE inside
      )
      SELECT range_agg(whole) INTO found
      FROM (SELECT tstzrange(min(time), max(until)) AS whole FROM run GROUP BY number) AS runs;
    ELSE
      SELECT tstzmultirange(during) INTO found FROM thing t WHERE t.id = of_thing
        AND consent.lies_within(rings, t.longitude, t.latitude, level);
    END IF;
    times := times * coalesce(found, '{}');
  END LOOP;
  RETURN times;
END $$;

-- What one recipient may read of some parties for one purpose, at one moment, as 0005 says it; of a
-- grant with an area the times in it, by the grid of the level that is looked at: so of a coarser level
-- there may be less, and what any finer one shows whole is taken away, not what the next one shows.
CREATE OR REPLACE FUNCTION consent.permits(
  of_recipient integer, purposes text[], above text[], operation text,
  of_sector text, properties text[], categories text[],
  span tstzrange, parties bigint[])
RETURNS TABLE (party bigint, datastream_id integer, kind text, unit text, property text, thing text,
               subjects integer[], grants uuid[], level smallint,
               lower timestamptz, upper timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY WITH live AS MATERIALIZED (
    SELECT g.grant_id, g.subject, g.guardianship AS voice, g.category, g.event, g.level, g.areas,
           r.country = ANY(g.countries) AS here
    FROM (SELECT DISTINCT m.subject FROM consent.party_member m WHERE m.party = ANY(parties)) AS m
    JOIN consent.granted g ON g.subject = m.subject AND g.recipient = of_recipient
      AND g.ended IS NULL
    JOIN consent.recipient r ON r.id = g.recipient
    WHERE g.operation = permits.operation
      AND g.purpose = ANY(permits.purposes) AND g.category = ANY(permits.categories)
      AND g.valid @> clock_timestamp() AND NOT r.suspended
      AND (r.country = 'JP' OR EXISTS (
        SELECT FROM consent.transferable t
        WHERE t.recipient = r.id AND t.since < g.given AND t.until > clock_timestamp()))
      AND NOT EXISTS (SELECT FROM consent.objected o
                      WHERE o.subject = g.subject
                        AND (o.sigma > g.given OR (o.guardianship IS DISTINCT FROM g.guardianship
                                                   AND o.until > g.given_at))
                        AND (o.recipient IS NULL OR o.recipient = g.recipient)
                        AND (o.purpose IS NULL OR o.purpose = ANY(permits.above)))
  ), stream AS MATERIALIZED (
    SELECT d.id, d.kind, d.unit, d.property, t.id AS thing_id, t.key AS thing, b.party, b.event,
           ARRAY(SELECT p.category FROM unnest(permits.properties, permits.categories)
                   AS p (name, category)
                 WHERE p.name = split_part(d.property, '/', 1)) AS reached
    FROM consent.binding b
    JOIN thing t ON t.sector = b.sector AND t.key = b.thing
    JOIN datastream d ON d.thing_id = t.id
    WHERE b.party = ANY(parties) AND b.event && permits.span AND b.sector = of_sector
      AND split_part(d.property, '/', 1) = ANY(permits.properties)
  ), held AS (
    SELECT s.id, s.party, s.event, m.subject, v.number AS level, v.step,
           coalesce(range_agg(CASE WHEN g.areas = '{}' THEN tstzmultirange(g.event * s.event)
             ELSE consent.stays(g.areas, s.thing_id, v.number, g.event * s.event * tstzrange(
               lower(permits.span), consent.up(upper(permits.span), interval '1 day'))) END)
             FILTER (WHERE g.here AND g.level <= v.number), '{}') AS times,
           array_agg(g.grant_id) FILTER (WHERE g.event && s.event AND g.event && permits.span)
             AS grants
    FROM stream s JOIN consent.party_member m ON m.party = s.party
    CROSS JOIN (SELECT * FROM consent.level WHERE number IN (SELECT l.level FROM live l)) AS v
    LEFT JOIN live g ON g.subject = m.subject AND g.category = ANY(s.reached)
    GROUP BY s.id, s.party, s.event, m.subject, g.voice, v.number, v.step
  ), given AS MATERIALIZED (
    SELECT h.id, h.party, h.event, array_agg(DISTINCT g ORDER BY g) AS grants
    FROM held h CROSS JOIN unnest(h.grants) AS g GROUP BY h.id, h.party, h.event
  ), joint AS (
    SELECT id, party, event, level, step, array_agg(DISTINCT subject) AS subjects,
           range_intersect_agg(times) * CASE WHEN step = '0' THEN tstzmultirange(tstzrange(NULL, NULL))
             ELSE tstzmultirange(tstzrange(NULL, clock_timestamp())) END AS times
    FROM held GROUP BY id, party, event, level, step
  ), finer AS (
    SELECT *, array_agg(times) OVER (PARTITION BY id, party, event ORDER BY level
                                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS shown
    FROM joint
  ), apart AS (
    SELECT id, party, event, level, step, subjects, consent.inward(times, step) - coalesce(
             (SELECT range_agg(consent.inward(each, step)) FROM unnest(shown) AS each), '{}') AS times
    FROM finer
  )
  SELECT s.party, s.id, s.kind, s.unit, s.property, s.thing, a.subjects,
         i.grants, a.level, coalesce(lower(piece), '-infinity'), coalesce(upper(piece), 'infinity')
  FROM apart a JOIN stream s USING (id, party, event) JOIN given i USING (id, party, event)
  CROSS JOIN LATERAL unnest(a.times * tstzmultirange(tstzrange(
    consent.up(lower(permits.span), a.step), consent.up(upper(permits.span), a.step)))) AS piece;
END $$;

REVOKE ALL ON FUNCTION consent.rings, consent.forget_area, consent.lies_within, consent.stays
  FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consent.rings, consent.lies_within, consent.stays TO chimata_gate;
