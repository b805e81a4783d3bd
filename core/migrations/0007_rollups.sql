-- What is to be summed up anew, and how far that has come; 0006-rollups.md says how it fits together.

-- Minutes of which every Datastream is computed anew because of this append: null, where they are
-- not known, means all between time_min and time_max.
ALTER TABLE append ADD COLUMN minutes tstzmultirange;

-- Spans of single Datastreams: rows that came late or were corrected, in whole minutes.
CREATE TABLE rollup_late (
  datastream_id integer NOT NULL,
  lower timestamptz NOT NULL,
  upper timestamptz NOT NULL
);
CREATE INDEX ON rollup_late (datastream_id, lower);

-- Appends up to this one are in rollup_todo.
CREATE TABLE rollup_cursor (
  sector text PRIMARY KEY,
  append_id bigint NOT NULL
);

-- Spans of each tier that are to be computed anew for every Datastream.
CREATE TABLE rollup_todo (
  tier text PRIMARY KEY,
  spans tstzmultirange NOT NULL DEFAULT '{}'
);
INSERT INTO rollup_todo (tier) VALUES ('minute'), ('quarter'), ('hour'), ('day');

GRANT SELECT, INSERT, UPDATE ON rollup_cursor, rollup_todo, rollup_minute, rollup_quarter,
  rollup_hour, rollup_day, state_minute, state_quarter, state_hour, state_day TO chimata_ingest;
GRANT SELECT, INSERT, UPDATE, DELETE ON rollup_late TO chimata_ingest;
GRANT SELECT ON rollup_cursor, rollup_todo, rollup_late, rollup_minute, rollup_quarter, rollup_hour,
  rollup_day, state_minute, state_quarter, state_hour, state_day TO chimata_read, chimata_gate;
