"""Farms: field sensors, weather and the fields themselves."""
