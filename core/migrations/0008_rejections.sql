-- Rejections that can be mended: what state each is in, who did what to it, and how much is kept.
ALTER TABLE rejection
  ADD COLUMN hour timestamptz,        -- of the account's row that counts it as rejected
  ADD COLUMN state text NOT NULL DEFAULT 'open'
    CHECK (state IN ('open', 'replayed', 'fixed', 'discarded')),
  ADD COLUMN data_class text NOT NULL DEFAULT 'shared',  -- the sector's; rows from before: operators
  ADD COLUMN sealed boolean NOT NULL DEFAULT false,  -- payload and detail, to the key of core/seal.py
  ADD COLUMN item_format text,        -- what the payload can be taken in as; null: as nothing
  ADD COLUMN bytes bigint NOT NULL DEFAULT 0,        -- of the payload as it came
  ADD COLUMN folded boolean NOT NULL DEFAULT false,  -- many in one row: sha256 is a chain of hashes
  ADD COLUMN corrected bytea,         -- what took its place, beside the original
  ALTER COLUMN payload DROP NOT NULL, -- null: let go
  DROP CONSTRAINT rejection_sector_gateway_format_boot_seq_item_reason_sha256_key;

UPDATE rejection SET hour = date_trunc('hour', first_seen, 'UTC'), bytes = length(payload),
  item_format = CASE WHEN length(payload) > 0 THEN format END,
  data_class = CASE sector WHEN 'unknown' THEN 'personal' ELSE 'shared' END;
ALTER TABLE rejection ALTER COLUMN hour SET NOT NULL;

-- The same item again is counted, within the hour and while nobody has acted on it.
CREATE UNIQUE INDEX ON rejection
  (sha256, sector, gateway, format, reason, hour, item, boot, seq) NULLS NOT DISTINCT
  WHERE state = 'open' AND NOT folded;
CREATE UNIQUE INDEX ON rejection (sector, gateway, format, reason, hour)
  WHERE state = 'open' AND folded;
CREATE INDEX ON rejection (sector, reason, id) WHERE state = 'open' AND NOT folded;
CREATE INDEX ON rejection (sector, gateway, last_seen) WHERE NOT folded;

-- What is kept of one gateway in one sector: open rows and the bytes of their payloads.
CREATE TABLE rejection_quota (
  sector text NOT NULL,
  gateway text NOT NULL,
  items bigint NOT NULL,
  bytes bigint NOT NULL,
  PRIMARY KEY (sector, gateway)
) WITH (fillfactor = 70);
INSERT INTO rejection_quota
  SELECT sector, gateway, count(*), sum(bytes) FROM rejection GROUP BY sector, gateway;

-- Who did what, when and why: appended to, never changed.
CREATE TABLE rejection_act (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rejection_id bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  who text NOT NULL,
  act text NOT NULL CHECK (act IN ('replay', 'fix', 'discard', 'unseal')),
  done boolean NOT NULL,
  reason text NOT NULL,
  sha256 bytea NOT NULL,
  corrected_sha256 bytea,
  stored bigint NOT NULL DEFAULT 0,
  duplicate bigint NOT NULL DEFAULT 0,
  rejected bigint NOT NULL DEFAULT 0
);
CREATE INDEX ON rejection_act (rejection_id, id);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the history of rejections is append-only'
    USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rejection_act
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE rejection_act ENABLE ALWAYS TRIGGER append_only;

-- Of what the account calls rejected those that were taken in after all, by its source and hour.
CREATE TABLE recovered (
  sector text NOT NULL,
  gateway text NOT NULL,
  format text NOT NULL,
  hour timestamptz NOT NULL,
  items bigint NOT NULL,
  PRIMARY KEY (sector, gateway, format, hour)
);

-- Folds rows of one gateway that are older than `keep` into one a (format, reason, hour, state):
-- payloads are let go, hashes go into a chain, counts stay. Returns how many rows it folded; to be
-- called until that is 0. One gateway a call, so that it never waits for a second quota's lock.
CREATE FUNCTION fold_rejections(keep interval, rows_max integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  source record;
  old rejection;
  target rejection;
  step bytea;
  done integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('chimata.fold_rejections')) THEN RETURN 0; END IF;
  SELECT q.sector, q.gateway INTO source FROM rejection_quota q
    WHERE EXISTS (SELECT FROM rejection r WHERE r.sector = q.sector AND r.gateway = q.gateway
                  AND NOT r.folded AND r.last_seen < now() - keep)
    ORDER BY q.sector, q.gateway LIMIT 1 FOR UPDATE OF q;
  IF NOT FOUND THEN RETURN 0; END IF;
  FOR old IN SELECT * FROM rejection r
    WHERE r.sector = source.sector AND r.gateway = source.gateway AND NOT r.folded
      AND r.last_seen < now() - keep ORDER BY r.id LIMIT rows_max FOR UPDATE
  LOOP
    SELECT * INTO target FROM rejection r
      WHERE r.sector = old.sector AND r.gateway = old.gateway AND r.format = old.format
        AND r.reason = old.reason AND r.hour = old.hour AND r.state = old.state AND r.folded
      ORDER BY r.id LIMIT 1 FOR UPDATE;
    step := old.sha256 || int8send(old.count);
    IF FOUND THEN
      UPDATE rejection SET count = count + old.count, bytes = bytes + old.bytes * old.count,
        sha256 = sha256(target.sha256 || step), first_seen = least(first_seen, old.first_seen),
        last_seen = greatest(last_seen, old.last_seen) WHERE id = target.id;
    ELSE
      INSERT INTO rejection (sector, gateway, format, channel, item, reason, detail, sha256, count,
                             first_seen, last_seen, hour, state, data_class, bytes, folded)
      VALUES (old.sector, old.gateway, old.format, '', 0, old.reason, '', sha256(step), old.count,
              old.first_seen, old.last_seen, old.hour, old.state, old.data_class,
              old.bytes * old.count, true);
    END IF;
    IF old.state = 'open' THEN
      UPDATE rejection_quota q SET items = items - 1,
        bytes = q.bytes - coalesce(length(old.payload), 0)
      WHERE q.sector = old.sector AND q.gateway = old.gateway;
    END IF;
    DELETE FROM rejection WHERE id = old.id;
    done := done + 1;
  END LOOP;
  RETURN done;
END $$;

REVOKE ALL ON FUNCTION fold_rejections FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fold_rejections TO chimata_ingest;
GRANT SELECT, INSERT, UPDATE ON rejection_quota, recovered TO chimata_ingest;
GRANT SELECT ON recovered TO chimata_read, chimata_gate;
GRANT SELECT, INSERT ON rejection_act TO chimata_ingest;
GRANT SELECT ON rejection, rejection_act TO chimata_gate;
