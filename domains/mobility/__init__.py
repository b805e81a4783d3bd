"""Mobility: how people move; trips of persons are read by grants alone."""
