"""Loggers' tables: real recordings against an independent reading, gaps, and other spellings."""

import csv
import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domains.farms.decode import decode
from tests.core.formats.rows import CONTEXT, NOW, rows


def microseconds(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 10**6


def test_soil_recording(shared_data: Path) -> None:
    """Long form: every value at its plot, sensor, depth and day; gaps are `unchanged`."""
    path = shared_data / "farm-sensors/drummondville/state_vars_daily_20180701_20210630.csv"
    decoded = decode("csv", path.read_bytes(), CONTEXT)
    lines = list(csv.DictReader(path.open(encoding="utf-8")))
    gaps = sum(not line["Value"] or line["Value"] == "NaN" for line in lines)
    assert (decoded.messages, decoded.unchanged, decoded.rejected) == (len(lines), gaps, ())
    properties = {
        "Soil Volumetric Water Content": ("soil-moisture/7.5cm", "%"),
        "Soil Temperature": ("soil-temperature/7.5cm", "Cel"),
    }
    expected = [
        (
            f"{line['Experimental Plot']} {line['Sensor']}".lower().replace(" ", "-"),
            *properties[line["Variable"]],
            microseconds(line["date"]),
            float(line["Value"]),
        )
        for line in lines
        if line["Value"] not in ("", "NaN")
    ]
    assert Counter(rows(decoded)) == Counter(expected)


def test_percolation_recording(shared_data: Path) -> None:
    path = shared_data / "farm-sensors/drummondville/percolation_daily_20180701_20210630.csv"
    decoded = decode("csv", path.read_bytes(), CONTEXT)
    lines = list(csv.DictReader(path.open(encoding="utf-8")))
    values = [line["Percolation (mm/day)"] for line in lines]
    told = [float(value) for value in values if value not in ("", "NaN")]
    assert (decoded.messages, decoded.unchanged) == (len(lines), len(lines) - len(told))
    assert not decoded.rejected
    assert math.fsum(row[4] for row in rows(decoded)) == pytest.approx(math.fsum(told))
    assert {row[:3] for row in rows(decoded)} == {
        (f"{plot}-lysimeter-{number}", "percolation", "mm/d")
        for plot, number in (("e1", 1), ("e1", 2), ("e2", 1), ("e3", 1))
    }


def test_weather_recording(shared_data: Path) -> None:
    """Wide form: one column a property, the unit in its header."""
    path = shared_data / "farm-sensors/drummondville/daily_meteo.csv"
    decoded = decode("csv", path.read_bytes(), CONTEXT)
    lines = list(csv.DictReader(path.open(encoding="utf-8")))
    assert (decoded.messages, decoded.unchanged, decoded.rejected) == (len(lines), 0, ())
    cells = [cell for line in lines for name, cell in line.items() if name != "d_local"]
    assert decoded.observations == sum(cell != "NA" for cell in cells)
    columns = {
        "Air temperature (°C)": ("air-temperature", "Cel"),
        "Atmospheric pressure (Pa)": ("atmospheric-pressure", "Pa"),
        "Shortwave radiation (W.m-2)": ("solar-radiation", "W/m2"),
        "2m Wind speed (m.s-1)": ("wind-speed/2m", "m/s"),
        "Field snow depth (cm)": ("snow-depth/field", "cm"),
        "Snowfall (liquid equivalent, mm)": ("snowfall", "mm"),
        "measure_height_m": ("measure-height-m", None),
    }
    found = rows(decoded)
    for column, (name, unit) in columns.items():
        told = {
            microseconds(line["d_local"]): float(line[column])
            for line in lines
            if line[column] != "NA"
        }
        assert {row[3]: row[4] for row in found if row[1:3] == (name, unit)} == told, column


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            "日時,圃場,気温(℃),土壌水分(%)\n2026-01-01T09:00:00+09:00,北,4.5,31",
            [("北", "air-temperature", "Cel", 4.5), ("北", "soil-moisture", "%", 31.0)],
        ),
        (
            "timestamp;sensor;VWC (m3/m3)\n2026-01-01 00:00;S1;0,31",
            [("s1", "soil-moisture", "m3/m3", 0.31)],
        ),
        (
            "time,variable,value\n1767225600,pH,6.5",
            [("example", "ph", None, 6.5)],
        ),
        (
            "time,sensor,10cm soil temperature (C),Remarks\n2026-01-01,a,8,frost\n",
            [
                ("a", "soil-temperature/10cm", "Cel", 8.0),
                ("a", "remarks-text", None, "frost"),
            ],
        ),
        (
            "date,time,rain (mm)\n2025-12-31,24:00,1\n2026-01-01,00:00,2\n",
            [("example", "precipitation", "mm", 2.0)],
        ),
    ],
)
def test_spellings(table: str, expected: list[tuple[str, str, str | None, float | str]]) -> None:
    found = rows(decode("csv", table.encode(), CONTEXT))
    assert [(row[0], row[1], row[2], row[4]) for row in found] == expected
    assert {row[3] for row in found} == {NOW}


def test_one_byte_degree_signs_are_read() -> None:
    payload = "date,Air temperature (°C)\n2026-01-01,5\n".encode("latin-1")
    assert rows(decode("csv", payload, CONTEXT)) == [
        ("example", "air-temperature", "Cel", NOW, 5.0)
    ]


def test_where_a_sensor_stands() -> None:
    payload = b"date,sensor,lat,lon,temp\n2026-01-01,s1,35.5,139.5,5\n2026-01-01,s2,95,139.5,5\n"
    decoded = decode("csv", payload, CONTEXT)
    assert [(t.thing, t.location) for t in decoded.things] == [("s1", (139.5, 35.5))]
    assert [r.reason for r in decoded.rejected] == ["bad-row"]


def test_duplicates_and_backwards_times_pass_through() -> None:
    payload = b"date,temp\n2026-01-02,5\n2026-01-01,4\n2026-01-02,5\n"
    decoded = decode("csv", payload, CONTEXT)
    assert [row[4] for row in rows(decoded)] == [5.0, 4.0, 5.0]
    assert (decoded.messages, decoded.unchanged) == (3, 0)
