"""Tests of the sectors: one folder each, and what holds for all of them."""
