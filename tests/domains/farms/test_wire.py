"""LoRaWAN codecs: the makers' published examples, round trips, and payloads that are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.units import conversion
from domains.farms import wire
from domains.farms.decode import decode
from domains.farms.sector import SECTOR
from tests.core.formats.rows import CONTEXT, NOW, check_account, rows

# Names of the published decoders -> ours.
PUBLISHED = {
    "Bat": "battery-voltage", "TempC_DS18B20": "external-temperature",
    "conduct_SOIL": "soil-conductivity", "temp_SOIL": "soil-temperature",
    "water_SOIL": "soil-moisture",
    "volumetric_water_content": "soil-moisture", "electrical_conductivity": "soil-conductivity",
    "lightning_strike_count": "lightning-count", "vapor_pressure": "vapour-pressure",
    "lightning_average_distance": "lightning-distance", "x_orientation_angle": "tilt-x",
    "y_orientation_angle": "tilt-y", "sensor_temperature_internal": "internal-temperature",
    "north_wind_speed": "wind-speed-north", "east_wind_speed": "wind-speed-east",
}  # fmt: skip


def examples(shared_data: Path) -> list[tuple[str, dict[str, Any]]]:
    document = json.loads((shared_data / "lorawan" / "ttn_uplink_examples.json").read_bytes())
    return [(one["device"], ex) for one in document["devices"] for ex in one["examples"]]


def test_published_examples(shared_data: Path) -> None:
    """What the network's own device repository decodes from the same bytes."""
    assert len(examples(shared_data)) == 6
    for device, example in examples(shared_data):
        message = wire.uplink(
            device, "70b3d57ed0000001", example["fPort"], bytes.fromhex(example["bytes_hex"]), NOW
        )
        decoded = decode("lorawan", wire.uplinks([message]), CONTEXT)
        if "errors" in example:
            assert [r.reason for r in decoded.rejected] == ["unknown-f-port"]
            assert "42" in decoded.rejected[0].detail
            continue
        wanted = {
            PUBLISHED.get(name, name.replace("_", "-")): value
            for name, value in example["data"].items()
            if name not in ("protocol_version", "device_id")
        }
        numbers = {n: float(v["value"] if isinstance(v, dict) else v) for n, v in wanted.items()}
        assert {row[1]: row[4] for row in rows(decoded)} == pytest.approx(numbers, abs=1e-9)
        assert {row[0] for row in rows(decoded)} == {"70b3d57ed0000001"}


def test_published_bytes_come_back(shared_data: Path) -> None:
    for device, example in examples(shared_data):
        if device.startswith("decentlab/"):
            payload = bytes.fromhex(example["bytes_hex"])
            model = wire.MODELS[device]
            number = int.from_bytes(payload[1:3], "big")
            assert model.encode(model.decode(payload), number) == payload


@pytest.mark.parametrize("name", sorted(wire.MODELS))
def test_every_value_is_declared_and_converts(name: str) -> None:
    for observed_property, unit in wire.MODELS[name].units.items():
        assert conversion(unit, SECTOR.by_name[observed_property].unit)


def words(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=2 * count, max_size=2 * count)


@settings(max_examples=60, deadline=None)
@given(words(17), words(1))
def test_atm41_round_trip(body: bytes, battery: bytes) -> None:
    payload = bytes([2, 0, 7, 0, 3]) + body + battery
    assert wire.encode_atm41(wire.decode_atm41(payload), 7) == payload


@settings(max_examples=60, deadline=None)
@given(words(3), words(1))
def test_trs12_round_trip(body: bytes, battery: bytes) -> None:
    payload = bytes([2, 0, 7, 0, 3]) + body + battery
    assert wire.encode_trs12(wire.decode_trs12(payload), 7) == payload


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 0x3FFF), st.integers(-1250, 1250), st.integers(0, 10_000),
    st.integers(-4_000, 8_500).filter(bool), st.integers(0, 20_000),
)  # fmt: skip
def test_lse01_round_trip(battery: int, external: int, water: int, soil: int, ec: int) -> None:
    values = {
        "battery-voltage": battery / 1000, "external-temperature": external / 10,
        "soil-moisture": water / 100, "soil-temperature": soil / 100,
        "soil-conductivity": float(ec),
    }  # fmt: skip
    assert wire.decode_lse01(wire.encode_lse01(values)) == values
    missing = {name: value for name, value in values.items() if name != "external-temperature"}
    assert wire.decode_lse01(wire.encode_lse01(missing)) == missing


def test_lse01_below_zero_as_its_manual_has_it() -> None:
    """User manual: FF7E is (FF7E - FFFF)/100 = -1.29 °C; the external probe's FF3F is -19.3."""
    values = wire.decode_lse01(bytes.fromhex("0ce4ff3f0000ff7e000000"))
    assert (values["soil-temperature"], values["external-temperature"]) == (-1.29, -19.3)


GOOD = {
    "device_model": "decentlab/dl-trs12", "dev_eui": "70b3d57ed0000001", "f_port": 1,
    "bytes": "0210d300020c80", "time": "2026-01-01T00:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason", "named"),
    [
        ({"device_model": "acme/x"}, "unknown-model", "device_model"),
        ({"f_port": 0}, "unknown-f-port", "f_port"),
        ({"f_port": 224}, "unknown-f-port", "f_port"),
        ({"dev_eui": "70b3"}, "bad-dev-eui", "dev_eui"),
        ({"bytes": "0210d300020c8"}, "bad-hex", "bytes"),
        ({"bytes": "0210"}, "bad-length", "bytes"),
        ({"bytes": "0210d300020c"}, "bad-length", "bytes"),
        ({"bytes": "0210d300020c8000"}, "bad-length", "bytes"),
        ({"bytes": "0310d300020c80"}, "bad-version", "bytes"),
        ({"bytes": "0210d380020c80"}, "bad-flags", "bytes"),
        ({"time": "2026-01-01T00:00:00"}, "bad-time", "time"),
        ({"f_port": "1"}, "invalid-uplink", "f_port"),
        ({"bytes": 5}, "invalid-uplink", "bytes"),
    ],
)
def test_rejections_name_the_field(change: dict[str, Any], reason: str, named: str) -> None:
    payload = json.dumps([GOOD, {**GOOD, **change}]).encode()
    decoded = decode("lorawan", payload, CONTEXT)
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.item) == (reason, 1)
    assert named in rejected.detail
    assert json.loads(rejected.payload) == {**GOOD, **change}
    assert (decoded.messages, decoded.observations) == (2, 1)


def test_one_uplink_and_its_own_time() -> None:
    message = {
        **GOOD,
        "dev_eui": "70-B3-D5-7E-D0-00-00-01",
        "time": "2026-01-01T00:00:00.123456789Z",
    }
    decoded = decode("lorawan", json.dumps(message).encode(), CONTEXT)
    assert rows(decoded) == [("70b3d57ed0000001", "battery-voltage", "V", NOW + 123_456, 3.2)]
    assert decoded.things[0].properties == {"device_model": "decentlab/dl-trs12"}


def test_an_uplink_without_sensors_holds_nothing() -> None:
    decoded = decode("lorawan", json.dumps({**GOOD, "bytes": "0210d30000"}).encode(), CONTEXT)
    assert (decoded.messages, decoded.unchanged, decoded.observations) == (1, 1, 0)
    assert decoded.heard[0].thing == "70b3d57ed0000001"


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(wire.MODELS)), st.binary(max_size=48), st.integers(0, 255))
def test_any_payload(model: str, payload: bytes, port: int) -> None:
    message = wire.uplink(model, "70b3d57ed0000001", port, payload, NOW)
    decoded = decode("lorawan", wire.uplinks([message]), CONTEXT)
    check_account(decoded)
    assert decoded.messages == 1


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120))
def test_arbitrary_bytes(payload: bytes) -> None:
    check_account(decode("lorawan", payload, CONTEXT))
    check_account(decode("csv", payload, CONTEXT))
