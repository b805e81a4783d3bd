-- A Thing's row vouches for all that is static about it, so that readers need look at nothing else:
-- `data_classes` are those of its Datastreams, and its version (xmin) changes with its Datastreams and
-- its fixed place as with itself. Where a Thing moves, its place and whatever is said of that is read
-- each time, and thing_place touches nothing.
ALTER TABLE thing ADD COLUMN data_classes text[] NOT NULL DEFAULT '{}';

-- The lock comes first: what is counted then holds all that others committed for these Things.
CREATE FUNCTION touch_things(things integer[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM thing WHERE id = ANY(things) ORDER BY id FOR NO KEY UPDATE;
  UPDATE thing t SET data_classes = ARRAY(
    SELECT DISTINCT d.data_class FROM datastream d WHERE d.thing_id = t.id ORDER BY 1)
  WHERE t.id = ANY(things);
END $$;

CREATE FUNCTION datastream_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM touch_things(ARRAY(SELECT DISTINCT thing_id FROM changed));
  RETURN NULL;
END $$;
CREATE TRIGGER datastream_inserted AFTER INSERT ON datastream
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION datastream_changed();
CREATE TRIGGER datastream_updated AFTER UPDATE ON datastream
  REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION datastream_changed();
CREATE TRIGGER datastream_deleted AFTER DELETE ON datastream
  REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION datastream_changed();

CREATE FUNCTION place_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  thing integer := coalesce(NEW.thing_id, OLD.thing_id);
BEGIN
  IF NOT EXISTS (SELECT FROM datastream d WHERE d.thing_id = thing AND d.kind = 'position') THEN
    PERFORM touch_things(ARRAY[thing]);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER place_made AFTER INSERT OR DELETE ON thing_place
  FOR EACH ROW EXECUTE FUNCTION place_changed();
CREATE TRIGGER place_moved AFTER UPDATE ON thing_place FOR EACH ROW
  WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION place_changed();

SELECT touch_things(ARRAY(SELECT DISTINCT thing_id FROM datastream));
