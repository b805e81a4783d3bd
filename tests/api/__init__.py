"""Tests of the public HTTP API, against a real server on a real database."""
