"""Derived values of newsector; pure. Plausible ranges are declared in sector.py."""

from core.sensorthings import Decoded


def derive(decoded: Decoded) -> Decoded:
    """Nothing is derived yet: the identity."""
    return decoded
