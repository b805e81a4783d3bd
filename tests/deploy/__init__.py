"""Tests of deploy/: real processes."""
