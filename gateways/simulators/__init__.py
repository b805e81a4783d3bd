"""The demo city: simulators that are pure functions of time, speaking the real wire formats.

A made-up port city on a real shore: streets and signals on the plain west of the harbour of
Shimizu, fields up the valleys, ships in Suruga Bay. No device, ship or field in it exists.
"""
