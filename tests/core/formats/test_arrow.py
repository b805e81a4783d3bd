"""Arrow streams: every column type, bad rows, bad streams, bombs, and arbitrary bytes."""

import io
import json
import math
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import arrow
from tests.core.formats.rows import CONTEXT, NOW, check_account, rows

UTC_US = pa.timestamp("us", "UTC")
GOOD = arrow.encode(["a", "b", "a"], ["x", "x", "y"], [NOW, NOW + 1, NOW + 2], [1.0, 2.0, 3.0])


def stream(columns: dict[str, Any], batches: int = 1, **options: Any) -> bytes:
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return sink.getvalue()


def columns(**changes: Any) -> dict[str, Any]:
    base = {
        "thing": pa.array(["a", "b", "a"]),
        "property": pa.array(["x", "x", "y"]),
        "phenomenon_time": pa.array([NOW, NOW + 1, NOW + 2]).cast(UTC_US),
        "result": pa.array([1.0, 2.0, 3.0]),
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def test_round_trip() -> None:
    assert rows(arrow.decode(GOOD, CONTEXT)) == [
        ("a", "x", None, NOW, 1.0),
        ("b", "x", None, NOW + 1, 2.0),
        ("a", "y", None, NOW + 2, 3.0),
    ]


@pytest.mark.parametrize(
    "text",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
        pa.dictionary(pa.uint16(), pa.string()),
    ],
    ids=str,
)
@pytest.mark.parametrize("codec", [None, "zstd", "lz4"])
def test_column_types(text: Any, codec: str | None) -> None:
    payload = stream(
        columns(
            thing=pa.array(["a", "b", "a"]).cast(text),
            property=pa.array(["x", "x", "y"]).cast(text),
            unit=pa.array(["ms", None, "ms"]).cast(text),
            result=pa.array([1, 2, 3], pa.int32()),
            note=pa.array([{"ignored": 1}] * 3),
        ),
        batches=2,
        compression=codec,
    )
    decoded = arrow.decode(payload, CONTEXT)
    assert not decoded.rejected
    assert decoded.messages == 6
    assert rows(decoded)[3:] == [
        ("a", "x", "ms", NOW, 1.0),
        ("b", "x", None, NOW + 1, 2.0),
        ("a", "y", "ms", NOW + 2, 3.0),
    ]


def test_dictionary_with_repeated_and_null_values() -> None:
    thing = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["a", "a", None]))
    decoded = arrow.decode(stream(columns(thing=thing)), CONTEXT)
    assert [(s.thing, s.property) for s in decoded.streams] == [("a", "x")]
    assert [r.reason for r in decoded.rejected] == ["missing-thing"]
    check_account(decoded)


def test_dictionaries_that_differ_from_batch_to_batch() -> None:
    first, second = (
        pa.record_batch(columns(thing=pa.array(names).dictionary_encode()))
        for names in (["a", "b", "a"], ["c", "a", "d"])
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
        writer.write_batch(second)
    decoded = arrow.decode(sink.getvalue(), CONTEXT)
    assert [row[0] for row in rows(decoded)] == ["a", "b", "a", "c", "a", "d"]
    check_account(decoded)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"thing": pa.array(["a", None, "a"])}, "missing-thing"),
        ({"property": pa.array(["x", None, "y"])}, "missing-property"),
        ({"phenomenon_time": pa.array([NOW, None, NOW]).cast(UTC_US)}, "invalid-time"),
        ({"phenomenon_time": pa.array([NOW, 2**62, NOW]).cast(UTC_US)}, "invalid-time"),
        ({"result": pa.array([1.0, None, 2.0])}, "missing-result"),
        ({"result": pa.array([1.0, math.nan, 2.0])}, "not-finite"),
        ({"result": pa.array([1.0, math.inf, 2.0])}, "not-finite"),
        ({"thing": pa.array(["a", "b/c", "a"])}, "invalid-thing"),
        ({"thing": pa.array(["a", "b\0", "a"])}, "invalid-thing"),
        ({"property": pa.array(["x", "", "y"])}, "invalid-property"),
        ({"unit": pa.array(["ms", "florps", None])}, "invalid-unit"),
    ],
)
def test_bad_rows_are_rejected_one_by_one(change: dict[str, Any], reason: str) -> None:
    decoded = arrow.decode(stream(columns(**change)), CONTEXT)
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.item) == (reason, 1)
    assert set(json.loads(rejected.payload)) <= {*arrow.REQUIRED, "unit"}
    assert [row[0] for row in rows(decoded)] == ["a", "a"]
    assert (decoded.messages, decoded.observations) == (3, 2)
    check_account(decoded)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"thing": None}, "thing"),
        ({"result": pa.array(["1", "2", "3"])}, "result"),
        ({"thing": pa.array([1, 2, 3])}, "thing"),
        ({"phenomenon_time": pa.array([NOW] * 3).cast(pa.timestamp("us"))}, "phenomenon_time"),
        ({"phenomenon_time": pa.array([NOW] * 3)}, "phenomenon_time"),
        ({"unit": pa.array([1, 2, 3])}, "unit"),
    ],
)
def test_a_wrong_schema_names_its_column(change: dict[str, Any], named: str) -> None:
    decoded = arrow.decode(stream(columns(**change)), CONTEXT)
    (rejected,) = decoded.rejected
    assert rejected.reason == "wrong-schema"
    assert rejected.detail.startswith(named)
    assert (decoded.messages, decoded.observations) == (1, 0)


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_other_timestamp_resolutions(unit: str) -> None:
    scale = {"s": 1, "ms": 10**3, "ns": 10**9}[unit]
    seconds = pa.array([NOW // 10**6 * scale] * 3, pa.int64())
    decoded = arrow.decode(
        stream(columns(phenomenon_time=seconds.cast(pa.timestamp(unit, "Asia/Tokyo")))), CONTEXT
    )
    assert [row[3] for row in rows(decoded)] == [NOW] * 3


@pytest.mark.parametrize("cut", [1, 50, 200, len(GOOD) // 2, len(GOOD) - 30])
def test_a_truncated_stream_is_one_rejection(cut: int) -> None:
    decoded = arrow.decode(GOOD[:cut], CONTEXT)
    assert (decoded.observations, len(decoded.rejected), decoded.messages) == (0, 1, 1)


def test_a_decompression_bomb_is_refused_before_it_is_opened() -> None:
    payload = stream(
        {
            "thing": pa.array(["a" * 300_000_000]),
            "property": pa.array(["x"]),
            "phenomenon_time": pa.array([NOW]).cast(UTC_US),
            "result": pa.array([1.0]),
        },
        compression="zstd",
    )
    assert len(payload) < 100_000
    before = pa.total_allocated_bytes()
    (rejected,) = arrow.decode(payload, CONTEXT).rejected
    assert rejected.reason == "too-large"
    assert pa.total_allocated_bytes() == before


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "ROWS_MAX", 2)
    (rejected,) = arrow.decode(GOOD, CONTEXT).rejected
    assert (rejected.reason, rejected.detail) == ("too-large", "rows: over 2")


def test_more_streams_than_a_table_can_number() -> None:
    names = [f"thing-{number}" for number in range(600)]
    payload = arrow.encode(
        names, [f"p-{number}" for number in range(600)], [NOW] * 600, [1.0] * 600
    )
    decoded = arrow.decode(payload, CONTEXT)
    assert len(decoded.streams) == 600
    assert [row[0] for row in rows(decoded)] == names
    check_account(decoded)


def test_no_rows_is_no_message() -> None:
    decoded = arrow.decode(arrow.encode([], [], [], []), CONTEXT)
    assert (decoded.messages, decoded.observations, decoded.rejected) == (0, 0, ())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes(payload: bytes) -> None:
    check_account(arrow.decode(payload, CONTEXT))


COMPRESSED = stream(columns(unit=pa.array(["ms"] * 3).dictionary_encode()), compression="lz4")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_streams(data: st.DataObject) -> None:
    payload = bytearray(data.draw(st.sampled_from([GOOD, COMPRESSED])))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    check_account(arrow.decode(bytes(payload), CONTEXT))


def test_what_a_gateway_repeats_is_remembered_and_never_mistaken() -> None:
    """The same dictionaries give the very same streams; others, after them, give their own."""
    context = replace(CONTEXT, memory={})

    def batch(things: list[str]) -> bytes:
        return stream(
            columns(
                thing=pa.array(things).dictionary_encode(),
                property=pa.array(["heading"] * 3).dictionary_encode(),
            )
        )

    first = arrow.decode(batch(["a", "b", "c"]), context)
    again = arrow.decode(batch(["a", "b", "c"]), context)
    other = arrow.decode(batch(["a", "b", "d"]), context)
    assert again.streams is first.streams
    assert [each.thing for each in other.streams] == ["a", "b", "d"]
    plain = [arrow.decode(stream(columns(thing=names)), context) for names in ("abc", "xyz")]
    assert [[s.thing for s in each.streams] for each in plain] == [list("abc"), list("xyz")]
