-- Feeds of mobility, and the timetables that they publish; the columns are those of GTFS.
CREATE SCHEMA mobility;
GRANT USAGE ON SCHEMA mobility TO chimata_ingest, chimata_read, chimata_gate;

-- One feed of the catalogue. Its id is also the gateway that sends what is pushed or polled.
CREATE TABLE mobility.feed (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
  kind text NOT NULL CHECK (kind IN ('gtfs', 'gtfs-rt', 'gbfs')),
  title text NOT NULL,
  url text,                           -- polled where it is given; never with a secret in it
  licence text,                       -- an SPDX id, or the URL of the terms
  attribution text,
  -- Collaborative: all who meet here may read it. Competitive: by contract alone.
  sharing text NOT NULL DEFAULT 'collaborative' CHECK (sharing IN ('collaborative', 'competitive')),
  data_class text NOT NULL GENERATED ALWAYS AS
    (CASE sharing WHEN 'collaborative' THEN 'open' ELSE 'shared' END) STORED,
  static_feed text REFERENCES mobility.feed,  -- the timetable that a gtfs-rt feed tells news of
  poll_seconds integer CHECK (poll_seconds BETWEEN 5 AND 604800),
  created_at timestamptz NOT NULL DEFAULT now(),
  etag text,
  last_modified text,
  checked_at timestamptz,             -- last poll or push
  changed_at timestamptz,             -- last time that there was something new
  error text                          -- of the last poll; NULL when it went well
);

-- One published state of a static feed; those of other times stand beside it.
CREATE TABLE mobility.feed_version (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed text NOT NULL REFERENCES mobility.feed,
  sha256 bytea NOT NULL,
  imported_at timestamptz NOT NULL DEFAULT now(),
  valid_from date,                    -- what feed_info says, and within that what calendars run
  valid_to date,                      -- inclusive; NULL: nothing runs
  name text,                          -- feed_version of feed_info.txt
  timezone text NOT NULL,             -- IANA, of the first agency
  language text,                      -- BCP 47
  counts jsonb NOT NULL DEFAULT '{}', -- rows stored, by file without .txt
  refused jsonb NOT NULL DEFAULT '{}',
  quality jsonb NOT NULL DEFAULT '{}',
  UNIQUE (feed, sha256)
);

-- Numbers (0, 1, ... within a version, in the order of the file) stand for ids in the tables that
-- name them: half a million stop times then hold no text, and load as arrays. `more` has every
-- column of the file that has none here, as it came, so that a feed is published as it was read.
CREATE TABLE mobility.agency (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  agency_id text NOT NULL,
  name text NOT NULL,
  url text,
  timezone text NOT NULL,
  language text,
  more jsonb,
  PRIMARY KEY (version, agency_id)
);

CREATE TABLE mobility.stop (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  number integer NOT NULL,
  stop_id text NOT NULL,
  code text,
  name text,
  longitude double precision,         -- NULL where the feed gives none (nodes, boarding areas)
  latitude double precision,
  zone_id text,
  location_type smallint NOT NULL DEFAULT 0,
  parent integer,                     -- number of the station
  timezone text,
  wheelchair_boarding smallint NOT NULL DEFAULT 0,
  platform_code text,
  more jsonb,
  PRIMARY KEY (version, number),
  UNIQUE (version, stop_id)
);

CREATE TABLE mobility.route (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  number integer NOT NULL,
  route_id text NOT NULL,
  agency_id text,
  short_name text,
  long_name text,
  type smallint NOT NULL,
  colour text,
  text_colour text,
  more jsonb,
  PRIMARY KEY (version, number),
  UNIQUE (version, route_id)
);

CREATE TABLE mobility.service (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  number integer NOT NULL,
  service_id text NOT NULL,
  weekdays smallint NOT NULL DEFAULT 0,  -- bit 0 is Monday; 0 where only service_date tells
  start_date date,                       -- NULL where calendar.txt does not have it
  end_date date,
  more jsonb,
  PRIMARY KEY (version, number),
  UNIQUE (version, service_id)
);

CREATE TABLE mobility.service_date (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  service integer NOT NULL,
  date date NOT NULL,
  runs boolean NOT NULL,
  PRIMARY KEY (version, service, date)
);

CREATE TABLE mobility.trip (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  number integer NOT NULL,
  trip_id text NOT NULL,
  route integer NOT NULL,
  service integer NOT NULL,
  headsign text,
  short_name text,
  direction smallint,
  block_id text,
  shape integer,
  wheelchair_accessible smallint NOT NULL DEFAULT 0,
  bikes_allowed smallint NOT NULL DEFAULT 0,
  more jsonb,
  PRIMARY KEY (version, number),
  UNIQUE (version, trip_id)
);

CREATE TABLE mobility.stop_time (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  trip integer NOT NULL,
  sequence integer NOT NULL,
  stop integer NOT NULL,
  arrival integer,                    -- s since noon less 12 h of the service day; NULL: untimed
  departure integer,
  headsign text,
  pickup smallint NOT NULL DEFAULT 0,
  drop_off smallint NOT NULL DEFAULT 0,
  distance double precision,
  timepoint smallint,
  more jsonb,
  PRIMARY KEY (version, trip, sequence)
);

CREATE TABLE mobility.frequency (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  trip integer NOT NULL,
  start_time integer NOT NULL,
  end_time integer NOT NULL,
  headway integer NOT NULL,
  exact boolean NOT NULL DEFAULT false,
  PRIMARY KEY (version, trip, start_time)
);

CREATE TABLE mobility.shape (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  number integer NOT NULL,
  shape_id text NOT NULL,
  sequences integer[] NOT NULL,
  longitudes double precision[] NOT NULL,
  latitudes double precision[] NOT NULL,
  distances double precision[],       -- NULL where the feed gives none
  PRIMARY KEY (version, number),
  UNIQUE (version, shape_id)
);

CREATE TABLE mobility.transfer (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  from_stop integer,
  to_stop integer,
  type smallint NOT NULL DEFAULT 0,
  seconds_min integer,
  from_route integer,
  to_route integer,
  from_trip integer,
  to_trip integer,
  more jsonb
);
CREATE INDEX ON mobility.transfer (version);

CREATE TABLE mobility.fare (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  fare_id text NOT NULL,
  price numeric NOT NULL,
  currency text NOT NULL,             -- ISO 4217
  payment_method smallint NOT NULL DEFAULT 0,
  transfers smallint,                 -- NULL: without limit
  transfer_seconds integer,
  more jsonb,
  PRIMARY KEY (version, fare_id)
);

CREATE TABLE mobility.fare_rule (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  fare_id text NOT NULL,
  route integer,
  origin_id text,
  destination_id text,
  contains_id text
);
CREATE INDEX ON mobility.fare_rule (version, origin_id, destination_id);

-- In the modern form of GTFS; what came in the old one (trans_id, lang, translation) is brought to it.
CREATE TABLE mobility.translation (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  table_name text NOT NULL,
  field_name text NOT NULL,
  language text NOT NULL,
  translation text NOT NULL,
  record_id text,
  record_sub_id text,
  field_value text
);
CREATE INDEX ON mobility.translation (version, table_name, field_name);

-- Files that have no table here, as they came: agency_jp, routes_jp, office_jp, feed_info, ...
CREATE TABLE mobility.feed_file (
  version integer NOT NULL REFERENCES mobility.feed_version ON DELETE CASCADE,
  name text NOT NULL,                 -- with .txt
  content bytea NOT NULL,
  PRIMARY KEY (version, name)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA mobility TO chimata_ingest;
GRANT SELECT ON ALL TABLES IN SCHEMA mobility TO chimata_read, chimata_gate;
