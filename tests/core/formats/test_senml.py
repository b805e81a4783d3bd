"""SenML packs: RFC 8428's own examples, its rules, and what hostile packs become."""

import json
import math
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import DECODERS, senml
from core.formats.senml import Record
from tests.core.formats.rows import CONTEXT, NOW, check_account, rows

MINUTE = 60_000_000


def decode(pack: Any) -> Any:
    return senml.decode_json(json.dumps(pack).encode(), CONTEXT)


def reasons(pack: Any) -> list[str]:
    return [rejected.reason for rejected in decode(pack).rejected]


@pytest.mark.parametrize("number", [n for n in range(1, 13) if n != 7])
def test_agrees_with_the_resolved_examples(shared_data: Path, number: int) -> None:
    """A pack and its resolved form (RFC 8428, 4.6) say the same of the same Things."""
    folder = shared_data / "senml"
    resolved = json.loads((folder / f"ex{number}.gen.resolved.json").read_bytes())
    expected = senml.decode_json((folder / f"ex{number}.gen.resolved.json").read_bytes(), CONTEXT)
    files = [folder / f"ex{number}.json", folder / f"ex{number}.gen.json"]
    files += folder.glob(f"ex{number}.gen.cbor")
    for file in files:
        name = "senml-cbor" if file.suffix == ".cbor" else "senml-json"
        decoded = DECODERS[name](file.read_bytes(), CONTEXT)
        assert decoded.messages == len(resolved)
        assert not decoded.rejected
        assert decoded.streams == expected.streams
        relative = {1, 2, 9}  # their resolved form has the time at which it was made
        keep = [0, 1, 2, 4] if number in relative else [0, 1, 2, 3, 4]
        got = repr(
            [[row[k] for k in keep] for row in rows(decoded)]
        )  # NaN is not NaN, but reads so
        assert got == repr([[row[k] for k in keep] for row in rows(expected)])


def test_resolved_values_are_the_examples_values(shared_data: Path) -> None:
    """Against the numbers in the file itself, not against our own reading of it."""
    folder = shared_data / "senml"
    resolved = json.loads((folder / "ex3.gen.resolved.json").read_bytes())
    decoded = senml.decode_cbor((folder / "ex3.gen.cbor").read_bytes(), CONTEXT)
    got = [
        (f"{thing}:{name}", unit, time, value) for thing, name, unit, time, value in rows(decoded)
    ]
    assert got == [(r["n"], r["u"], round(r["t"] * 1e6), r["v"]) for r in resolved]


def test_every_example_decodes(shared_data: Path) -> None:
    files = [*(shared_data / "senml").glob("*.json"), *(shared_data / "senml").glob("*.cbor")]
    assert len(files) == 40
    for file in files:
        decoded = DECODERS[f"senml-{file.suffix[1:]}"](file.read_bytes(), CONTEXT)
        assert decoded.observations, file.name
        assert not decoded.rejected, file.name


def test_longitude_and_latitude_are_one_position(shared_data: Path) -> None:
    decoded = senml.decode_json((shared_data / "senml" / "ex5.json").read_bytes(), CONTEXT)
    assert (decoded.messages, decoded.observations) == (13, 9)
    positions = [row for row in rows(decoded) if row[1] == "position"]
    assert next(row[4][:2] for row in positions) == (24.30621, 60.07965)
    assert all(math.isnan(row[4][2]) for row in positions)


def test_speed_and_heading_join_a_position_and_only_a_position() -> None:
    pack = [
        {"bn": "bus-1:", "u": "lon", "v": 139.7},
        {"u": "lat", "v": 35.6},
        {"n": "speed", "u": "km/h", "v": 36},
        {"n": "heading", "u": "deg", "v": 90},
        {"n": "altitude", "u": "m", "v": 12},
        {"bn": "mast-1:", "n": "speed", "u": "m/s", "v": 3},
        {"u": "lat", "v": 35.6},
    ]
    got = rows(decode(pack))
    assert ("bus-1", "position", None, NOW, (139.7, 35.6, 10.0, 90.0)) in got
    assert ("bus-1", "altitude", "m", NOW, 12.0) in got
    assert ("mast-1", "speed", "m/s", NOW, 3.0) in got
    assert ("mast-1", "latitude", "deg", NOW, 35.6) in got
    assert len(got) == 4


def test_a_position_off_the_earth_is_a_rejection() -> None:
    decoded = decode([{"bn": "bus-1", "u": "lon", "v": 139.7}, {"u": "lat", "v": 95}])
    assert [(r.reason, "latitude" in r.detail) for r in decoded.rejected] == [
        ("invalid-position", True)
    ]
    assert (decoded.observations, decoded.messages) == (0, 2)


def test_times_below_2_to_the_28_are_relative_to_now() -> None:
    """RFC 8428, 4.5.3."""
    pack = [
        {"bn": "a:", "n": "x", "v": 1},
        {"n": "x", "t": -60, "v": 2},
        {"n": "x", "t": 2**28 - 1, "v": 3},
        {"n": "x", "t": 2**28, "v": 4},
    ]
    times = [row[3] for row in rows(decode(pack))]
    assert times == [NOW, NOW - MINUTE, NOW + (2**28 - 1) * 10**6, 2**28 * 10**6]


def test_base_value_and_base_sum_are_added() -> None:
    got = rows(decode([{"bn": "a:", "bv": 20, "bs": 100, "n": "x", "u": "W", "v": 0.5, "s": 7}]))
    assert got == [("a", "x", "W", NOW, 20.5), ("a", "x-sum", "W.s", NOW, 107.0)]


def test_kinds_of_values() -> None:
    pack = [
        {"bn": "a:", "n": "open", "vb": False},
        {"n": "label", "vs": "Machine Room"},
        {"n": "blob", "vd": "aGkgCg"},
    ]
    assert rows(decode(pack)) == [
        ("a", "open", None, NOW, 0.0),
        ("a", "label", None, NOW, "Machine Room"),
        ("a", "blob", None, NOW, b'{"data":"aGkgCg"}'),
    ]


@pytest.mark.parametrize(
    ("pack", "thing", "observed_property"),
    [
        ([{"bn": "dev1/", "n": "temperature", "v": 1}], "dev1", "temperature"),
        ([{"bn": "dev1", "u": "Cel", "v": 1}], "dev1", "temperature"),
        ([{"bn": "dev1", "u": "lx", "v": 1}], "dev1", "illuminance"),
        ([{"n": "dev1", "v": 1}], "dev1", "value"),
        ([{"n": "dev1/temperature", "v": 1}], "dev1", "temperature"),
        ([{"bn": "site/", "n": "dev1/temperature", "v": 1}], "site:dev1", "temperature"),
        ([{"bn": "dev1/", "n": "soil-moisture/2", "v": 1}], "dev1", "soil-moisture/2"),
        ([{"bn": "2001:db8::2/", "n": "humidity", "v": 1}], "2001:db8::2", "humidity"),
    ],
)
def test_names(pack: Any, thing: str, observed_property: str) -> None:
    ((got_thing, got_property, *_),) = rows(decode(pack))
    assert (got_thing, got_property) == (thing, observed_property)


@pytest.mark.parametrize(
    ("pack", "reason"),
    [
        ([{"n": "a", "v": "1"}], "invalid-record"),
        ([{"n": "a", "v": None}], "invalid-record"),
        ([{"n": "a", "u": "Cel"}], "missing-value"),
        ([{"n": "a", "v": 1, "vb": True}], "several-values"),
        ([{"n": "a b", "v": 1}], "invalid-name"),
        ([{"n": "-a", "v": 1}], "invalid-name"),
        ([{"v": 1}], "invalid-name"),
        ([{"n": "日本", "v": 1}], "invalid-name"),
        ([{"n": "a", "u": "florps", "v": 1}], "unknown-unit"),
        ([{"n": "a", "t": 1e300, "v": 1}], "invalid-time"),
        ([{"n": "a", "vd": "!!"}], "invalid-result"),
        ([{"bn": "a", "bver": 11, "v": 1}], "unknown-version"),
        ([{"bn": "a", "v": 1, "quantum_": 1}], "must-understand"),
        ({"n": "a", "v": 1}, "invalid-json"),
        ([5], "invalid-record"),
        ([{"n": "a", "u": "lon", "v": 1}, {"n": "a", "u": "lon", "v": 2}], "duplicate-part"),
    ],
)
def test_rejections(pack: Any, reason: str) -> None:
    assert reasons(pack) == [reason]


def test_a_bad_record_does_not_take_the_good_ones_with_it() -> None:
    decoded = decode([{"bn": "a:", "n": "x", "v": 1}, {"n": "y", "v": "two"}, {"n": "z", "v": 3}])
    assert [row[1] for row in rows(decoded)] == ["x", "z"]
    (rejected,) = decoded.rejected
    assert rejected.item == 1
    assert json.loads(rejected.payload) == [{"bn": "a:"}, {"n": "y", "v": "two"}]
    assert "v" in rejected.detail
    assert decoded.messages == 3


SAID = {"bn": "a:", "bt": 1.79e9, "bu": "m", "bv": 3}
BAD = [{"n": "x", "v": "two"}, {"n": "x", "u": "?", "v": 1}, {"n": "x", "vs": "a\0"}, {"n": "x"}]


@pytest.mark.parametrize("said", [{}, SAID])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_record_is_kept_as_a_pack_of_its_own(said: dict[str, Any], bad: Any) -> None:
    """Taken in alone it is what it was: refused for the same reason, and once mended the same."""
    pack = [{**said, "n": "w", "v": 0}, bad, {"n": "z", "v": 0}]
    for name, dumps in (("senml-json", lambda p: json.dumps(p).encode()), ("senml-cbor", to_cbor)):
        (rejected,) = DECODERS[name](dumps(pack), CONTEXT).rejected
        alone = DECODERS[name](rejected.payload, CONTEXT)
        assert rejected.format == ""
        assert ([r.reason for r in alone.rejected], alone.observations) == ([rejected.reason], 0)
    mended = [*json.loads(DECODERS["senml-json"](json.dumps(pack).encode(), CONTEXT)
                          .rejected[0].payload)[:-1], {"n": "x", "v": 5}]  # fmt: skip
    expected = decode([{**said, "n": "x", "v": 5}])
    assert rows(decode(mended)) == rows(expected)


def to_cbor(pack: list[dict[str, Any]]) -> bytes:
    labels = {name: label for label, name in senml.CBOR_LABELS.items()}
    return cbor2.dumps([{labels[name]: v for name, v in record.items()} for record in pack])


def test_what_would_say_something_else_alone_is_never_replayed() -> None:
    twice = [{"n": "a", "u": "lon", "v": 1, "t": 9e8}, {"n": "a", "u": "lon", "v": 2, "t": 9e8}]
    broken = [{"bn": 5, "n": "x", "v": 2}, {"n": "x", "v": 3}]
    far = [{"n": "a", "u": "lon", "v": 1, "t": 9e8}, {"n": "a", "u": "lat", "v": 95, "t": 9e8}]
    for pack in (twice, broken, far):
        rejected = decode(pack).rejected
        assert rejected
        assert {each.format for each in rejected} == {None}, pack


def test_an_unreadable_base_spoils_what_follows_it() -> None:
    """Resolved with an older base name, these would be another Thing's observations."""
    pack = [{"bn": "a:", "n": "x", "v": 1}, {"bn": 5, "n": "x", "v": 2}, {"n": "x", "v": 3}]
    decoded = decode(pack)
    assert [row[4] for row in rows(decoded)] == [1.0]
    assert [r.reason for r in decoded.rejected] == ["invalid-record", "base-unknown"]


def test_numbers_are_finite() -> None:
    decoded = senml.decode_cbor(cbor2.dumps([{0: "a", 2: math.nan}, {0: "a", 2: 1.0}]), CONTEXT)
    assert [r.reason for r in decoded.rejected] == ["not-finite"]
    assert decoded.observations == 1


@pytest.mark.parametrize("rest", [b"\x01", cbor2.dumps([{0: "b", 2: 2.0}]), b"\xff", b"\x82"])
def test_nothing_may_follow_a_cbor_pack(rest: bytes) -> None:
    decoded = senml.decode_cbor(cbor2.dumps([{0: "a", 2: 1.0}]) + rest, CONTEXT)
    assert [r.reason for r in decoded.rejected] == ["invalid-cbor"]


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
records = st.builds(
    Record,
    bn=st.just("urn:dev:x:"),
    n=st.sampled_from(["rsrp", "load", "soil-moisture/2"]),
    u=st.sampled_from(["Cel", "%RH", "dBm", "/"]),
    v=numbers,
    t=st.integers(2**28, 2**33).map(float),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(records, min_size=1, max_size=8))
def test_round_trip(pack: list[Record]) -> None:
    expected = [(r.n, round(float(str(r.t)) * 1e6), float(str(r.v))) for r in pack]
    for encode, decoder in (
        (senml.encode_json, senml.decode_json),
        (senml.encode_cbor, senml.decode_cbor),
    ):
        decoded = decoder(encode(pack), CONTEXT)
        assert [(row[1], row[3], row[4]) for row in rows(decoded)] == expected


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(payload: bytes) -> None:
    check_account(senml.decode_json(payload, CONTEXT))
    check_account(senml.decode_cbor(payload, CONTEXT))


fields = st.dictionaries(
    st.sampled_from(sorted(set(senml.CBOR_LABELS.values()) - {"ut"})),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.sampled_from(["a", "dev1:", "Cel", "lon", "lat", "aGk"]), st.lists(st.integers()),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(fields, max_size=5))
def test_any_fields(pack: list[dict[str, Any]]) -> None:
    check_account(senml.decode_json(json.dumps(pack).encode("utf-8", "surrogatepass"), CONTEXT))
    labels = {name: label for label, name in senml.CBOR_LABELS.items()}
    coded = cbor2.dumps([{labels[name]: value for name, value in one.items()} for one in pack])
    check_account(senml.decode_cbor(coded, CONTEXT))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_packs(shared_data: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(["ex3.gen.cbor", "ex5.gen.cbor", "ex5.json", "ex7.json"]))
    payload = bytearray((shared_data / "senml" / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    check_account(DECODERS[f"senml-{file.rpartition('.')[2]}"](bytes(payload), CONTEXT))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x81" * 5000 + b"\x01",
        b"\xd8\x1c\x81\xd8\x1d\x00",
        bytes.fromhex("81a102c4821b000000007fffffff01"),
    ],
    ids=["deep", "cyclic", "huge decimal"],
)  # fmt: skip
def test_hostile_cbor(payload: bytes) -> None:
    decoded = senml.decode_cbor(payload, CONTEXT)
    check_account(decoded)
    assert decoded.rejected
