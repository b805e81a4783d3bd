-- A recipient's records, the newest first.
CREATE INDEX ON audit.decision (recipient, at);
