"""Shared bikes and scooters: GBFS 2.3 and 3.0, in and out."""
