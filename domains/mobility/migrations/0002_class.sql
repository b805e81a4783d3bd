-- A feed's class is that of its gateway and of all that it ever sent: what came while it was open is
-- not left open. An ingestor reads the class of a gateway as it makes something new of it.
CREATE FUNCTION mobility.classify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.gateway (id, data_class) VALUES (NEW.id, NEW.data_class)
  ON CONFLICT (id) DO UPDATE SET data_class = excluded.data_class;
  WITH owned AS (
    SELECT id FROM public.thing WHERE sector = 'mobility'
      AND (key = NEW.id OR starts_with(key, NEW.id || ':'))
  ), placed AS (
    UPDATE public.thing_place p SET data_class = NEW.data_class FROM owned
    WHERE p.thing_id = owned.id AND p.data_class IN ('open', 'shared')
  )
  UPDATE public.datastream d SET data_class = NEW.data_class FROM owned
  WHERE d.thing_id = owned.id AND d.data_class IN ('open', 'shared')
    AND d.data_class <> NEW.data_class;
  RETURN NULL;
END $$;
CREATE TRIGGER classified AFTER INSERT ON mobility.feed
  FOR EACH ROW EXECUTE FUNCTION mobility.classify();
CREATE TRIGGER reclassified AFTER UPDATE ON mobility.feed
  FOR EACH ROW WHEN (OLD.sharing <> NEW.sharing) EXECUTE FUNCTION mobility.classify();
