-- Roles: one pool a role. Only chimata_gate may read schema personal; nobody else ever does.
DO $$
DECLARE role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['chimata_ingest', 'chimata_read', 'chimata_gate'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- roles belong to the server: another database's migration was first
      END;
    END IF;
    IF NOT pg_has_role(current_user, role_name, 'USAGE') THEN
      EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
    END IF;
  END LOOP;
  -- The ingestor stages late rows in a temporary table.
  EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO chimata_ingest', current_database());
END $$;

CREATE SCHEMA personal;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO chimata_ingest, chimata_read, chimata_gate;
GRANT USAGE ON SCHEMA personal TO chimata_ingest;
GRANT USAGE, CREATE ON SCHEMA personal TO chimata_gate;  -- it owns the tables there
