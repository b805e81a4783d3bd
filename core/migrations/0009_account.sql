-- The account's running totals, every boot's count of sequences, what gateways' clocks say, figures.

-- What `account` holds by hour, summed since ever: as many rows as there are sources.
CREATE TABLE account_total (
  sector text NOT NULL,
  gateway text NOT NULL,
  format text NOT NULL,
  messages bigint NOT NULL,
  unchanged bigint NOT NULL,
  received bigint NOT NULL,
  stored bigint NOT NULL,
  duplicate bigint NOT NULL,
  rejected bigint NOT NULL,
  PRIMARY KEY (sector, gateway, format)
) WITH (fillfactor = 70);
INSERT INTO account_total
SELECT sector, gateway, format, sum(messages), sum(unchanged), sum(received), sum(stored),
       sum(duplicate), sum(rejected)
FROM account GROUP BY sector, gateway, format;

-- Pages of hours; updates of a row change none of these columns, and so not this index.
CREATE INDEX ON account (hour, sector, gateway, format);

-- Items that were rejected, by reason: only ever more, whatever becomes of the kept ones.
CREATE TABLE rejected_total (
  sector text NOT NULL,
  reason text NOT NULL,
  items bigint NOT NULL,
  PRIMARY KEY (sector, reason)
) WITH (fillfactor = 70);
INSERT INTO rejected_total
SELECT sector, reason, sum(count) FROM rejection GROUP BY sector, reason;

-- Sequences of a boot by source: missing = max(seq_max) + 1 - sum(batches) over the boot's rows.
CREATE TABLE boot (
  gateway text NOT NULL,
  boot text NOT NULL,
  sector text NOT NULL,
  format text NOT NULL,
  seq_max bigint NOT NULL,
  batches bigint NOT NULL,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz NOT NULL,
  oldest timestamptz NOT NULL,  -- receipt of the oldest identity kept in `batch`; infinity: none is
  PRIMARY KEY (gateway, boot, sector, format)
) WITH (fillfactor = 70);
INSERT INTO boot
SELECT gateway, boot, sector, format, max(seq), count(*), min(received_at), max(received_at),
       min(received_at)
FROM batch GROUP BY gateway, boot, sector, format;
CREATE INDEX ON boot (oldest);

-- Sequences whose identity `batch` no longer keeps: a repeat of one is not counted once more.
CREATE TABLE boot_pruned (
  gateway text NOT NULL,
  boot text NOT NULL,
  seqs int8multirange NOT NULL,
  PRIMARY KEY (gateway, boot)
);

-- Forgets identities received longer ago than `keep`, at most `rows_max`; returns how many.
-- In the order of their numbers, which is nearly that of their receipt: no index on the time is
-- needed, and a late low number merely stays until its own time has come.
CREATE FUNCTION prune_ledger(keep interval, rows_max integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  ranges_max constant integer := 1000;  -- past that, all of a boot up to there counts as seen
  cutoff constant timestamptz := now() - keep;
  due record;
  found record;
  kept timestamptz;
  pruned integer := 0;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('chimata.prune_ledger')) THEN RETURN 0; END IF;
  FOR due IN
    SELECT DISTINCT gateway, boot
    FROM (SELECT gateway, boot FROM boot WHERE oldest < cutoff ORDER BY oldest LIMIT 100) AS first
    ORDER BY gateway, boot  -- as appends take these rows: none waits for the other in a ring
  LOOP
    EXIT WHEN pruned >= rows_max;
    WITH looked AS (
      SELECT seq, received_at FROM batch WHERE gateway = due.gateway AND boot = due.boot
      ORDER BY seq LIMIT rows_max - pruned
    ), gone AS (
      DELETE FROM batch b USING looked l
      WHERE b.gateway = due.gateway AND b.boot = due.boot AND b.seq = l.seq
        AND l.received_at < cutoff
      RETURNING b.seq
    )
    SELECT (SELECT min(received_at) FROM looked WHERE received_at >= cutoff) AS oldest,
           count(*)::integer AS gone, range_agg(int8range(seq, seq, '[]')) AS seqs
    INTO found FROM gone;
    kept := found.oldest;
    IF kept IS NULL THEN
      SELECT received_at INTO kept FROM batch
      WHERE gateway = due.gateway AND boot = due.boot ORDER BY seq LIMIT 1;
    END IF;
    IF found.gone > 0 THEN
      INSERT INTO boot_pruned AS p (gateway, boot, seqs) VALUES (due.gateway, due.boot, found.seqs)
      ON CONFLICT (gateway, boot) DO UPDATE SET seqs = p.seqs + excluded.seqs;
      UPDATE boot_pruned SET seqs = int8multirange(range_merge(seqs))
      WHERE gateway = due.gateway AND boot = due.boot
        AND (SELECT count(*) FROM unnest(seqs)) > ranges_max;
    END IF;
    -- What an append adds meanwhile is no older than its own last_seen.
    UPDATE boot SET oldest = coalesce(
      kept, CASE WHEN last_seen < cutoff THEN 'infinity' ELSE last_seen END)
    WHERE gateway = due.gateway AND boot = due.boot;
    pruned := pruned + found.gone;
  END LOOP;
  RETURN pruned;
END $$;
REVOKE ALL ON FUNCTION prune_ledger FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prune_ledger TO chimata_ingest;

-- When each gateway was heard, whatever became of what it sent.
CREATE TABLE gateway_heard (
  gateway text PRIMARY KEY,
  first_seen timestamptz NOT NULL,
  last_seen timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO gateway_heard
SELECT gateway, min(hour), max(hour) FROM account GROUP BY gateway;

-- Delays of a gateway's messages, received_at - newest phenomenon_time, in a ring of ten minutes.
CREATE TABLE gateway_clock (
  gateway text NOT NULL,
  slot smallint NOT NULL,
  minute timestamptz NOT NULL,
  delay_min double precision NOT NULL,     -- seconds; below 0: that clock is ahead of ours
  delay_median double precision NOT NULL,  -- seconds
  samples bigint NOT NULL,
  PRIMARY KEY (gateway, slot)
) WITH (fillfactor = 50);

-- What each ingestor process counts; shown while its advisory lock is held.
CREATE TABLE ingest_figures (
  id bigint PRIMARY KEY,
  seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  figures jsonb NOT NULL
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE ON account_total, rejected_total, boot, gateway_heard, gateway_clock
  TO chimata_ingest;
GRANT SELECT, INSERT, UPDATE, DELETE ON ingest_figures TO chimata_ingest;
GRANT SELECT ON boot_pruned TO chimata_ingest;
GRANT SELECT ON account_total, rejected_total, boot, boot_pruned, gateway_heard, gateway_clock,
  ingest_figures TO chimata_read, chimata_gate;
