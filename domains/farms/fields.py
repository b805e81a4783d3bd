"""Fields as polygons: GeoJSON, GeoPackage, Shapefile and OSM XML -> Things with a geometry."""

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import shapely
from shapely.geometry import MultiPolygon, Polygon, mapping
from shapely.geometry.base import BaseGeometry

from core.errors import invalid
from core.sensorthings import ThingUpdate

LOG = logging.getLogger(__name__)

FIELDS_MAX = 1_000_000
# Where a parcel's own id is, best first: 筆ポリゴン in OSM and as published (2020 on, and before).
ID_FIELDS = ("ref:JP_fude", "polygon_uuid", "耕地の筆ID", "field_id", "parcel_id", "id", "fid")
NAME_FIELDS = ("name", "field_name", "title")
FARM_LANDUSE = frozenset(
    {"farmland", "farmyard", "orchard", "vineyard", "meadow", "paddy", "greenhouse_horticulture"}
)
_OSM_SUFFIXES = frozenset({".osm", ".xml"})
_M2_A_HECTARE = 10_000.0


class Parcel(NamedTuple):
    """One parcel as a file has it: its shape in degrees WGS 84, and its attributes."""

    key: str
    shape: BaseGeometry
    attributes: Mapping[str, Any]


def read(path: Path) -> Iterator[ThingUpdate]:
    """The fields of a file, each with a valid geometry, a point inside it and its area in ha.

    CityError `invalid` where the file cannot be read or holds no field. A parcel without an area
    is left out with a warning.
    """
    path = Path(path)
    if not path.is_file():
        raise invalid("FILE", f"there is no file {path}")
    parcels = list(_osm(path) if path.suffix.lower() in _OSM_SUFFIXES else _table(path))
    if len(parcels) > FIELDS_MAX:
        raise invalid("FILE", f"{path.name}: over {FIELDS_MAX} fields")
    repaired = [parcel._replace(shape=_polygons(parcel.shape)) for parcel in parcels]
    for parcel in repaired:
        if parcel.shape.is_empty:
            LOG.warning("%s: parcel %s has no area and is left out", path.name, parcel.key)
    fields = [parcel for parcel in repaired if not parcel.shape.is_empty]
    if not fields:
        raise invalid("FILE", f"{path.name}: no polygons that are fields")
    return _updates(fields)


def _updates(fields: list[Parcel]) -> Iterator[ThingUpdate]:
    taken: dict[str, int] = {}
    for field, hectares in zip(fields, areas([field.shape for field in fields]), strict=True):
        # Two parcels of one id stay two: the second is numbered, the same way at every import.
        count = taken[field.key] = taken.get(field.key, 0) + 1
        key = field.key if count == 1 else f"{field.key}-{count}"
        inside = field.shape.representative_point()
        name = next((field.attributes[n] for n in NAME_FIELDS if field.attributes.get(n)), None)
        yield ThingUpdate(
            key,
            None if name is None else str(name),
            {**_plain(field.attributes), "kind": "field", "area_ha": round(hectares, 4)},
            (inside.x, inside.y),
            mapping(field.shape),
        )


def areas(shapes: list[BaseGeometry]) -> list[float]:
    """Areas in ha, measured on an equal-area projection centred on them (degrees have no area)."""
    import geopandas

    series = geopandas.GeoSeries(shapes, crs="EPSG:4326")
    west, south, east, north = series.total_bounds
    centre = f"+lat_0={(south + north) / 2} +lon_0={(west + east) / 2}"
    projected = series.to_crs(f"+proj=laea {centre} +datum=WGS84 +units=m")
    return [float(area) / _M2_A_HECTARE for area in projected.area]


def _polygons(shape: BaseGeometry) -> BaseGeometry:
    """The polygons of a shape, valid by the simple features rules (OGC 06-103r4, 6.1.11)."""
    valid = shape if shape.is_valid else shapely.make_valid(shape)
    valid = shapely.force_2d(valid)
    if isinstance(valid, Polygon | MultiPolygon):
        return valid
    parts = [part for part in shapely.get_parts(valid) if isinstance(part, Polygon | MultiPolygon)]
    return shapely.union_all(parts) if parts else Polygon()


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON values: texts, finite numbers and booleans; what is empty is left out."""
    kept: dict[str, Any] = {}
    for name, value in attributes.items():
        value = value.item() if hasattr(value, "item") else value  # noqa: PLW2901 - numpy scalars
        finite = math.isfinite(value) if isinstance(value, float) else value != ""
        if isinstance(value, bool | str | int | float) and finite:
            kept[str(name)] = value
    return kept


def _key(attributes: Mapping[str, Any], fallback: str) -> str:
    for name in ID_FIELDS:
        value = _plain({name: attributes.get(name)}).get(name)
        text = "".join(c for c in str(value if value is not None else "") if c.isprintable())
        if text.strip():
            return text.strip().replace("/", ":")[:200]
    return fallback


def _table(path: Path) -> Iterator[Parcel]:
    """A file that GDAL reads, in any CRS that it names."""
    import geopandas

    try:
        frame = geopandas.read_file(path)
    except (RuntimeError, ValueError, OSError) as error:  # pyogrio's errors are RuntimeErrors
        raise invalid("FILE", f"{path.name}: {error}") from error
    if "geometry" not in frame or frame.crs is None:
        raise invalid("FILE", f"{path.name}: no geometry, or no coordinate system")
    frame = frame.to_crs("EPSG:4326")
    columns = [name for name in frame.columns if name != frame.geometry.name]
    for number, (shape, *values) in enumerate(
        zip(frame.geometry, *(frame[name] for name in columns), strict=True)
    ):
        attributes = dict(zip(map(str, columns), values, strict=True))
        if shape is not None:
            yield Parcel(_key(attributes, f"{path.stem}-{number}"[:200]), shape, attributes)


# --- OSM XML --------------------------------------------------------------------------------------

_Ring = list[tuple[float, float]]


def _osm(path: Path) -> Iterator[Parcel]:
    """Closed ways and multipolygon relations that are parcels (OSM API 0.6 XML)."""
    nodes: dict[str, tuple[float, float]] = {}
    ways: dict[str, _Ring] = {}
    try:
        # expat bounds entity expansion itself (2.4.1 on); the file is one the operator chose.
        for _, element in ElementTree.iterparse(path):  # noqa: S314
            if element.tag == "node":
                nodes[element.attrib["id"]] = (
                    float(element.attrib["lon"]),
                    float(element.attrib["lat"]),
                )
            elif element.tag == "way":
                line = [nodes[nd.attrib["ref"]] for nd in element.iter("nd")]
                ways[element.attrib["id"]] = line
                yield from _parcel("way", element, _closed(line))
            elif element.tag == "relation":
                yield from _parcel("relation", element, _multipolygon(element, ways))
            if element.tag in ("node", "way", "relation"):
                element.clear()
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise invalid("FILE", f"{path.name}: not OSM XML ({error!r})") from error


def _parcel(kind: str, element: ElementTree.Element, shape: BaseGeometry) -> Iterator[Parcel]:
    tags = {tag.attrib["k"]: tag.attrib["v"] for tag in element.iter("tag")}
    if "ref:JP_fude" in tags or tags.get("landuse") in FARM_LANDUSE:
        yield Parcel(_key(tags, f"{kind}-{element.attrib['id']}"), shape, tags)


def _closed(line: _Ring) -> BaseGeometry:
    corners = 4  # a triangle, with its first point again
    return Polygon(line) if len(line) >= corners and line[0] == line[-1] else Polygon()


def _multipolygon(element: ElementTree.Element, ways: Mapping[str, _Ring]) -> BaseGeometry:
    """Outer rings less inner rings; a ring may be cut into several ways."""
    lines: dict[str, list[BaseGeometry]] = {"outer": [], "inner": []}
    for member in element.iter("member"):
        line = ways.get(member.attrib.get("ref", ""), [])
        role = "inner" if member.attrib.get("role") == "inner" else "outer"
        if member.attrib.get("type") == "way" and len(line) > 1:
            lines[role].append(shapely.LineString(line))
    outer, inner = (
        shapely.union_all(shapely.get_parts(shapely.polygonize(lines[role])))
        for role in ("outer", "inner")
    )
    return outer.difference(inner)
