"""Tests of the health sector."""
