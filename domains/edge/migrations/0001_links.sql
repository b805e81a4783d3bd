-- What hangs on an edge node, as the operator told it. Links are by key: the Things and gateways they
-- name may be another sector's, and may come or go without asking this one.
CREATE SCHEMA edge;
GRANT USAGE ON SCHEMA edge TO chimata_read, chimata_gate;

CREATE TABLE edge.link (
  node text NOT NULL,                 -- key of a Thing of the edge sector
  kind text NOT NULL CHECK (kind IN ('pole', 'signal', 'gateway', 'cell')),
  key text NOT NULL,                  -- pole, signal: key of a Thing; gateway: its id; cell: its name
  valid_from timestamptz NOT NULL,
  valid_to timestamptz CHECK (valid_to > valid_from),  -- NULL: it holds
  PRIMARY KEY (node, kind, key, valid_from)
);
CREATE UNIQUE INDEX link_current ON edge.link (node, kind, key) WHERE valid_to IS NULL;
CREATE UNIQUE INDEX link_pole ON edge.link (node) WHERE kind = 'pole' AND valid_to IS NULL;

GRANT SELECT ON edge.link TO chimata_read, chimata_gate;
GRANT INSERT, UPDATE (valid_to) ON edge.link TO chimata_gate;
