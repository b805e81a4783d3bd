-- All latest values of a nation change every second: half of each page is left for the new versions,
-- so that no update touches an index. Pages written before fill up to it as they are vacuumed.
ALTER TABLE latest SET (fillfactor = 45);
ALTER TABLE thing_heard SET (fillfactor = 45);
