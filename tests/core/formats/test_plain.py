"""Plain JSON observations: shapes, kinds of results, and rejections that name their field."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import plain
from tests.core.formats.rows import CONTEXT, NOW, check_account, rows

ONE = {
    "thing": "n1",
    "property": "rtt",
    "phenomenon_time": "2026-01-01T09:00:00+09:00",
    "result": 5,
}


def decode(value: Any) -> Any:
    return plain.decode(json.dumps(value).encode(), CONTEXT)


@pytest.mark.parametrize("value", [ONE, [ONE], {"observations": [ONE]}])
def test_shapes(value: Any) -> None:
    decoded = decode(value)
    assert rows(decoded) == [("n1", "rtt", None, NOW, 5.0)]
    assert (decoded.messages, decoded.rejected) == (1, ())


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (1.5, 1.5),
        (True, 1.0),
        ("open", "open"),
        ({"a": [1]}, b'{"a":[1]}'),
        ([1, 2], b"[1,2]"),
        ({"longitude": 139, "latitude": 35}, (139.0, 35.0, math.nan, math.nan)),
        ({"longitude": 1, "latitude": 2, "speed": 3, "course": None}, (1.0, 2.0, 3.0, math.nan)),
    ],
)
def test_results(result: Any, stored: Any) -> None:
    ((*_, got),) = rows(decode({**ONE, "result": result}))
    assert str(got) == str(stored)


def test_time_is_the_receivers_when_absent_and_unit_is_kept() -> None:
    assert rows(decode({"thing": "n1", "property": "rtt", "result": 1, "unit": "ms"})) == [
        ("n1", "rtt", "ms", NOW, 1.0)
    ]


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"thing": 5}, "invalid-item", "thing"),
        ({"thing": "a/b"}, "invalid-thing", "thing"),
        ({"thing": ""}, "invalid-thing", "thing"),
        ({"thing": "a\0"}, "invalid-thing", "thing"),
        ({"thing": "a" * 201}, "invalid-thing", "thing"),
        ({"property": "/x"}, "invalid-property", "property"),
        ({"unit": "florps"}, "invalid-unit", "unit"),
        ({"phenomenon_time": "2026-01-01T00:00:00"}, "invalid-time", "phenomenon_time"),
        ({"phenomenon_time": "yesterday"}, "invalid-time", "phenomenon_time"),
        ({"phenomenon_time": 5}, "invalid-item", "phenomenon_time"),
        ({"result": None}, "invalid-result", "result"),
        ({"result": {"longitude": 200, "latitude": 1}}, "invalid-result", "longitude"),
        ({"result": {"longitude": "1", "latitude": 1}}, "invalid-result", "longitude"),
        ({"result": {"a": "\0"}}, "invalid-result", "result"),
        ({"result": "a\0"}, "invalid-result", "result"),
        ({"result": {"a": 10**30}}, "invalid-result", "result"),
    ],
)
def test_rejections_name_the_field(change: dict[str, Any], reason: str, field: str) -> None:
    decoded = decode([ONE, {**ONE, **change}, ONE])
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.item) == (reason, 1)
    assert field in rejected.detail
    assert (decoded.observations, decoded.messages) == (2, 3)


@pytest.mark.parametrize("missing", ["thing", "property", "result"])
def test_missing_fields(missing: str) -> None:
    (rejected,) = decode([{k: v for k, v in ONE.items() if k != missing}]).rejected
    assert rejected.reason == "invalid-item"
    assert missing in rejected.detail


@pytest.mark.parametrize("payload", [b"", b"5", b"[", b"\xff", b'{"observations": 5}', b"[" * 9000])
def test_not_observations(payload: bytes) -> None:
    decoded = plain.decode(payload, CONTEXT)
    assert (decoded.messages, decoded.observations) == (1, 0)
    assert [r.payload for r in decoded.rejected] == [payload]


def test_encode_round_trip() -> None:
    sent = [
        {"thing": "a", "property": "b", "phenomenon_time": NOW + 1, "result": 1.5, "unit": "ms"}
    ]
    assert rows(plain.decode(plain.encode(sent), CONTEXT)) == [("a", "b", "ms", NOW + 1, 1.5)]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
items = st.dictionaries(
    st.sampled_from(["thing", "property", "phenomenon_time", "result", "unit"]),
    values
    | st.sampled_from(["n1", "rtt", "2026-01-01T00:00:00Z", "ms", {"longitude": 1, "latitude": 2}]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(items, max_size=4))
def test_any_items(given_items: list[dict[str, Any]]) -> None:
    decoded = plain.decode(json.dumps(given_items).encode(), CONTEXT)
    check_account(decoded)
    assert (
        decoded.received == decoded.messages
        or b"NaN" in json.dumps(given_items).encode()
        or (b"Infinity" in json.dumps(given_items).encode())
    )


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_arbitrary_bytes(payload: bytes) -> None:
    check_account(plain.decode(payload, CONTEXT))
