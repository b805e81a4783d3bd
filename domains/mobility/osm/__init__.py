"""Streets and paths of OpenStreetMap extracts, as a network on foot."""
