"""KPI packs and CSV of the simulators, read back by the platform's own decoders."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import senml
from core.units import conversion
from domains.edge import wire
from domains.edge.decode import decode
from domains.edge.sector import SECTOR
from tests.core.formats.rows import CONTEXT, NOW, rows

NAMES = sorted(set(wire.SENML_UNITS) - {"longitude", "latitude", "speed", "heading"})


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(NAMES), st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=6
    )
)
def test_pack_round_trip(values: dict[str, float]) -> None:
    decoded = senml.decode_json(wire.kpi_pack("node-001", NOW + 250_000, values), CONTEXT)
    assert not decoded.rejected
    assert {(row[0], row[1], row[3], row[4]) for row in rows(decoded)} == {
        ("node-001", name, NOW + 250_000, value) for name, value in values.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_kpi_of_a_pack_is_declared_and_converts(name: str) -> None:
    (row,) = rows(senml.decode_json(wire.kpi_pack("n", NOW, {name: 1.0}), CONTEXT))
    assert row[1] in SECTOR.by_name
    assert conversion(row[2] or "1", SECTOR.by_name[name].unit)


def test_pack_with_a_place() -> None:
    pack = wire.kpi_pack("n", NOW, {"longitude": 139.5, "latitude": 35.5, "speed": 3, "heading": 9})
    assert rows(senml.decode_json(pack, CONTEXT)) == [
        ("n", "position", None, NOW, (139.5, 35.5, 3.0, 9.0))
    ]


def test_an_unknown_kpi_is_no_pack() -> None:
    with pytest.raises(KeyError):
        wire.kpi_pack("n", NOW, {"florps": 1.0})


def test_csv_round_trip() -> None:
    sent = {"rsrp(dBm)": -97.0, "rsrq(dB)": -12.0, "rssi(dBm)": -63.0, "RATE(MBit/s)": 1.25}
    decoded = decode("csv", wire.kpi_csv([(NOW, sent), (NOW + 3_000_000, sent)]), CONTEXT)
    assert (decoded.messages, decoded.rejected) == (2, ())
    assert {(row[1], row[3], row[4]) for row in rows(decoded)} == {
        (name, time, value)
        for time in (NOW, NOW + 3_000_000)
        for name, value in {
            "rsrp": -97.0, "rsrq": -12.0, "rssi": -63.0, "throughput": 1.25, "sent-bytes": 0.0,
        }.items()
    }  # fmt: skip
