"""Response models of the health sector's own words: none; api.personal has those of all."""
