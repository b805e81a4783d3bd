-- Who sends (gateway), what is observed (thing), and each series of results (datastream).
CREATE TABLE gateway (
  id text PRIMARY KEY,
  data_class text CHECK (data_class IN ('open', 'shared')),  -- declared by the operator: its streams' class
  first_seen timestamptz NOT NULL DEFAULT now(),
  last_seen timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE thing (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sector text NOT NULL,
  key text NOT NULL,
  name text,
  properties jsonb NOT NULL DEFAULT '{}',
  longitude double precision,
  latitude double precision,
  geometry jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (sector, key)
);

CREATE TABLE datastream (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  thing_id integer NOT NULL REFERENCES thing,
  property text NOT NULL,  -- with its instance: signal-state/2
  kind text NOT NULL CHECK (kind IN ('number', 'category', 'position', 'document')),
  unit text NOT NULL DEFAULT '1',  -- UCUM
  data_class text NOT NULL,
  undeclared boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (thing_id, property)
);

-- A category's result is stored as its code, so that numbers and categories share one columnar table.
CREATE TABLE category (
  code integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  text text NOT NULL UNIQUE
);

-- Projections: rebuilt from the observations after a crash, flushed at most once a second.
CREATE TABLE latest (
  datastream_id integer PRIMARY KEY,
  phenomenon_time timestamptz NOT NULL,
  received_at timestamptz NOT NULL,
  result double precision,
  document jsonb,
  longitude double precision,
  latitude double precision,
  speed double precision,
  course double precision,
  quality smallint NOT NULL,
  append_id bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE thing_heard (
  thing_id integer PRIMARY KEY,
  gateway text NOT NULL,
  heard_at timestamptz NOT NULL,    -- receiver's clock
  heard_time timestamptz NOT NULL   -- the Thing's own clock in that message
) WITH (fillfactor = 50);

CREATE TABLE projection (
  sector text PRIMARY KEY,
  append_id bigint NOT NULL
);

-- Where a Thing is now: its latest position if it moves, else its fixed location.
CREATE TABLE thing_place (
  thing_id integer PRIMARY KEY,
  sector text NOT NULL,
  longitude double precision NOT NULL,
  latitude double precision NOT NULL,
  data_class text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX ON thing_place USING gist (point(longitude, latitude));

GRANT SELECT, INSERT, UPDATE ON gateway, thing, datastream, category, latest, thing_heard,
  projection, thing_place TO chimata_ingest;
GRANT DELETE ON latest, thing_place TO chimata_ingest;
GRANT SELECT ON gateway, thing, datastream, category, latest, thing_heard, projection, thing_place
  TO chimata_read, chimata_gate;
