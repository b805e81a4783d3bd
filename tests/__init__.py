"""Tests: a mirror of the source, journeys (end to end), and the rules of the house."""
