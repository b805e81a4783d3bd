-- Proofs of what was delivered: each provision record is a leaf of a Merkle tree (RFC 6962), as a
-- salted commitment, so that a record can be erased and every proof still holds. Leaves get their
-- places from one sequencer at a time; who delivers waits for nobody.
ALTER TABLE audit.provision
  ADD id uuid NOT NULL DEFAULT gen_random_uuid(),
  -- 32 bytes, 244 of their bits by chance: the server's only source of them without an extension.
  ADD salt bytea NOT NULL DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text,
                                                 '-', ''), 'hex');
CREATE UNIQUE INDEX ON audit.provision (id);

CREATE TABLE audit.unsequenced (provision uuid NOT NULL);
CREATE TABLE audit.leaf (
  index bigint PRIMARY KEY,
  provision uuid NOT NULL UNIQUE,
  record text NOT NULL  -- what the leaf commits to, word by word
);
CREATE TABLE audit.node (
  level smallint NOT NULL,
  index bigint NOT NULL,
  hash bytea NOT NULL CHECK (length(hash) = 32),
  PRIMARY KEY (level, index)
);
CREATE TABLE audit.checkpoint (
  size bigint PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  note text NOT NULL  -- signed: C2SP tlog-checkpoint
);

CREATE FUNCTION audit.queue_provision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit.unsequenced SELECT id FROM added;
  RETURN NULL;
END $$;
CREATE TRIGGER queue AFTER INSERT ON audit.provision
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION audit.queue_provision();
ALTER TABLE audit.provision ENABLE ALWAYS TRIGGER queue;
INSERT INTO audit.unsequenced SELECT id FROM audit.provision;

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['leaf', 'node', 'checkpoint'] LOOP
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.%I
                    FOR EACH ROW EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit.%I
                    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', name);
    EXECUTE format('ALTER TABLE audit.%I ENABLE ALWAYS TRIGGER append_only', name);
    EXECUTE format('ALTER TABLE audit.%I ENABLE ALWAYS TRIGGER append_only_whole', name);
    EXECUTE format('GRANT SELECT, INSERT ON audit.%I TO chimata_gate', name);
  END LOOP;
END $$;
GRANT SELECT, INSERT, DELETE ON audit.unsequenced TO chimata_gate;
