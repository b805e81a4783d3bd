"""What every sector shares; imports nothing else of ours."""
