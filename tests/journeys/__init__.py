"""Journeys: the real `chimata up`, the real commands, real recordings, from end to end."""
