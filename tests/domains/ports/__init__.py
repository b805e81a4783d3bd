"""Tests of the ports sector: lines, decoding, oracle, the vessel endpoint."""
