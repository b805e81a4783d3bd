-- The ledger: every append, every identified batch, every rejection, and the account of them all.

-- One row a sector: its lock orders the appends, its number says whether another process wrote since.
CREATE TABLE sector_log (
  sector text PRIMARY KEY,
  append_id bigint NOT NULL DEFAULT 0
);

CREATE TABLE append (
  sector text NOT NULL,
  id bigint NOT NULL,
  committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  rows integer NOT NULL,
  time_min timestamptz,
  time_max timestamptz,
  PRIMARY KEY (sector, id)
);

CREATE TABLE batch (
  gateway text NOT NULL,
  boot text NOT NULL,
  seq bigint NOT NULL,
  sector text NOT NULL,
  format text NOT NULL,
  sha256 bytea NOT NULL,
  append_id bigint NOT NULL,
  received_at timestamptz NOT NULL,
  received integer NOT NULL,
  stored integer NOT NULL,
  duplicate integer NOT NULL,
  rejected integer NOT NULL,
  PRIMARY KEY (gateway, boot, seq)
);

CREATE TABLE account (
  gateway text NOT NULL,
  sector text NOT NULL,
  format text NOT NULL,
  hour timestamptz NOT NULL,
  messages bigint NOT NULL,
  unchanged bigint NOT NULL,
  received bigint NOT NULL,
  stored bigint NOT NULL,
  duplicate bigint NOT NULL,
  rejected bigint NOT NULL,
  PRIMARY KEY (gateway, sector, format, hour)
) WITH (fillfactor = 70);

-- What running processes have decoded and not yet committed; void without its owner's lock. Each
-- append writes its sector's line anew, so that nothing is counted as stored and as held.
CREATE TABLE ingest_process (
  id bigint NOT NULL,  -- also the key of the advisory lock that the process holds while it lives
  sector text NOT NULL,
  version bigint NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  pending jsonb NOT NULL,
  PRIMARY KEY (id, sector)
);

CREATE TABLE rejection (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sector text NOT NULL,
  gateway text NOT NULL,
  format text NOT NULL,
  channel text NOT NULL,
  boot text,
  seq bigint,
  item integer NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL,
  sha256 bytea NOT NULL,
  payload bytea NOT NULL,
  count bigint NOT NULL DEFAULT 1,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz NOT NULL,
  UNIQUE NULLS NOT DISTINCT (sector, gateway, format, boot, seq, item, reason, sha256)
);

GRANT SELECT, INSERT, UPDATE ON sector_log, append, batch, account, rejection TO chimata_ingest;
GRANT SELECT, INSERT, UPDATE, DELETE ON ingest_process TO chimata_ingest;
GRANT SELECT ON sector_log, append, batch, account, ingest_process TO chimata_read, chimata_gate;
