-- The same as 0005 says, in time that grows with the parties and not with their square: what reaches a
-- Datastream is found with it, and no join looks anew at every grant for each of them.
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
    SELECT g.grant_id, g.subject, g.guardianship AS voice, g.category, g.event, g.level,
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
    SELECT d.id, d.kind, d.unit, d.property, t.key AS thing, b.party, b.event,
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
           coalesce(range_agg(g.event * s.event) FILTER (WHERE g.here AND g.level <= v.number),
                    '{}') AS times,
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
  ), apart AS (
    SELECT id, party, event, level, step, subjects,
           consent.inward(times, step) - consent.inward(
             lag(times, 1, '{}') OVER (PARTITION BY id, party, event ORDER BY level), step) AS times
    FROM joint
  )
  SELECT s.party, s.id, s.kind, s.unit, s.property, s.thing, a.subjects,
         i.grants, a.level, coalesce(lower(piece), '-infinity'), coalesce(upper(piece), 'infinity')
  FROM apart a JOIN stream s USING (id, party, event) JOIN given i USING (id, party, event)
  CROSS JOIN LATERAL unnest(a.times * tstzmultirange(tstzrange(
    consent.up(lower(permits.span), a.step), consent.up(upper(permits.span), a.step)))) AS piece;
END $$;

-- The whole steps inside of some times, as 0002 says; all of them are, where there are no steps.
CREATE OR REPLACE FUNCTION consent.inward(times tstzmultirange, step interval)
RETURNS tstzmultirange LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF step = '0' THEN
    RETURN coalesce(times, '{}');
  END IF;
  RETURN (
    SELECT coalesce(
      range_agg(CASE WHEN coalesce(first < last, true) THEN tstzrange(first, last) END), '{}')
    FROM unnest(times) AS r
    CROSS JOIN LATERAL (SELECT consent.up(lower(r), step) AS first,
                               consent.down(upper(r), step) AS last) AS step_of);
END $$;
