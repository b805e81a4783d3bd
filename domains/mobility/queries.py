"""SQL of mobility's own words: none; personal rows are read by consent.personal alone."""
