"""Tests of the gate: what may leave, for whom, and the record of what may not."""
