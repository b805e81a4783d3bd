"""Tests of the ingestors: check, pipeline, and each channel against a real broker or server."""
