"""Senders: one file a way to the platform; all of them bring back the same receipts."""
