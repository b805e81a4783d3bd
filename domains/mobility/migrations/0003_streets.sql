-- Ways on foot of OpenStreetMap: one network, replaced whole by the next import.
CREATE TABLE mobility.street_network (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sha256 bytea NOT NULL UNIQUE,       -- of the arrays below: what processes keep them by
  imported_at timestamptz NOT NULL DEFAULT now(),
  licence text NOT NULL,
  attribution text NOT NULL,
  counts jsonb NOT NULL,
  refused jsonb NOT NULL,
  data_class text NOT NULL GENERATED ALWAYS AS ('open') STORED
);

-- Its arrays, as numpy has them (little-endian), in pieces: a city's are some tens of megabytes.
CREATE TABLE mobility.street_part (
  network integer NOT NULL REFERENCES mobility.street_network ON DELETE CASCADE,
  name text NOT NULL,
  part integer NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (network, name, part)
);
-- Packed arrays gain little from compression. Said apart: PostgreSQL 15 takes it only so.
ALTER TABLE mobility.street_part ALTER COLUMN body SET STORAGE EXTERNAL;

GRANT SELECT, INSERT, DELETE ON mobility.street_network, mobility.street_part TO chimata_ingest;
GRANT SELECT ON mobility.street_network, mobility.street_part TO chimata_read, chimata_gate;
