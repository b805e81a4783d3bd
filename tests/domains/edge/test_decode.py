"""KPI recordings: real ones against an independent reading, other tools' headers, bad rows."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import table
from domains.edge.decode import decode
from tests.core.formats.rows import CONTEXT, NOW, check_account, rows

ZERO_IS_NONE = {
    "rsrp": "rsrp(dBm)", "rssi": "rssi(dBm)", "nr-rsrp": "nr_rsrp(dBm)", "nr-rssi": "nr_rssi(dBm)",
}  # fmt: skip


@pytest.mark.parametrize("number", range(6))
def test_recordings(shared_data: Path, number: int) -> None:
    """Every row of a modem's recordings, against csv and strptime."""
    path = sorted((shared_data / "cellular-5g" / "mtu-cork").glob("*.csv"))[number]
    decoded = decode("csv", path.read_bytes(), CONTEXT)
    lines = list(csv.DictReader(path.open(encoding="utf-8")))
    assert (decoded.messages, decoded.rejected) == (len(lines), ())
    got = {(row[1], row[3]): row[4] for row in rows(decoded)}
    for line in lines:
        spoken = datetime.strptime(line["Time"], "%a %b %d %H:%M:%S UTC %Y").replace(tzinfo=UTC)
        time = int(spoken.timestamp()) * 10**6
        for name, column in ZERO_IS_NONE.items():
            value = float(line[column])
            if value:
                assert (name, time) in got
        for name, column in (("sent-bytes", "Sent Bytes"), ("throughput", "RATE(MBit/s)")):
            assert (name, time) in got, column
    last = lines[-1]
    assert rows(decoded)[-1][0] == "example"
    assert float(last["Sent Bytes"]) in {row[4] for row in rows(decoded) if row[1] == "sent-bytes"}


def test_a_recordings_numbers(shared_data: Path) -> None:
    """The sum of every column, by an independent reading."""
    path = shared_data / "cellular-5g" / "mtu-cork" / "Data5G_151221.csv"
    decoded = decode("csv", path.read_bytes(), CONTEXT)
    lines = list(csv.DictReader(path.open(encoding="utf-8")))
    for name, column in {**ZERO_IS_NONE, "rsrq": "rsrq(dB)", "nr-rsrq": "nr_rsrq(dB)"}.items():
        found = [row[4] for row in rows(decoded) if row[1] == name]
        assert sum(found) == pytest.approx(sum(float(line[column]) for line in lines))
        assert len(found) == sum(float(line[column]) != 0 for line in lines)


def test_a_radio_without_a_cell_reports_nothing() -> None:
    payload = b"time,rsrp,rsrq,sinr,nr_rsrp,nr_rsrq\n2026-01-01T00:00:00Z,-90,-9,0,0,-3\n"
    names = {row[1]: row[4] for row in rows(decode("csv", payload, CONTEXT))}
    assert names == {"rsrp": -90.0, "rsrq": -9.0, "sinr": 0.0}


@pytest.mark.parametrize(
    ("header", "cell", "expected"),
    [
        ("RSRP [dBm]", "-90", ("rsrp", "dB{mW}", -90.0)),
        ("NR-RSRP (dBm)", "-90", ("nr-rsrp", "dB{mW}", -90.0)),
        ("Ping (ms)", "12.5", ("rtt", "ms", 12.5)),
        ("latency(s)", "0.5", ("latency", "s", 0.5)),
        ("DL_bitrate", "5000", ("downlink-throughput", "kbit/s", 5000.0)),
        ("throughput (Mbps)", "5", ("throughput", "Mbit/s", 5.0)),
        ("Temperature (°C)", "41", ("temperature", "Cel", 41.0)),
        ("CPU (%)", "41", ("load", "%", 41.0)),
        ("NR UL BW", "100", ("nr-uplink-bandwidth", "MHz", 100.0)),
        ("Frobnication level", "7", ("frobnication-level", None, 7.0)),
        ("RSRP (furlongs)", "7", ("rsrp-furlongs", None, 7.0)),
        ("CellID", "1234", ("cell", None, "1234")),
        ("Remarks", "rain", ("remarks-text", None, "rain")),
    ],
)
def test_headers(header: str, cell: str, expected: tuple[str, str | None, float | str]) -> None:
    payload = f"time;uptime;{header}\n2026-01-01T00:00:00Z;;{cell}\n".encode()
    (row,) = rows(decode("csv", payload, CONTEXT))
    assert (row[1], row[2], row[4]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00Z",
        "2026-01-01 00:00:00",
        "2026-01-01T09:00:00+09:00",
        "Thu Jan  1 00:00:00 UTC 2026",
        "Thu Jan 01 09:00:00 JST 2026",
        "2026.01.01_00.00.00",
        "2026/1/1 0:00",
        "20260101",
        "1767225600",
        "1767225600000",
        "1767225600000000",
        "1767225600.0",
    ],
)
def test_times(text: str) -> None:
    assert table.moment(text) == NOW


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "Thu Jan 1 00:00:00 XYZ 2026", "5", "9" * 400, "nan"]
)
def test_not_times(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        table.moment(text)


def test_a_date_and_a_time_column() -> None:
    payload = b"Date,Time,rtt\n2026-01-01,00:00:01,5\n"
    assert rows(decode("csv", payload, CONTEXT)) == [("example", "rtt", "ms", NOW + 10**6, 5.0)]


def test_position_needs_a_fix() -> None:
    payload = b"lat,lon,speed (km/h)\n35.5,139.5,36\n0,0,0\n,,\n95,139,0\n"
    decoded = decode("csv", payload, CONTEXT)
    assert [row[4][:3] for row in rows(decoded)] == [(139.5, 35.5, 10.0)]
    assert (decoded.messages, decoded.unchanged) == (4, 2)
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.item) == ("bad-row", 3)
    assert rejected.detail.startswith("latitude")


def test_a_bad_row_is_kept_under_its_header() -> None:
    payload = (
        b"time,rtt\n2026-01-01T00:00:00Z,fast\n2026-01-01T00:00:01Z,5,6\n2026-01-01T00:00:02Z,7"
    )
    decoded = decode("csv", payload, CONTEXT)
    assert [r.payload for r in decoded.rejected] == [
        b"time,rtt\n2026-01-01T00:00:00Z,fast",
        b"time,rtt\n2026-01-01T00:00:01Z,5,6",
    ]
    assert "rtt" in decoded.rejected[0].detail
    assert (decoded.messages, decoded.observations) == (3, 1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"time\n5\n", "bad-header"),
        (b"x,y\n1,2\n", "bad-header"),
        (b"rtt,x,x\n1,2,3\n", "bad-header"),
    ],
)
def test_tables_that_are_none(payload: bytes, reason: str) -> None:
    decoded = decode("csv", payload, CONTEXT)
    assert [r.reason for r in decoded.rejected] == [reason]
    assert decoded.messages == 1


def test_another_format_is_refused() -> None:
    assert [r.reason for r in decode("nmea", b"", CONTEXT).rejected] == ["unsupported-format"]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(payload: bytes) -> None:
    check_account(decode("csv", payload, CONTEXT))


cells = st.text(max_size=6) | st.sampled_from(
    ["-90", "0", "NaN", "1e999", "2147483647", '"', "2026-01-01T00:00:00Z", "139.5", "1_0", "１"]
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["time", "rsrp(dBm)", "nr_rsrp", "lat", "lon", "node", "x", "date"]),
             unique=True, min_size=1, max_size=5),
    st.lists(st.lists(cells, max_size=6), max_size=5),
)  # fmt: skip
def test_any_cells(header: list[str], lines: list[list[str]]) -> None:
    text = "\n".join(",".join(line) for line in [header, *lines])
    check_account(decode("csv", text.encode("utf-8", "surrogatepass"), CONTEXT))
