-- transaction: none (a continuous aggregate cannot be made inside one)
CREATE MATERIALIZED VIEW IF NOT EXISTS observation_hour
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
  SELECT datastream_id, time_bucket('1 hour', phenomenon_time) AS bucket,
         count(*) AS count, sum(result) AS sum, min(result) AS minimum, max(result) AS maximum,
         last(result, phenomenon_time) AS last
  FROM observation GROUP BY 1, 2
WITH NO DATA;
-- No start: only ranges with news are computed, and late rows of any age are news. What is late shows
-- within a minute; the last hour is read from the observations themselves.
SELECT add_continuous_aggregate_policy('observation_hour', start_offset => NULL,
  end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '1 minute', if_not_exists => true);
