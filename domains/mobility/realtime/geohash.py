"""Geohash (G. Niemeyer, 2008): the cell of a prefix. Pure."""

ALPHABET = "0123456789bcdefghjkmnpqrstuvwxyz"
CHARACTERS_MAX = 12
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}

Box = tuple[float, float, float, float]


def box_of(prefix: str) -> Box:
    """west, south, east, north of a cell; KeyError for a letter that no geohash has.

    A cell has its western and southern edge, and no other but at the end of the world.
    """
    bounds = [[-180.0, 180.0], [-90.0, 90.0]]
    bit = 0
    for letter in prefix:
        value = _VALUES[letter]
        for shift in range(4, -1, -1):
            low, high = bounds[bit % 2]
            middle = (low + high) / 2
            bounds[bit % 2] = [middle, high] if value >> shift & 1 else [low, middle]
            bit += 1
    (west, east), (south, north) = bounds
    return west, south, east, north


def is_in(box: Box, longitude: float, latitude: float) -> bool:
    """Whether a cell has a place."""
    west, south, east, north = box
    return (west <= longitude < east or longitude == east == 180.0) and (  # noqa: PLR2004
        south <= latitude < north or latitude == north == 90.0  # noqa: PLR2004
    )
