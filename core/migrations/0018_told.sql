-- When what is said of a Thing was so, by its sender's clock: nothing older takes its place.
ALTER TABLE thing ADD COLUMN told_at timestamptz;
