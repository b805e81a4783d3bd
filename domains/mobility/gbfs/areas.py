"""Geohash: the name of an area of about 4.9 km, as texts that begin alike where they are near."""

ALPHABET = "0123456789bcdefghjkmnpqrstuvwxyz"
CHARACTERS = 5
_BITS = 5


def cell(longitude: float, latitude: float, characters: int = CHARACTERS) -> str:
    """The geohash of a place in degrees WGS 84 (Niemeyer 2008), of so many characters."""
    bits = characters * _BITS
    x = min(int((longitude + 180) / 360 * (1 << (bits + 1) // 2)), (1 << (bits + 1) // 2) - 1)
    y = min(int((latitude + 90) / 180 * (1 << bits // 2)), (1 << bits // 2) - 1)
    woven = 0
    for place in range(bits):  # bits of both in turn, longitude first
        source, level = (x, (bits + 1) // 2) if place % 2 == 0 else (y, bits // 2)
        woven = woven << 1 | (source >> (level - 1 - place // 2) & 1)
    return "".join(
        ALPHABET[woven >> (bits - _BITS * (index + 1)) & 31] for index in range(characters)
    )
