-- The audit log: appended to by the gate, changed by nobody. Its owner is a role that no process acts
-- as, and triggers refuse changes even to that owner; what gets round both is an act of the server's
-- administrator, against which proofs are made (signed checkpoints), not permissions.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chimata_audit') THEN
    BEGIN
      CREATE ROLE chimata_audit NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- roles belong to the server: another database's migration was first
    END;
  END IF;
  IF NOT pg_has_role(current_user, 'chimata_audit', 'MEMBER') THEN
    GRANT chimata_audit TO CURRENT_USER;
  END IF;
END $$;

CREATE SCHEMA audit;
GRANT USAGE ON SCHEMA audit TO chimata_gate;
GRANT USAGE, CREATE ON SCHEMA audit TO chimata_audit;

CREATE TABLE audit.decision (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),  -- random: a sequence would tell how many there are
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  principal text NOT NULL,
  role text,
  recipient text NOT NULL,
  purpose text,  -- null: the request named none
  category text,
  sector text,
  outcome text NOT NULL CHECK (outcome IN ('permitted', 'refused')),
  reason text NOT NULL
);
CREATE INDEX ON audit.decision (at);

CREATE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit.decision
  FOR EACH ROW EXECUTE FUNCTION audit.refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit.decision
  FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change();
-- Also when a session pretends to be a replica, which skips ordinary triggers.
ALTER TABLE audit.decision ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit.decision ENABLE ALWAYS TRIGGER append_only_whole;

GRANT INSERT, SELECT ON audit.decision TO chimata_gate;
REVOKE UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON audit.decision FROM CURRENT_USER;
ALTER FUNCTION audit.refuse_change OWNER TO chimata_audit;
ALTER TABLE audit.decision OWNER TO chimata_audit;
REVOKE CREATE ON SCHEMA audit FROM chimata_audit;
