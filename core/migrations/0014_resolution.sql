-- The decimals that a Datastream's results mostly have: such results are stored as multiples of a
-- power of two, which compress to a few bits, and are decimals again once served (core/resolution.py).
ALTER TABLE datastream ADD COLUMN decimals smallint;

CREATE FUNCTION nearest_multiple(stored double precision, decimals smallint)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT round(stored * power(2::float8, ceil(decimals * 3.321928094887362)))
         / power(2::float8, ceil(decimals * 3.321928094887362))
$$;

CREATE FUNCTION served(stored double precision, decimals smallint)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN decimals IS NULL OR abs(stored) >= power(10::float8, 13 - decimals) THEN stored
    WHEN stored = nearest_multiple(stored, decimals)
      THEN round(stored * power(10::float8, decimals)) / power(10::float8, decimals)
    WHEN abs(stored - nearest_multiple(stored, decimals)) <= 8.881784197001252e-16 * abs(stored)
      THEN nearest_multiple(stored, decimals)
    ELSE stored END
$$;
