"""The check after decoding: declared units, plausible ranges, and what is rejected and why."""

import json
import math
from typing import Any

import numpy as np
import pytest

from core.sector import ObservedProperty, Sector
from core.sensorthings import (
    DataClass,
    Decoded,
    Heard,
    Numbers,
    ObservationsBuilder,
    Position,
    Quality,
    ResultKind,
    Stream,
    ThingUpdate,
)
from ingest.check import check

NOW = 1_790_000_000_000_000
SECOND = 1_000_000
FUTURE_SECONDS_MAX = 900.0

PROPERTIES = (
    ObservedProperty("speed", "速度", "Speed", "m/s", minimum=0, maximum=100),
    ObservedProperty("temperature", "温度", "Temperature", "Cel", minimum=-50, maximum=60),
    ObservedProperty("length", "長さ", "Length", "mm"),
    ObservedProperty(
        "state", "状態", "State", kind=ResultKind.CATEGORY, vocabulary=("stopped", "moving")
    ),
    ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION),
    ObservedProperty("report", "報告", "Report", kind=ResultKind.DOCUMENT),
)
CITY = Sector("city", "街", "City", DataClass.OPEN, (), PROPERTIES)
PERSONAL = Sector("people", "人", "People", DataClass.PERSONAL, (), PROPERTIES)


def decoded(*observations: tuple[Any, ...]) -> Decoded:
    """(thing, property, result[, unit[, time]]) each."""
    builder = ObservationsBuilder()
    for thing, name, result, *more in observations:
        unit = more[0] if more else None
        builder.add(thing, name, more[1] if len(more) > 1 else NOW, result, unit)
    builder.messages = len(observations)
    return builder.build()


def checked(*observations: tuple[Any, ...], sector: Sector = CITY) -> Decoded:
    given = decoded(*observations)
    found = check(sector, given, NOW, FUTURE_SECONDS_MAX)
    assert found.received == given.received  # nothing vanishes
    return found


def one_rejection(found: Decoded) -> tuple[str, str, dict[str, Any]]:
    (rejected,) = found.rejected
    return rejected.reason, rejected.detail, json.loads(rejected.payload)


# -- units ----


@pytest.mark.parametrize(
    ("name", "result", "unit", "stored"),
    [
        ("speed", 36.0, "km/h", 10.0),
        ("speed", 10.0, "m/s", 10.0),
        ("speed", 10.0, None, 10.0),
        ("temperature", 50.0, "[degF]", 10.0),
        ("temperature", 283.15, "K", 10.0),
        ("length", 1.5, "m", 1500.0),
    ],
)
def test_units_become_the_declared_one(
    name: str, result: float, unit: str | None, stored: float
) -> None:
    found = checked(("t", name, result, unit))
    assert found.numbers is not None
    assert found.numbers.result[0] == pytest.approx(stored)
    declared = CITY.by_name[name].unit
    assert found.streams[int(found.numbers.stream[0])].unit in (None, declared)


def test_units_are_converted_stream_by_stream() -> None:
    found = checked(("a", "speed", 36.0, "km/h"), ("b", "speed", 36.0), ("c", "length", 1.0, "cm"))
    assert found.numbers is not None
    assert found.numbers.result.tolist() == pytest.approx([10.0, 36.0, 10.0])


def test_a_message_without_conversion_keeps_its_streams_object() -> None:
    """Storage remembers the Datastreams it found by this very object."""
    given = decoded(("a", "speed", 1.0), ("b", "speed", 2.0, "m/s"))
    assert check(CITY, given, NOW, FUTURE_SECONDS_MAX).streams is given.streams


@pytest.mark.parametrize("unit", ["kg", "dB", "furlongs", "", "km/", "x" * 100, "10*-99999999"])
def test_a_unit_that_does_not_convert_is_rejected_by_name(unit: str) -> None:
    found = checked(("t", "speed", 36.0, unit), ("t", "speed", 1.0))
    reason, detail, payload = one_rejection(found)
    assert reason == "bad-unit"
    assert detail.startswith("unit:")
    assert payload["unit"] == unit
    assert payload["result"] == 36.0
    assert found.numbers is not None
    assert found.numbers.result.tolist() == [1.0]


def test_an_undeclared_property_keeps_its_unit_if_it_is_one() -> None:
    found = checked(("t", "other", 36.0, "km/h"))
    assert found.numbers is not None
    assert found.numbers.result.tolist() == [36.0]
    assert one_rejection(checked(("t", "other", 1.0, "nonsense")))[0] == "bad-unit"
    assert one_rejection(checked(("t", "other", 1.0, "a\0")))[0] == "bad-unit"


def test_a_conversion_that_overflows_is_rejected_with_what_was_sent() -> None:
    reason, _, payload = one_rejection(checked(("t", "length", 1e308, "km")))
    assert (reason, payload["result"], payload["unit"]) == ("bad-result", 1e308, "km")


# -- quality ----


def quality(columns: Any) -> list[int]:
    return [0] * len(columns.stream) if columns.quality is None else columns.quality.tolist()


def test_what_is_out_of_range_is_kept_and_flagged() -> None:
    found = checked(("t", "speed", 100.0), ("t", "speed", 100.1), ("t", "speed", -0.1))
    assert quality(found.numbers) == [0, Quality.OUT_OF_RANGE, Quality.OUT_OF_RANGE]
    assert not found.rejected


def test_the_range_is_in_the_declared_unit() -> None:
    found = checked(("t", "speed", 200.0, "km/h"), ("t", "speed", 400.0, "km/h"))
    assert quality(found.numbers) == [0, Quality.OUT_OF_RANGE]


def test_what_is_undeclared_is_kept_and_flagged() -> None:
    found = checked(("t", "other", 1.0), ("t", "speed", 1.0), ("t", "speed/front", 500.0))
    assert quality(found.numbers) == [Quality.UNDECLARED, 0, Quality.OUT_OF_RANGE]


def test_a_flag_of_the_decoder_is_kept() -> None:
    stream = (Stream("t", "speed"),)
    columns = Numbers(
        np.zeros(2, np.int32),
        np.array([NOW, NOW + 1]),
        np.array([1.0, 500.0]),
        np.array([Quality.SUSPECT, Quality.SUSPECT], np.int16),
    )
    found = check(CITY, Decoded(stream, columns, messages=2), NOW, FUTURE_SECONDS_MAX)
    assert quality(found.numbers) == [4, 5]


# -- kinds and texts ----


def test_a_declared_word_is_a_category_and_other_texts_are_documents() -> None:
    found = checked(("t", "state", "moving"), ("t", "remark", "異常なし"), ("t", "report", "ok"))
    assert found.categories is not None
    assert list(found.categories.result) == ["moving"]
    assert found.documents is not None
    assert [json.loads(each) for each in found.documents.result] == ["異常なし", "ok"]
    assert quality(found.documents) == [Quality.UNDECLARED, 0]


def test_free_texts_join_the_documents_of_the_message() -> None:
    found = checked(("t", "report", {"a": 1}), ("t", "report/2", "text"))
    assert found.documents is not None
    assert [json.loads(each) for each in found.documents.result] == [{"a": 1}, "text"]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("speed", "fast"),
        ("speed", Position(1.0, 2.0)),
        ("speed", {"value": 1}),
        ("state", 1.0),
        ("state", "flying"),  # not in the vocabulary
        ("position", 1.0),
        ("report", 1.0),
    ],
)
def test_a_result_of_another_kind_is_rejected_by_name(name: str, result: Any) -> None:
    reason, detail, payload = one_rejection(checked(("t", name, result)))
    assert reason == "wrong-kind"
    assert name in detail
    assert detail.startswith("result:")
    assert (payload["thing"], payload["property"]) == ("t", name)


# -- names, times, results ----


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "a\nb", "\u200b"])
def test_a_thing_needs_a_printable_name(name: str) -> None:
    reason, detail, _ = one_rejection(checked((name, "speed", 1.0)))
    assert reason == "bad-name"
    assert detail.startswith("thing:")


@pytest.mark.parametrize("name", ["", "x" * 101, "speed\0", "spe\ted"])
def test_a_property_needs_a_printable_name(name: str) -> None:
    reason, detail, _ = one_rejection(checked(("t", name, 1.0)))
    assert reason == "bad-name"
    assert detail.startswith("property:")


@pytest.mark.parametrize(
    "time", [-1, NOW + int(FUTURE_SECONDS_MAX * SECOND) + 1, 2**62, -(2**62), 10**18]
)
@pytest.mark.parametrize(("name", "result"), [("speed", 1.0), ("report", {}), ("state", "moving")])
def test_an_impossible_time_is_rejected_by_name(name: str, result: Any, time: int) -> None:
    reason, detail, _ = one_rejection(checked(("t", name, result, None, time)))
    assert reason == "bad-time"
    assert detail.startswith("phenomenon_time:")


@pytest.mark.parametrize("time", [0, NOW, NOW + int(FUTURE_SECONDS_MAX * SECOND)])
def test_every_other_time_is_taken(time: int) -> None:
    assert not checked(("t", "speed", 1.0, None, time)).rejected


@pytest.mark.parametrize("result", [math.nan, math.inf, -math.inf])
def test_a_number_must_be_finite(result: float) -> None:
    assert one_rejection(checked(("t", "speed", result)))[0] == "bad-result"


@pytest.mark.parametrize("place", [(181, 0), (0, 91), (math.nan, 0), (0, -math.inf)])
def test_a_position_must_be_on_the_globe(place: tuple[float, float]) -> None:
    found = checked(("t", "position", Position(*place)), ("t", "position", Position(180, -90)))
    assert one_rejection(found)[0] == "bad-result"
    assert found.positions is not None
    assert found.positions.longitude.tolist() == [180.0]


def test_a_rejection_can_be_mended_and_sent_again() -> None:
    _, _, payload = one_rejection(checked(("t", "speed", 36.0, "kg")))
    assert payload == {
        "thing": "t",
        "property": "speed",
        "unit": "kg",
        "phenomenon_time": "2026-09-21T14:13:20Z",
        "result": 36.0,
    }


def test_one_bad_row_takes_no_other_with_it() -> None:
    rows = [("t", "speed", float(n), None, NOW + n) for n in range(50)]
    rows[20] = ("t", "speed", math.nan, None, NOW)
    found = checked(*rows)
    assert len(found.rejected) == 1
    assert found.numbers is not None
    assert found.numbers.result.tolist() == [float(n) for n in range(50) if n != 20]


# -- a personal sector ----


def test_a_personal_sector_takes_declared_properties_alone() -> None:
    found = checked(
        ("p", "speed", 1.0), ("p", "diary", {"a": 1}), ("p", "mood", "x"), sector=PERSONAL
    )
    assert found.numbers is not None
    assert quality(found.numbers) == [0]
    assert found.documents is None
    assert {(r.reason, r.detail.partition(":")[0]) for r in found.rejected} == {
        ("undeclared", "property")
    }


# -- what else a message says ----


def test_wild_clocks_are_not_heard_and_endless_names_not_described() -> None:
    given = Decoded(
        heard=(Heard("t", NOW), Heard("u", NOW + 10**10), Heard("v", -5)),
        things=(ThingUpdate("t"), ThingUpdate("x" * 201), ThingUpdate("a\0b")),
        messages=1,
    )
    found = check(CITY, given, NOW, FUTURE_SECONDS_MAX)
    assert [heard.thing for heard in found.heard] == ["t"]
    assert [update.thing for update in found.things] == ["t"]


def test_an_empty_message_stays_empty() -> None:
    assert check(CITY, Decoded(messages=1), NOW, FUTURE_SECONDS_MAX) == Decoded(messages=1)
