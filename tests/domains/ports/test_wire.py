"""Lines, multipart and six-bit payloads: what the codec writes it reads, and pyais agrees."""

from functools import reduce
from operator import xor
from typing import Any

import pyais
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domains.ports import wire

MOMENT = 1_767_222_000_000_000
TEXT = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -.,/&()'", max_size=20)


def sentence(line: str) -> wire.Sentence:
    (entry,) = wire.read(line.encode())
    assert isinstance(entry, wire.Sentence), entry
    return entry


def vdm(fields: str) -> str:
    body = f"AIVDM,{fields}"
    return f"!{body}*{wire.checksum(body.encode()):02X}"


def decode_line(line: str) -> Any:
    entry = sentence(line)
    return wire.decode_bits(entry.payload, entry.fill_bits)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_checksum_is_the_xor_of_all_bytes(text: bytes) -> None:
    """The folded integer gives what the loop of NMEA 0183 gives."""
    assert wire.checksum(text) == reduce(xor, text, 0)


@given(
    mmsi=st.integers(0, 999_999_999),
    longitude=st.floats(-180, 180),
    latitude=st.floats(-90, 90),
    speed=st.floats(0, 102.2),
    course=st.floats(0, 359.9),
    heading=st.integers(0, 359),
    status=st.integers(0, 15),
)
@settings(max_examples=100, deadline=None)
def test_position_report_is_read_back(
    *,
    mmsi: int,
    longitude: float,
    latitude: float,
    speed: float,
    course: float,
    heading: int,
    status: int,
) -> None:
    """pyais's own reader of whole lines finds in the line what was written into it."""
    line = wire.position_report(
        mmsi,
        longitude,
        latitude,
        speed_knots=speed,
        course=course,
        heading=heading,
        status=status,
        moment_us=MOMENT,
    )
    told = pyais.decode(line.rpartition("\\")[2], error_if_checksum_invalid=True)
    assert (told.msg_type, told.mmsi, told.status, told.heading) == (1, mmsi, status, heading)
    assert told.lon == pytest.approx(longitude, abs=1.4e-6)
    assert told.lat == pytest.approx(latitude, abs=1.4e-6)
    assert told.speed == pytest.approx(speed, abs=0.0501)
    assert told.course == pytest.approx(round(course, 1) % 360, abs=0.1001)
    assert sentence(line).time_us == MOMENT


@given(name=TEXT, destination=TEXT, callsign=st.text("ABC123", max_size=7))
@settings(max_examples=50, deadline=None)
def test_static_report_is_read_back(name: str, destination: str, callsign: str) -> None:
    """Message 5 in two lines: pyais reads the texts, dimensions and draught that were written."""
    lines = wire.static_report(
        431_000_001,
        name,
        callsign=callsign,
        imo=9_123_456,
        ship_type=70,
        dimensions=(100, 20, 8, 9),
        draught=6.5,
        destination=destination,
        eta=(12, 31, 23, 59),
        moment_us=MOMENT,
        sequence=7,
    )
    assert [wire.parts_of(line.encode()) for line in lines] == [(2, 1), (2, 2)]
    told = pyais.decode(*(line.rpartition("\\")[2] for line in lines))
    assert (told.mmsi, told.imo, told.ship_type) == (431_000_001, 9_123_456, 70)
    assert (told.shipname, told.destination) == (name.strip(), destination.strip())
    assert told.callsign == callsign
    assert (told.to_bow, told.to_stern, told.to_port, told.to_starboard) == (100, 20, 8, 9)
    assert (told.draught, told.month, told.day, told.hour, told.minute) == (6.5, 12, 31, 23, 59)


def test_unavailable_values_are_written_as_such() -> None:
    """None becomes the value that M.1371 reserves for "not available"."""
    line = wire.position_report(
        431_000_001,
        None,
        None,
        speed_knots=None,
        course=None,
        heading=None,
        status=15,
        moment_us=MOMENT,
    )
    told = decode_line(line)
    assert (told.lon, told.lat, told.speed, told.course, told.heading) == (181, 91, 102.3, 360, 511)
    assert told.turn == -128


SHIP = "1,1,,A,16K29hQP009wu20DGeP>4?v40000,0"


@pytest.mark.parametrize(
    ("line", "time_us", "source"),
    [
        (vdm(SHIP), None, b""),
        (wire.tag_block(vdm(SHIP), "s:r1,c:1272412827"), 1_272_412_827_000_000, b"r1"),
        (wire.tag_block(vdm(SHIP), "c:1272412827500"), 1_272_412_827_500_000, b""),
        (vdm(SHIP) + ",b003669794,1272412827", 1_272_412_827_000_000, b"b003669794"),
        (
            vdm(SHIP) + ",d-109,S2105,t050056.00,T56.13718694,r003669946,1325394060,1325394001",
            1_325_394_001_000_000,
            b"r003669946",
        ),
        (vdm(SHIP) + ",d-122,S0385,r05SANA1,not-a-time", None, b"r05SANA1"),
    ],
)
def test_times_and_sources_of_lines(line: str, time_us: int | None, source: bytes) -> None:
    """Tag block in seconds or milliseconds; USCG's appended station and epoch seconds."""
    entry = sentence(line)
    assert (entry.time_us, entry.source) == (time_us, source)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("$GPGGA,1*00", "not-ais"),
        ("IamNotAnAisMessage", "not-ais"),
        ("!AIVDM," + "0" * 2000, "not-ais"),
        (vdm(SHIP)[:-1], "bad-checksum"),
        (vdm(SHIP)[:-3], "bad-checksum"),
        (vdm(SHIP).replace("16K", "16L"), "bad-checksum"),
        (wire.tag_block(vdm(SHIP), "c:1272412827").replace("c:1", "c:2"), "bad-checksum"),
        ("\\c:1272412827\\" + vdm(SHIP), "bad-checksum"),
        ("$PGHP,1,2008,5,9,0,0,0,10,338,2,,1,09*18", "bad-checksum"),
        ("$PGHP,1,2008,13,9,0,0,0,10,338,2,,1,09*20", "undecodable"),
        (vdm("1,1,,B,,0"), "undecodable"),
        (vdm("2,3,1,B,16K2,0"), "undecodable"),
        (vdm("1,1,,A,16K29hQ~009w,0"), "undecodable"),
        (vdm("1,1,,A,16K29hQP009w,7"), "undecodable"),
        (vdm(SHIP) + "junk", "undecodable"),
    ],
)
def test_faults_name_their_reason(line: str, reason: str) -> None:
    """Whatever is not a sound sentence is a fault with a slug and a sentence."""
    (entry,) = wire.read(line.encode())
    assert isinstance(entry, wire.Fault)
    assert entry.reason == reason
    assert ": " in entry.detail


def test_gatehouse_line_times_the_next_sentence_only() -> None:
    """$PGHP belongs to the sentence after it, over comments and blank lines, and to no other."""
    wrapper = "$PGHP,1,2008,5,9,0,0,0,10,338,2,,1,09*17"
    payload = "\n".join([wrapper, "", "# note", vdm(SHIP), vdm(SHIP)])
    first, second, third = wire.read(payload.encode())
    assert isinstance(first, wire.Wrapper)
    assert isinstance(second, wire.Sentence)
    assert isinstance(third, wire.Sentence)
    assert (second.time_us, third.time_us) == (1_210_291_200_010_000, None)
    assert wire.count_messages(payload.encode()) == 3


def parts(sequence: int, channel: str = "A", source: str = "") -> list[wire.Sentence]:
    """The two sentences of one static report, without tag blocks."""
    tail = f",{source},1767222000" if source else ""
    lines = wire.static_report(
        431_000_000 + sequence, "A", moment_us=MOMENT, sequence=sequence, channel=channel
    )
    return [sentence(line.rpartition("\\")[2] + tail) for line in lines]


def whole(message: wire.Message | None) -> int:
    assert message is not None
    return int(wire.decode_bits(message.payload, message.fill_bits).mmsi)


def test_interleaved_messages_are_told_apart() -> None:
    """By sequence id, channel and source."""
    assembler = wire.Assembler(reorder=True)
    messages = [parts(1), parts(2), parts(1, "B"), parts(1, "A", "r1"), parts(1, "A", "r2")]
    for message in messages:
        assert assembler.add(message[0]) == (None, [])
    for message, mmsi in zip(reversed(messages), (1, 1, 1, 2, 1), strict=True):
        done, given_up = assembler.add(message[1])
        assert (whole(done), given_up) == (431_000_000 + mmsi, [])
    assert assembler.flush() == []


def test_a_lost_part_does_not_join_the_next_message() -> None:
    """The same sequence id again begins a new message; the old part is given up at once."""
    assembler = wire.Assembler(reorder=True)
    old, new = parts(1), parts(1)
    new[0] = new[0]._replace(line=new[0].line + b" ", item=7)
    assembler.add(old[0])
    assert assembler.add(new[0]) == (None, [old[0]])
    assert whole(assembler.add(new[1])[0]) == 431_000_001


def test_parts_too_far_apart_stay_apart() -> None:
    """By their own times, or by the lines between them where they have none."""
    timed = wire.Assembler(reorder=True)
    first, second = parts(1)
    timed.add(first._replace(time_us=MOMENT))
    late = second._replace(time_us=MOMENT + 31 * wire.SECOND)
    assert timed.add(late)[1] == [first._replace(time_us=MOMENT)]
    untimed = wire.Assembler(reorder=True)
    untimed.add(first)
    for number in range(600):
        untimed.add(parts(2)[0]._replace(group=b"%d" % number))
    assert untimed.add(second) == (None, [first])


def test_a_later_part_may_come_first_only_where_lines_may_change_places() -> None:
    """In one payload yes, over payloads no: there it can only be an orphan."""
    first, second = parts(1)
    batch = wire.Assembler(reorder=True)
    assert batch.add(second) == (None, [])
    assert whole(batch.add(first)[0]) == 431_000_001
    assert wire.Assembler(reorder=False).add(second) == (None, [second])


def test_only_the_first_line_may_be_tagged() -> None:
    """Some receivers name the source on the first line only."""
    assembler = wire.Assembler(reorder=True)
    first, _ = parts(1, source="r1")
    _, second = parts(1)
    assembler.add(first)
    assert whole(assembler.add(second)[0]) == 431_000_001


def test_a_repeated_part_gives_the_message_again() -> None:
    """So that a payload that comes again because its commit failed loses nothing."""
    assembler = wire.Assembler(reorder=False)
    first, second = parts(1)
    assembler.add(first)
    assert whole(assembler.add(second)[0]) == 431_000_001
    again, given_up = assembler.add(second)
    assert (whole(again), given_up) == (431_000_001, [])
    assert again is not None
    assert again.sentences == (second,)


def test_the_assembler_is_bounded() -> None:
    """Past 1,000 open messages the oldest is given up, not kept and not lost."""
    assembler = wire.Assembler(reorder=True)
    given_up = []
    for number in range(1_500):
        given_up += assembler.add(parts(1)[0]._replace(group=b"%d" % number))[1]
    assert len(given_up) == 500
    assert len(assembler.flush()) == 1_000


@pytest.mark.parametrize("kind", sorted(wire.BITS_MIN))
def test_too_short_payloads_are_undecodable(kind: int) -> None:
    """One bit less than what the fields need is named with its length; the least itself decodes."""
    characters = -(-wire.BITS_MIN[kind] // 6)
    armour = bytes([kind + 48 if kind < 40 else kind + 56]) + b"0" * (characters - 1)
    spare_bits = characters * 6 - wire.BITS_MIN[kind]
    assert wire.decode_bits(armour, spare_bits).msg_type == kind
    with pytest.raises(wire.Undecodable, match=f"type {kind} needs"):
        wire.decode_bits(armour[:-1], 0)


@pytest.mark.parametrize("kind", [0, *range(29, 64)])
def test_undefined_types_are_undecodable(kind: int) -> None:
    """pyais reads type 0 as 1; M.1371 has no type 0."""
    armour = bytes([kind + 48 if kind < 40 else kind + 56])
    with pytest.raises(wire.Undecodable, match=f"{kind} is not defined"):
        wire.decode_bits(armour + b"0" * 27, 0)


def test_csv_rows_may_span_lines() -> None:
    """As the gateway's reader counts them: a message is a row, not a line."""
    rows = wire.csv_rows(b'a,b\n1,"x\n\ny"\r\n\n2,z\n')
    assert rows == [b"a,b", b'1,"x\n\ny"\r', b"2,z"]
    assert [wire.csv_cells(row) for row in rows[1:]] == [["1", "x\n\ny"], ["2", "z"]]


@pytest.mark.parametrize("after", [3, 200])
def test_a_stray_quote_spoils_one_line(after: int) -> None:
    rows = wire.csv_rows(b'a\n"1\n' + b"2\n" * after)
    assert rows == [b"a", b'"1', *[b"2"] * after]


def test_part_b_of_message_24_needs_more_bits_than_part_a() -> None:
    """160 bits would cut the last dimension in half and still give a number."""
    part_a, part_b = b"H" + b"0" * 25, b"H000004" + b"0" * 19
    assert wire.decode_bits(part_a + b"0", 2).partno == 0
    with pytest.raises(wire.Undecodable, match="type 24 needs 162"):
        wire.decode_bits(part_b + b"0", 2)
    assert wire.decode_bits(part_b + b"0", 0).partno == 1
