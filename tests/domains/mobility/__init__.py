"""Tests of the mobility sector."""
