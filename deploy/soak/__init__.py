"""`chimata soak`: a load that knows what it sent, faults meanwhile, a comparison at the end."""
