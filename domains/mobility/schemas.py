"""Response models of the mobility sector's own words: none; api.personal has those of all."""
