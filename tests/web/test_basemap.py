"""The base map tells land from sea, and names places as people do."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from shapely.geometry import LineString, Point, Polygon

from api.basemap import build as basemap


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("basemap")
    basemap.build(target)
    return target


@cache
def features(folder: Path, name: str) -> list[dict[str, Any]]:
    body = orjson.loads((folder / f"{name}.geojson").read_bytes())
    return list(body["features"])


def contains(ring: list[list[float]], point: Point) -> bool:
    """Whether the ring holds the point; most rings are told by their bounds alone."""
    longitudes, latitudes = zip(*ring, strict=True)
    if not min(longitudes) <= point.x <= max(longitudes):
        return False
    return min(latitudes) <= point.y <= max(latitudes) and bool(
        Polygon(ring).buffer(0).contains(point)
    )


@pytest.mark.parametrize(
    ("place", "longitude", "latitude", "dry"),
    [
        ("Mount Fuji", 138.7274, 35.3606, True),
        ("Shimizu station", 138.489, 35.0235, True),
        ("Miho", 138.5195, 34.995, True),
        ("Tokyo station", 139.767, 35.681, True),
        ("Sapporo", 141.354, 43.062, True),
        ("Beijing", 116.4, 39.9, True),
        ("Suruga Bay", 138.62, 34.88, False),
        ("Shimizu harbour", 138.508, 35.025, False),
        ("Pacific Ocean", 143.5, 33.0, False),
        ("Sea of Japan", 134.5, 39.5, False),
    ],
)
def test_land_and_sea(
    folder: Path, place: str, longitude: float, latitude: float, dry: bool
) -> None:
    point = Point(longitude, latitude)
    land = [f for f in features(folder, "land") if f["properties"]["kind"] == "land"]
    assert any(contains(f["geometry"]["coordinates"][0], point) for f in land) == dry, place


def test_rings_are_closed_and_in_range(folder: Path) -> None:
    for each in features(folder, "land"):
        if each["geometry"]["type"] == "Polygon":
            ring = each["geometry"]["coordinates"][0]
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            assert all(-90 <= latitude <= 90 for _, latitude in ring)


@pytest.mark.parametrize(
    ("alternatives", "country", "expected"),
    [
        (["静岡市", "靜岡市", "静岡", "しずおか", "시즈오카 시"], "JP", "静岡"),
        (["燒津市", "焼津市", "焼津"], "JP", "焼津"),
        (["倫敦", "ロンドン", "London"], "GB", "ロンドン"),
        (["London"], "GB", None),
        ([""], "JP", None),
    ],
)
def test_japanese_name(alternatives: list[str], country: str, expected: str | None) -> None:
    assert basemap.japanese_name(alternatives, country) == expected


def test_both_languages_everywhere(folder: Path) -> None:
    names = [f["properties"] for f in features(folder, "places")]
    assert all(each["ja"] and each["en"] for each in names)
    assert {"清水", "静岡", "東京"} <= {each["ja"] for each in names}


def test_smoothing_stays_close_and_keeps_the_ends() -> None:
    steps = np.array([(n // 2 * 0.001, (n + 1) // 2 * 0.001) for n in range(40)], np.float32)
    smooth = basemap.smooth(LineString(steps))
    assert smooth[0].tolist() == steps[0].tolist()
    assert smooth[-1].tolist() == steps[-1].tolist()
    assert LineString(steps).hausdorff_distance(LineString(smooth)) < 0.001
