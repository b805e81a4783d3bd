"""Derived values of health; pure. Plausible ranges are declared in sector.py."""

from core.sensorthings import Decoded


def derive(decoded: Decoded) -> Decoded:
    """Nothing is derived: what is derived from a person needs a grant of its own."""
    return decoded
