"""Time-series storage on PostgreSQL, with TimescaleDB where the server offers it."""
