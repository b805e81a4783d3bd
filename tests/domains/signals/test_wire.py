"""The J2735 codec: round trips against pycrate, envelopes, times, and what garbage does."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import parse_iso
from domains.signals import wire

SECOND = 1_000_000
NOON = parse_iso("2026-06-01T12:00:00Z")
quick = settings(max_examples=100, deadline=None)

ends = st.one_of(st.none(), st.integers(-17_000, 17_000))
groups = st.lists(
    st.tuples(st.integers(1, 255), st.sampled_from(wire.PHASE_STATES), ends, ends),
    min_size=1,
    max_size=12,
    unique_by=lambda group: group[0],
)
moments = st.integers(parse_iso("2020-01-01T00:00:00Z") // 1000, NOON // 1000).map(
    lambda t: t * 1000
)


def hex_of(path: Path) -> bytes:
    return bytes.fromhex(json.loads(path.read_bytes())["payload"]["data"]["bytes"])


def one(payload: bytes) -> wire.Frame:
    (frame,) = wire.split(payload)
    assert frame.fault is None
    return frame


@quick
@given(
    st.integers(0, 65535), st.none() | st.integers(1, 65535), st.integers(0, 127), moments, groups,
    st.none() | st.text("ab /Z0", min_size=1, max_size=63), st.booleans(),
)  # fmt: skip
def test_spat_round_trip(number, region, revision, moment, offsets, name, enveloped) -> None:  # type: ignore[no-untyped-def]
    """What is built decodes to the same groups, and its times to 1 ms and 1/10 s."""
    tenth = moment // 100_000 * 100_000
    given_groups = [
        (group, state, *(None if end is None else tenth + end * 100_000 for end in both))
        for group, state, *both in offsets
    ]
    payload = wire.build_spat(
        intersection_id=number, region=region, revision=revision, moment_us=moment,
        groups=given_groups, name=name, enveloped=enveloped,
    )  # fmt: skip
    frame = one(payload)
    (state,) = wire.decode_spat(frame.value)
    assert frame.message_id == wire.SPAT_MESSAGE
    assert state.intersection == wire.intersection_key(region, number)
    assert state.name == name
    assert wire.moment_of(state.minute, state.millisecond, moment + 3 * SECOND) == moment
    assert [
        (m.signal_group, m.state, wire.mark_to_us(m.minimum_end, moment),
         wire.mark_to_us(m.maximum_end, moment))
        for m in state.movements
    ] == given_groups  # fmt: skip


@quick
@given(st.integers(0, 65535), moments, moments, groups)
def test_a_head_tells_a_repeat(number: int, first: int, second: int, offsets: list) -> None:  # type: ignore[type-arg]
    """Only the times differ: same fingerprint. One state differs: another one."""
    marks = [(group, state, None, None) for group, state, _, _ in offsets]

    def head(moment: int, groups: list) -> wire.Peek:  # type: ignore[type-arg]
        value = one(wire.build_spat(intersection_id=number, moment_us=moment, groups=groups)).value
        peek = wire.peek_spat(value)
        assert peek is not None
        (full,) = wire.decode_spat(value)
        assert (peek.intersection, peek.minute, peek.millisecond) == (
            full.intersection, full.minute, full.millisecond,
        )  # fmt: skip
        return peek

    other = [(marks[0][0], "dark" if marks[0][1] != "dark" else "unavailable", None, None)]
    assert head(first, marks).fingerprint == head(second, marks).fingerprint
    assert head(first, marks).fingerprint != head(first, other + marks[1:]).fingerprint


def test_filled_template_is_what_pycrate_encodes() -> None:
    """The kept body with its times set equals an encoding of everything at once."""
    moment = NOON + 61 * SECOND
    for revision in (0, 5):
        built = one(
            wire.build_spat(
                intersection_id=7, region=12, revision=revision, moment_us=moment, name="A",
                groups=[(1, "dark", moment + SECOND, None)],
            )
        ).value  # fmt: skip
        minute, millisecond = wire.minute_and_millisecond(moment)
        timing = {"minEndTime": wire.us_to_mark(moment + SECOND, moment), "maxEndTime": 36001}
        state = {
            "name": "A", "id": {"region": 12, "id": 7}, "revision": revision, "status": (0, 16),
            "moy": minute, "timeStamp": millisecond,
            "states": [{
                "signalGroup": 1,
                "state-time-speed": [{"eventState": "dark", "timing": timing}],
            }],
        }  # fmt: skip
        assert built == wire._encode("SPAT", {"intersections": [state]})


def test_several_intersections_in_one_spat_decode_in_full() -> None:
    states = [
        {"id": {"id": number}, "revision": 0, "status": (0, 16), "timeStamp": 1000, "states": [
            {"signalGroup": 1, "state-time-speed": [{"eventState": "dark"}]}]}
        for number in (1, 2)
    ]  # fmt: skip
    value = wire._encode("SPAT", {"timeStamp": 5, "intersections": states})
    assert wire.peek_spat(value) is None
    first, second = wire.decode_spat(value)
    assert (first.intersection, second.intersection, second.minute) == ("1", "2", 5)


def test_recorded_frames_re_encode_byte_for_byte(shared_data: Path) -> None:
    """The US DOT vectors, as pycrate reads and writes them."""
    folder = shared_data / "traffic-signals" / "jpo-ode"
    bare = bytes.fromhex((folder / "spat_udp_example.hex").read_text())
    for payload in (bare, hex_of(folder / "decoder-input-spat.json")):
        frame = one(payload)
        value = wire._decode("SPAT", frame.value)
        encoded = wire._encode("SPAT", value)
        assert encoded == frame.value
    cases = json.loads((folder / "UDPMAP_To_EncodedJSON_Validation.json").read_bytes())["cases"]
    frame = one(bytes.fromhex(cases[0]["input"]))
    assert wire._encode("MapData", wire._decode("MapData", frame.value)) == frame.value


def test_recorded_envelopes(shared_data: Path) -> None:
    """Signed, cut off, with long lengths: the message inside is found, also three in a row."""
    folder = shared_data / "traffic-signals" / "jpo-ode"
    for name, kind in (("bsm", "BSM"), ("spat", "SPAT"), ("srm", "SRM"), ("ssm", "SSM")):
        frame = next(wire.split(hex_of(folder / f"decoder-input-{name}.json")))
        assert (frame.name, frame.fault) == (kind, None)
    whole = hex_of(folder / "decoder-input-bsm.json")  # the one whose signature is all there
    assert [frame.name for frame in wire.split(whole * 3)] == ["BSM"] * 3


@pytest.mark.parametrize("size", [4, 120, 200, 300, 16_000])
def test_signed_envelopes_one_after_another(size: int) -> None:
    """The signature is stepped over by its own structure; every length form of COER and UPER."""
    from pycrate_asn1dir import ITS_IEEE1609_2

    inner = wire.message_frame(wire.SPAT_MESSAGE, b"x" * size)
    assert one(inner).value == b"x" * size
    signed = ITS_IEEE1609_2.Ieee1609Dot2.Ieee1609Dot2Data
    signed.set_val({"protocolVersion": 3, "content": ("signedData", {
        "hashId": "sha256",
        "tbsData": {
            "payload": {"data": {"protocolVersion": 3, "content": ("unsecuredData", inner)}},
            "headerInfo": {"psid": 130, "generationTime": 5},
        },
        "signer": ("digest", b"12345678"),
        "signature": ("ecdsaNistP256Signature", {"rSig": ("x-only", b"r" * 32), "sSig": b"s" * 32}),
    })})  # fmt: skip
    envelope = signed.to_coer()
    unsecured = wire.message_frame(wire.SPAT_MESSAGE, b"y" * size, enveloped=True)
    frames = list(wire.split(envelope + envelope + unsecured + inner + envelope))
    assert [(frame.fault, frame.value[:1]) for frame in frames] == [
        (None, b"x"), (None, b"x"), (None, b"y"), (None, b"x"), (None, b"x"),
    ]  # fmt: skip
    assert b"".join(frame.raw for frame in frames) == envelope * 2 + unsecured + inner + envelope


@pytest.mark.parametrize(
    ("payload", "reason", "words"),
    [
        (b"", "not-a-message-frame", "no bits"),
        (bytes(9), "not-a-message-frame", "no bits"),
        (b"\x00\x13", "truncated", "MessageFrame"),
        (b"\x00\x13\x10abc", "truncated", "16 bytes announced, 3 there"),
        (b"\x80\x13\x01a", "not-a-message-frame", "extensions"),
        (b"hello", "not-a-message-frame", "no J2735 message"),
        (b"\x03\x82\x01a", "bad-envelope", "encryptedData"),
        (b"\x03\x81\x00\x20", "bad-envelope", "without its data"),
        (b"\x03\x80\x85\x01\x01\x01\x01\x01\x01", "bad-envelope", "length of 5"),
        (b"\x00\x13\xc0aa", "too-large", "value"),
    ],
)
def test_a_fault_is_named(payload: bytes, reason: str, words: str) -> None:
    (frame,) = wire.split(payload)
    assert frame.fault is not None
    assert frame.raw == payload
    assert (frame.fault.reason, words in str(frame.fault)) == (reason, True), frame.fault


@quick
@given(st.binary(max_size=300))
def test_garbage_splits_into_something(payload: bytes) -> None:
    """Any bytes: frames, the last of which may have a fault; never an exception."""
    frames = list(wire.split(payload))
    assert frames
    assert all(frame.fault is None for frame in frames[:-1])


@quick
@given(st.binary(max_size=200), st.integers(0, 255), st.sampled_from([0x40, 0x60]))
def test_any_signature_is_survived(tail: bytes, hash_id: int, present: int) -> None:
    """Whatever follows the signed data, the message in it is found, and the end is reached."""
    inner = wire.message_frame(wire.SPAT_MESSAGE, b"value")
    head = bytes([3, 0x81, hash_id, present, 3, 0x80, len(inner)])
    frames = list(wire.split(head + inner + tail + head + inner))
    assert frames[0].value == b"value"
    assert sum(len(frame.raw) for frame in frames) <= len(head + inner) * 2 + len(tail)


def test_after_whole_certificates_the_next_envelope_is_found() -> None:
    inner = wire.message_frame(wire.SPAT_MESSAGE, b"value")
    head = bytes([3, 0x81, 0, 0x40, 3, 0x80, len(inner)])
    certificate = b"\x00\x01\x20\x81\x01\x01\x80\x03\x00\x80" + b"c" * 90
    frames = list(wire.split((head + inner + certificate) * 3))
    assert [(frame.fault, frame.value) for frame in frames] == [(None, b"value")] * 3


@pytest.mark.parametrize(
    ("end", "moment", "mark"),
    [
        ("2026-06-01T13:00:05Z", "2026-06-01T12:59:50Z", 50),
        ("2026-06-01T12:59:50Z", "2026-06-01T13:00:02Z", 35900),
        ("2026-06-01T13:00:00Z", "2026-06-01T12:59:58Z", 0),
        ("2027-01-01T00:00:03.4Z", "2026-12-31T23:59:59Z", 34),
        ("2026-06-01T12:10:00.1Z", "2026-06-01T12:30:00Z", 6001),
    ],
)
def test_time_mark_rolls_over_the_hour(end: str, moment: str, mark: int) -> None:
    at = parse_iso(moment)
    assert wire.us_to_mark(parse_iso(end), at) == mark
    assert wire.mark_to_us(mark, at) == parse_iso(end)


def test_time_marks_that_are_no_time() -> None:
    assert wire.us_to_mark(None, NOON) == wire.MARK_UNKNOWN
    assert wire.us_to_mark(NOON + 3600 * SECOND, NOON) == wire.MARK_BEYOND_AN_HOUR
    for mark in (None, 36_000, 36_001, -1, 99_999):
        assert wire.mark_to_us(mark, NOON) is None


@pytest.mark.parametrize(
    ("minute", "millisecond", "reference", "moment"),
    [
        # New year: a frame of the old year seen in the new one, and the other way round.
        (525_599, 59_900, "2026-01-01T00:00:00.4Z", "2025-12-31T23:59:59.9Z"),
        (0, 100, "2025-12-31T23:59:59.8Z", "2026-01-01T00:00:00.1Z"),
        # Leap year: 31 December starts at minute 525600.
        (527_039, 0, "2025-01-01T00:00:30Z", "2024-12-31T23:59:00Z"),
        # A recording of last autumn, replayed in spring.
        (400_000, 0, "2026-03-01T00:00:00Z", "2025-10-05T18:40:00Z"),
        # Without the minute: the nearest one. Without milliseconds: within the minute.
        (None, 59_000, "2026-06-01T12:00:01Z", "2026-06-01T11:59:59Z"),
        (None, 1_000, "2026-06-01T11:59:58Z", "2026-06-01T12:00:01Z"),
        (218_160, None, "2026-06-01T12:00:07Z", "2026-06-01T12:00:07Z"),
        (218_160, None, "2026-06-01T12:02:07Z", "2026-06-01T12:00:00Z"),
        (527_040, 65_535, "2026-06-01T12:00:07Z", "2026-06-01T12:00:07Z"),
    ],
)
def test_moment(minute: int | None, millisecond: int | None, reference: str, moment: str) -> None:
    assert wire.moment_of(minute, millisecond, parse_iso(reference)) == parse_iso(moment)


def test_map_round_trip() -> None:
    """Paths come back to a centimetre and a half; signal groups through connectsTo."""
    path = [(139.7501, 35.65), (139.7507, 35.6501), (139.7530, 35.6502)]
    payload = wire.build_map(
        intersection_id=5, region=12, name="Minato", longitude=139.75, latitude=35.65, revision=4,
        lane_width_cm=310, enveloped=True,
        lanes=[
            {"id": 1, "approach": 1, "direction": "ingress", "path": path,
             "connections": [(2, 4), (3, 2), (9, None)]},
            {"id": 2, "approach": 3, "direction": "egress", "path": path[::-1]},
            {"id": 3, "approach": None, "type": "crosswalk", "path": path[:2]},
        ],
    )  # fmt: skip
    (geometry,) = wire.decode_map(one(payload).value)
    assert (geometry.intersection, geometry.name, geometry.revision) == ("12-5", "Minato", 4)
    assert (geometry.longitude, geometry.latitude) == (139.75, 35.65)
    first, second, third = geometry.lanes
    assert (first.signal_groups, first.connects_to) == ((2, 4), (2, 3, 9))
    assert (first.approach, first.direction, first.width_cm) == (1, "ingress", 310)
    assert (second.direction, third.type) == ("egress", "crosswalk")
    for (x, y), (longitude, latitude) in zip(first.path, path, strict=True):
        assert abs(x - longitude) < 1.5e-7
        assert abs(y - latitude) < 1.5e-7


def test_unencodable_values_are_named() -> None:
    with pytest.raises(wire.WireError, match="SPAT"):
        wire.build_spat(intersection_id=70_000, moment_us=NOON, groups=[(1, "dark", None, None)])
    with pytest.raises(wire.WireError, match="SPAT"):
        wire.build_spat(intersection_id=7, moment_us=NOON, groups=[(1, "green", None, None)])
    with pytest.raises(wire.WireError, match="too long a step"):
        wire.build_map(
            intersection_id=5, longitude=139.0, latitude=35.0,
            lanes=[{"id": 1, "approach": 1, "path": [(139.0, 35.0), (139.1, 35.0)]}],
        )  # fmt: skip
