"""GET /v1/farms/fields: imported parcels with the sensors that stand in them, through the gate."""

import json
from pathlib import Path

import pytest
from shapely.geometry import box, mapping

from core.clock import now_us
from core.sector import Context
from core.tokens import Role
from domains.farms import fields, wire
from domains.farms.decode import decode
from domains.farms.sector import SECTOR
from ingest.check import check
from tests.domains.serving import client_of, store

INSIDE, OUTSIDE = "70b3d57ed0000001", "70b3d57ed0000002"


@pytest.fixture
def parcels(tmp_path: Path) -> Path:
    features = [
        {"type": "Feature", "geometry": mapping(shape), "properties": {"id": key, "crop": "tea"}}
        for key, shape in (
            ("field-1", box(139.50, 35.60, 139.51, 35.61)),
            ("field-2", box(139.52, 35.60, 139.53, 35.61)),
        )
    ]
    path = tmp_path / "parcels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), "utf-8")
    return path


def test_fields_over_http(database_url: str, tmp_path: Path, parcels: Path) -> None:
    now = now_us()
    payload = bytes.fromhex("0210d3000346be813d00000c80")
    uplinks = wire.uplinks(
        wire.uplink("decentlab/dl-trs12", eui, 1, payload, now) for eui in (INSIDE, OUTSIDE)
    )
    places = (
        b"sensor,lon,lat,temp\n70B3D57ED0000001,139.505,35.605,5\n70B3D57ED0000002,139.515,35.6,5"
    )
    context = Context("g", now)
    decoded = [decode("lorawan", uplinks, context), decode("csv", places, context)]
    assert [one.rejected for one in decoded] == [(), ()]
    messages = [(check(SECTOR, one, now, 900), now) for one in decoded]
    store(database_url, SECTOR, messages, fields.read(parcels))
    with client_of(database_url, tmp_path, None) as anonymous:
        assert anonymous.get("/v1/farms/fields").status_code == 401
    with client_of(database_url, tmp_path, Role.OPERATOR) as operator:
        answer = operator.get("/v1/farms/fields")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/geo+json"
        first, second = answer.json()["features"]
        assert (first["id"], first["properties"]["attributes"]["crop"]) == ("field-1", "tea")
        assert first["geometry"]["type"] == "Polygon"
        assert 90 < first["properties"]["area_ha"] < 110
        (sensor,) = first["properties"]["sensors"]
        assert sensor["id"] == INSIDE
        assert sensor["latest"]["soil-moisture"]["unit"] == "%"
        assert sensor["latest"]["soil-moisture"]["result"] == pytest.approx(0.68869)
        assert second["properties"]["sensors"] == []
        page = operator.get("/v1/farms/fields?limit=1").json()
        (rest,) = operator.get(page["next"]).json()["features"]
        assert rest["id"] == "field-2"
