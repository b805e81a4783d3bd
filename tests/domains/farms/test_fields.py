"""Fields as polygons: real parcels, other file formats, repairs, areas, and what stands inside."""

import json
import logging
from pathlib import Path
from typing import Any

import geopandas
import pytest
from shapely.geometry import Point, box, mapping, shape

from core.errors import CityError
from domains.farms import fields
from domains.farms.routes import bounds_of, features_of
from domains.farms.rules import fields_of


def test_parcels_of_a_city(shared_data: Path) -> None:
    path = shared_data / "field-polygons/fude-chofu/chofu_fude.osm"
    updates = list(fields.read(path))
    assert len({update.thing for update in updates}) == len(updates) == 1884
    shapes = [shape(dict(update.geometry or {})) for update in updates]
    assert all(each.is_valid and not each.is_empty for each in shapes)
    places = [update.location or (0, 0) for update in updates]
    assert all(each.contains(Point(at)) for each, at in zip(shapes, places, strict=True))
    # Against another projection: UTM zone 54 is within 0.04 % of true area in Chofu.
    utm = geopandas.GeoSeries(shapes, crs="EPSG:4326").to_crs("EPSG:32654").area / 10_000
    got = [update.properties["area_ha"] for update in updates]
    assert sum(got) == pytest.approx(utm.sum(), rel=1e-3)
    assert sum("crop" in update.properties for update in updates) == 86
    holed = [each for each in shapes if each.interiors]
    assert len(holed) == 2  # the file's two multipolygon relations


SQUARE = box(139.50, 35.60, 139.51, 35.61)


def geojson(tmp_path: Path, features: list[tuple[Any, dict[str, Any]]]) -> Path:
    path = tmp_path / "fields.geojson"
    document = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": geometry, "properties": properties}
            for geometry, properties in features
        ],
    }
    path.write_text(json.dumps(document), "utf-8")
    return path


def test_geojson(tmp_path: Path) -> None:
    path = geojson(tmp_path, [(mapping(SQUARE), {"polygon_uuid": "a/b", "name": "北の畑", "n": 1})])
    (update,) = fields.read(path)
    assert (update.thing, update.name) == ("a:b", "北の畑")
    assert update.properties["n"] == 1
    assert update.properties["area_ha"] == pytest.approx(100.5, rel=1e-2)


def test_geopackage_in_a_projected_system(tmp_path: Path) -> None:
    path = tmp_path / "fields.gpkg"
    frame = geopandas.GeoDataFrame(
        {"field_id": ["f1"], "geometry": [SQUARE]}, crs="EPSG:4326"
    ).to_crs("EPSG:6677")
    frame.to_file(path)
    (update,) = fields.read(path)
    assert update.thing == "f1"
    assert shape(dict(update.geometry or {})).equals_exact(SQUARE, 1e-7)


def test_repairs_and_what_cannot_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}
    point = {"type": "Point", "coordinates": [0, 0]}
    path = geojson(tmp_path, [(bow_tie, {"id": "x"}), (point, {"id": "y"}), (bow_tie, {"id": "x"})])
    with caplog.at_level(logging.WARNING):
        updates = list(fields.read(path))
    assert [update.thing for update in updates] == ["x", "x-2"]
    assert all(shape(dict(update.geometry or {})).is_valid for update in updates)
    assert "parcel y has no area" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.osm", b"<osm><way id='1'><nd ref='9'/></way></osm>"),
        ("a.osm", b"not xml"),
        ("a.osm", b"<osm/>"),
        ("a.geojson", b"{}"),
        ("a.gpkg", b"\0" * 100),
    ],
)
def test_files_that_hold_no_fields(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CityError, match="FILE"):
        list(fields.read(path))
    with pytest.raises(CityError, match="no file"):
        list(fields.read(tmp_path / "absent.geojson"))


def test_which_field_a_sensor_stands_in() -> None:
    geometries = [mapping(box(0, 0, 1, 1)), mapping(box(0.5, 0, 2, 1))]
    points = [(0.25, 0.5), (0.75, 0.5), (1.5, 0.5), (5.0, 5.0), (0.0, 0.0)]
    assert fields_of(geometries, points) == [0, 0, 1, None, 0]
    assert fields_of([], points) == [None] * 5
    assert fields_of(geometries, []) == []


def test_features_hold_their_sensors() -> None:
    field = {
        "key": "f", "name": None, "properties": {"area_ha": 1.5, "kind": "field", "crop": "tea"},
        "geometry": json.loads(json.dumps(mapping(SQUARE))),
    }  # fmt: skip
    sensor = {
        "key": "s", "name": None, "longitude": 139.505, "latitude": 35.605, "kind": "number",
        "property": "soil-moisture", "unit": "%", "phenomenon_time": "2026-01-01T00:00:00Z",
        "quality": 0, "result": 31.5, "text": None, "document": None,
    }  # fmt: skip
    outside = {**sensor, "key": "t", "longitude": 140.0}
    (feature,) = features_of(
        [field], [sensor, {**sensor, "property": "ph", "result": 6.5}, outside]
    )
    assert (feature.id, feature.properties.area_ha) == ("f", 1.5)
    assert feature.properties.attributes == {"crop": "tea"}
    (inside,) = feature.properties.sensors
    assert (inside.id, {n: v.result for n, v in inside.latest.items()}) == (
        "s", {"soil-moisture": 31.5, "ph": 6.5},
    )  # fmt: skip
    assert bounds_of([field]) == pytest.approx((139.50, 35.60, 139.51, 35.61))
