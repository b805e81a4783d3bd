"""Repeatable measurements of the real platform, each with its goal and its last recorded result."""
