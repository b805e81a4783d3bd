"""SQL of the health sector's own words: none; personal rows are read by consent.personal alone."""
