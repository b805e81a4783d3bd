"""The offline base map of the dashboard: coast, lakes, rivers and place names, built at set-up."""
