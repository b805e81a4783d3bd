"""Health: vital signs that persons and their carers record; personal, read by grants alone."""
