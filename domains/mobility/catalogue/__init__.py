"""The catalogue: every feed of the city, with its licence, freshness, coverage and quality."""
