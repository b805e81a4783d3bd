"""Lines and rows to observations: times, what is not available, repeats, and the account."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sector import Context
from core.sensorthings import Decoded
from domains.ports import decode, wire
from domains.ports.sector import SECTOR

MOMENT = 1_767_222_000_000_000
RECEIVED = 1_767_225_600_000_000
SHIP = "1,1,,A,16K29hQP009wu20DGeP>4?v40000,0"


def context(memory: dict[Any, Any] | None = None, received_at: int = RECEIVED) -> Context:
    return Context("g", received_at, {} if memory is None else memory)


def nmea(*lines: str, memory: dict[Any, Any] | None = None, at: int = RECEIVED) -> Decoded:
    return decode.decode("nmea", "\n".join(lines).encode(), context(memory, at))


def vdm(fields: str) -> str:
    body = f"AIVDM,{fields}"
    return f"!{body}*{wire.checksum(body.encode()):02X}"


def report(mmsi: int = 431_000_001, **changes: Any) -> str:
    values = {"speed_knots": 10.0, "course": 90.0, "heading": 91, "status": 0, "moment_us": MOMENT}
    place = changes.pop("place", (139.77, 35.62))
    return wire.position_report(mmsi, *place, **{**values, **changes})


def static(moment_us: int = MOMENT, **changes: Any) -> list[str]:
    values = {"callsign": "JD1", "draught": 6.5, "destination": "NAGOYA", **changes}
    return wire.static_report(431_000_001, "CHIMATA MARU", moment_us=moment_us, **values)


def properties(decoded: Decoded) -> set[str]:
    return {stream.property for stream in decoded.streams}


def documents(decoded: Decoded) -> dict[str, Any]:
    assert decoded.documents is not None
    return {
        decoded.streams[stream].property: json.loads(result)
        for stream, result in zip(decoded.documents.stream, decoded.documents.result, strict=True)
    }


def reasons(decoded: Decoded) -> list[str]:
    return [rejected.reason for rejected in decoded.rejected]


def test_position_report() -> None:
    """Knots become m/s; every value is an observation at the line's own time."""
    decoded = nmea(report(rate_of_turn=-5))
    assert properties(decoded) == {"position", "heading", "rate-of-turn", "navigation-status"}
    assert decoded.positions is not None
    assert decoded.positions.speed[0] == pytest.approx(5.14444, abs=1e-4)
    assert decoded.positions.phenomenon_time.tolist() == [MOMENT]
    assert decoded.numbers is not None
    assert decoded.numbers.result.tolist() == [91, -5]


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"place": (None, None)}, {"heading", "navigation-status"}),
        ({"heading": None}, {"position", "navigation-status"}),
        ({"place": (None, None), "heading": None}, {"navigation-status"}),
    ],
)
def test_what_is_not_available_is_not_stored(changes: dict[str, Any], left: set[str]) -> None:
    """The rest of the message is."""
    assert properties(nmea(report(**changes))) == left


def test_speed_and_course_not_available_are_nan() -> None:
    decoded = nmea(report(speed_knots=None, course=None))
    assert decoded.positions is not None
    assert str(decoded.positions.speed[0]) == str(decoded.positions.course[0]) == "nan"


def test_a_position_outside_the_globe_is_kept_as_a_document() -> None:
    """It cannot be a position, and dropping it would hide that something is broken."""
    decoded = nmea(report(place=(139.77, -101.5)))
    assert "position" not in properties(decoded)
    assert documents(decoded)["ais-message"]["lat"] == -101.5


def test_untimed_lines_of_one_vessel_do_not_share_a_moment() -> None:
    """Two positions at one time would be a position and its correction."""
    decoded = nmea(vdm(SHIP), "# note", vdm(SHIP))
    assert decoded.positions is not None
    assert decoded.positions.phenomenon_time.tolist() == [RECEIVED, RECEIVED + 1]


def test_static_and_voyage_data() -> None:
    """One message of two lines: documents, draught, and the Thing's name."""
    decoded = nmea(*static(eta=(1, 2, 3, 4), destination="JP TYO>JP NGO"))
    assert (decoded.messages, decoded.unchanged, decoded.rejected) == (2, 0, ())
    assert properties(decoded) == {"static-data", "destination", "draught", "eta"}
    told = documents(decoded)
    assert told["destination"] == {"text": "JP TYO>JP NGO", "from": "JPTYO", "to": "JPNGO"}
    assert told["eta"]["time"] == "2026-01-02T03:04:00Z"
    (update,) = decoded.things
    assert (update.thing, update.name) == ("431000001", "CHIMATA MARU")


def test_repeated_static_data_are_unchanged_for_an_hour() -> None:
    """Each of the two lines counts; an hour later the state is confirmed once."""
    memory: dict[Any, Any] = {}
    assert nmea(*static(), memory=memory).unchanged == 0
    again = nmea(*static(MOMENT + 60 * wire.SECOND), memory=memory)
    assert (again.unchanged, again.observations, again.things) == (2, 0, ())
    changed = nmea(*static(MOMENT + 90 * wire.SECOND, draught=7.0), memory=memory)
    assert (changed.unchanged, changed.observations) == (0, 3)
    later = nmea(*static(MOMENT + 5_000 * wire.SECOND, draught=7.0), memory=memory)
    assert (later.unchanged, later.observations) == (0, 3)


def test_a_payload_that_comes_again_gives_the_same() -> None:
    """Its commit failed: nothing of it may have become `unchanged` meanwhile."""
    memory: dict[Any, Any] = {}
    lines = [*static(), *static(MOMENT + 60 * wire.SECOND)]
    first = nmea(*lines, memory=memory)
    again = nmea(*lines, memory=memory, at=RECEIVED + wire.SECOND)
    assert (first.observations, first.unchanged) == (again.observations, again.unchanged) == (3, 2)


def test_untimed_repeats_are_compared_only_inside_a_payload() -> None:
    """A payload that comes again has another receipt time: it cannot be told from a repeat."""
    bare = [line.rpartition("\\")[2] for line in static()]
    memory: dict[Any, Any] = {}
    first = nmea(*bare, *bare, memory=memory)
    again = nmea(*bare, *bare, memory=memory, at=RECEIVED + wire.SECOND)
    assert (first.observations, first.unchanged) == (again.observations, again.unchanged) == (3, 2)


def test_single_line_payloads_are_put_together() -> None:
    """The first waits without an observation; the second brings the message."""
    memory: dict[Any, Any] = {}
    first, second = (nmea(line, memory=memory) for line in static())
    assert (first.messages, first.received) == (1, 0)
    assert (second.messages, second.observations) == (1, 3)


def test_single_line_payloads_of_two_gateways_are_not_mixed() -> None:
    memory: dict[Any, Any] = {}
    first, second = (line.encode() for line in static())
    decode.decode("nmea", first, Context("one", RECEIVED, memory))
    decoded = decode.decode("nmea", second, Context("two", RECEIVED, memory))
    assert decoded.observations == 0


def test_a_single_part_whose_rest_never_comes_is_rejected_later() -> None:
    """With the next payload of any kind after 60 s: it never vanishes from the account."""
    memory: dict[Any, Any] = {}
    assert nmea(static()[0], memory=memory).rejected == ()
    assert nmea(report(), memory=memory, at=RECEIVED + 59 * wire.SECOND).rejected == ()
    late = nmea(report(), memory=memory, at=RECEIVED + 61 * wire.SECOND)
    assert reasons(late) == ["incomplete-multipart"]


def test_a_single_later_part_is_rejected_at_once() -> None:
    assert reasons(nmea(static()[1].rpartition("\\")[2])) == ["incomplete-multipart"]


def test_what_a_batch_leaves_open_is_rejected_with_it() -> None:
    """A batch is never cut inside a message, so no later payload can complete it."""
    decoded = nmea(report(), static()[0])
    assert reasons(decoded) == ["incomplete-multipart"]
    assert (decoded.messages, decoded.rejected[0].item) == (2, 1)


def test_other_types_become_documents() -> None:
    """Nothing is dropped because it has no property of its own."""
    decoded = nmea(vdm("1,1,,A,:5AKhr1GORMH,0"))
    assert documents(decoded)["ais-message"]["msg_type"] == 10


def test_safety_text() -> None:
    """Message 12 names to whom, 14 speaks to all."""
    told = documents(nmea(vdm("1,1,,A,<5MwpVn0AAup=C7P6B?=Pknnqqqoho0,2")))
    assert told["safety-text"] == {"text": "MSG FROM 366999707", "to": "538003422"}
    told = documents(nmea(vdm("1,1,,B,>AE3cKl,2")))
    assert told["safety-text"].keys() == {"text"}


def test_base_station_has_a_location() -> None:
    """Leading zeros belong to an MMSI; what stands still has a location."""
    decoded = nmea(vdm("1,1,,A,402u=TiuaA000r5UJ`H4`?7000S:,0"))
    (update,) = decoded.things
    assert update.thing == "003100051"
    assert update.location == pytest.approx((-82.6661, 42.0690), abs=1e-3)


HEADER = "MMSI,BaseDateTime,LAT,LON,SOG,COG,Heading,VesselName,Status"


def rows(*lines: str, header: str = HEADER) -> Decoded:
    return decode.decode("csv", "\n".join([header, *lines]).encode(), context())


def test_csv_row() -> None:
    decoded = rows("431000001,2025-12-31T23:00:00,35.6,139.8,10,90,511,CHIMATA MARU,5")
    assert properties(decoded) == {"position", "navigation-status", "static-data"}
    assert decoded.categories is not None
    assert list(decoded.categories.result) == ["moored"]
    assert decoded.positions is not None
    assert decoded.positions.phenomenon_time.tolist() == [MOMENT]


@pytest.mark.parametrize(
    "row",
    [
        "x,2025-12-31T23:00:00,35.6,139.8,10,90,511,A,5",
        "431000001,yesterday,35.6,139.8,10,90,511,A,5",
        "431000001,2025-12-31T23:00:00,,139.8,10,90,511,A,5",
        "431000001,2025-12-31T23:00:00,nan,139.8,10,90,511,A,5",
        "431000001,2025-12-31T23:00:00,35.6,200,10,90,511,A,5",
        "431000001,2025-12-31T23:00:00,35.6,139.8,fast,90,511,A,5",
        "431000001,2025-12-31T23:00:00,35.6,139.8,10,90,511,A,99",
        "431000001,2025-12-31T23:00:00,35.6,139.8",
        '431000001,2025-12-31T23:00:00,35.6,139.8,10,90,511,"A,5',
        "431000001,2025-12-31T23:00:00,35.6,139.8,10,90,511,A\0B,5",
    ],
)
def test_a_bad_row_spoils_only_itself(row: str) -> None:
    good = "431000002,2025-12-31T23:00:00Z,35.6,139.8,10,90,511,B,0"
    decoded = rows(good, row, good.replace("002", "003"))
    assert reasons(decoded) == ["bad-field"]
    assert (decoded.messages, decoded.rejected[0].item) == (3, 1)
    assert {stream.thing for stream in decoded.streams} == {"431000002", "431000003"}


def test_rows_without_a_usable_header_are_rejected() -> None:
    decoded = rows("1,2,3", "4,5,6", header="a,b,c")
    assert (decoded.messages, reasons(decoded)) == (2, ["bad-header", "bad-header"])


def test_newer_column_names() -> None:
    """MarineCadastre wrote them in lower case with underscores from 2025 on."""
    header = "mmsi,base_date_time,longitude,latitude,sog,cog,heading,vessel_name,status"
    decoded = rows("431000001,2025-12-31 23:00:00,139.8,35.6,10,90,91,A,0", header=header)
    assert decoded.positions is not None
    assert decoded.positions.longitude.tolist() == [139.8]


@given(
    order=st.permutations([0, 0, 1, 1, 2, 2, 3, 3]),
    lost=st.sets(st.integers(0, 7), max_size=4),
    tagged=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_interleaved_and_lost_parts(order: list[int], lost: set[int], *, tagged: bool) -> None:
    """However four messages are woven together: whole ones decode, every other part is refused."""
    reports = [
        wire.static_report(431_000_000 + n, f"SHIP {n}", moment_us=MOMENT, sequence=n)
        for n in range(4)
    ]
    waiting = [list(enumerate(lines)) for lines in reports]
    sent: list[tuple[int, str]] = []
    for place, number in enumerate(order):
        _, line = waiting[number].pop(0)
        if place not in lost:
            sent.append((number, line if tagged else line.rpartition("\\")[2]))
    numbers = [number for number, _ in sent]
    whole = {f"43100000{n}" for n in range(4) if numbers.count(n) == 2}
    decoded = nmea(report(), *(line for _, line in sent))
    assert {update.thing for update in decoded.things} == whole
    assert len(decoded.rejected) == len(sent) - 2 * len(whole)
    assert set(reasons(decoded)) <= {"incomplete-multipart"}


def check_account(decoded: Decoded) -> None:
    """What must hold of any bytes: declared properties, bounded counts, storable times."""
    declared = set(SECTOR.by_name)
    assert {stream.base_property for stream in decoded.streams} <= declared
    assert decoded.unchanged <= decoded.messages
    assert decoded.observations + len(decoded.rejected) + decoded.unchanged >= decoded.messages


# Every type with a sound checksum and random bits: the way into pyais's readers of binary payloads.
ARMOUR = "".join(chr(code) for code in (*range(48, 88), *range(96, 120)))
RANDOM_LINES = st.lists(
    st.builds(
        lambda payload, fill: vdm(f"1,1,,A,{payload},{fill}"),
        st.text(ARMOUR, min_size=1, max_size=180),
        st.integers(0, 5),
    ),
    min_size=2,
    max_size=20,
)


@given(RANDOM_LINES)
@settings(max_examples=100, deadline=None)
def test_random_bits_with_sound_checksums(lines: list[str]) -> None:
    """Never an exception, and every line is accounted for."""
    check_account(nmea(*lines))


@given(st.binary(max_size=600), st.sampled_from(["nmea", "csv", "other"]))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes(payload: bytes, format: str) -> None:
    decoded = decode.decode(format, payload, context())
    if len(payload.strip().split(b"\n")) > 1:
        check_account(decoded)


def test_a_part_that_comes_again_before_its_message_is_unchanged() -> None:
    first, last = static()
    decoded = nmea(last, last, last, first)
    assert (decoded.messages, decoded.unchanged, decoded.rejected) == (4, 2, ())


MIX = [report(), *static(), vdm(SHIP), "$PGHP,1,2008,5,9,0,0,0,10,338,2,,1,09*17", "# note"]


@given(
    st.lists(st.sampled_from(MIX), min_size=2, max_size=12),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_mutated_lines(lines: list[str], changes: list[tuple[int, int]]) -> None:
    """Bytes exchanged anywhere, line ends included: never an exception, nothing unaccounted."""
    payload = bytearray("\n".join(lines).encode())
    for at, value in changes:
        payload[at % len(payload)] = value
    decoded = decode.decode("nmea", bytes(payload), context())
    assert decoded.messages == wire.count_messages(bytes(payload))
    if decoded.messages > 1:
        check_account(decoded)


@pytest.mark.parametrize("fault", ["431000001,no time,35,139,1,2,3,N,5", "1,2"])
def test_a_bad_row_is_kept_under_its_header(fault: str) -> None:
    good = "431000001,2025-12-31T23:00:00,35.6,139.8,10,90,511,CHIMATA MARU,5"
    (rejected,) = rows(good, fault, good).rejected
    assert rejected.payload == f"{HEADER}\n{fault}".encode()
    (again,) = decode.decode("csv", rejected.payload, context()).rejected
    assert again.reason == rejected.reason


def test_a_long_header_is_not_kept_with_every_row() -> None:
    """A payload would become as many times its size as it has rows."""
    long = HEADER + "," * 300_000
    decoded = rows(*["x"] * 100, header=long)
    assert len(decoded.rejected) == 100
    assert sum(len(each.payload) for each in decoded.rejected) < 2**20
    assert [each.format for each in decoded.rejected] == [""] * 3 + [None] * 97


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_mutated_rows(changes: list[tuple[int, int]]) -> None:
    row = "431000001,2025-12-31T23:00:00,35.6,139.8,10,90,511,CHIMATA MARU,5"
    payload = bytearray("\n".join([HEADER, row, row, row]).encode())
    for at, value in changes:
        payload[at % len(payload)] = value
    check_account(decode.decode("csv", bytes(payload), context()))
