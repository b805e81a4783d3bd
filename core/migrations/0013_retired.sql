-- What retention let go: rollups may outlive their rows, and are not computed anew from what is left.
CREATE TABLE retired (
  sector text NOT NULL,
  data_class text NOT NULL,
  source text NOT NULL,
  until timestamptz NOT NULL,
  PRIMARY KEY (sector, data_class, source)
);
GRANT SELECT, INSERT, UPDATE ON retired TO chimata_ingest;
GRANT SELECT ON retired TO chimata_read, chimata_gate;

REVOKE ALL ON FUNCTION seal_partition, retention_pieces, drop_piece, delete_rows, set_columnstore
  FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seal_partition, retention_pieces, drop_piece, delete_rows, set_columnstore
  TO chimata_ingest;
