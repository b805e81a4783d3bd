"""What farm values mean beyond their numbers: which field a sensor stands in."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.sensorthings import Decoded


def derive(decoded: Decoded) -> Decoded:
    """Nothing is derived from field sensors."""
    return decoded


def fields_of(
    geometries: Sequence[Mapping[str, Any]], points: Sequence[tuple[float, float]]
) -> list[int | None]:
    """For each (longitude, latitude), the index of the field it stands in or on the edge of.

    Where fields overlap it is the first of them; None: in no field.
    """
    import shapely
    from shapely.geometry import shape

    found: list[int | None] = [None] * len(points)
    if not geometries or not points:
        return found
    tree = shapely.STRtree([shape(dict(geometry)) for geometry in geometries])
    pairs = tree.query(shapely.points(points), predicate="intersects")
    for point, field in sorted(zip(*pairs.tolist(), strict=True)):
        if found[point] is None:
            found[point] = field
    return found
