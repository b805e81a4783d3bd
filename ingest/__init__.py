"""Receive, decode, check, batch, store, acknowledge: the one path that observations take."""
