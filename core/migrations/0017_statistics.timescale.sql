-- Chunks of personal rows keep no statistics of their results.
SELECT keep_no_statistics(c.oid) FROM pg_class c
WHERE c.relnamespace = 'personal'::regnamespace AND c.relname ~ '^(observation|superseded)'
  AND c.relkind = 'r';
SELECT keep_no_statistics(chunk) FROM unnest(ARRAY[
  'personal.observation', 'personal.observation_position', 'personal.observation_document'
]) AS shape, LATERAL show_chunks(shape::regclass) AS chunk;
