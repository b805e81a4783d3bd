"""AIS as NMEA 0183 lines, both ways: tag blocks, times, multipart, six-bit payloads; CSV rows.

Sources: NMEA 0183 / IEC 61162-1 (!--VDM, !--VDO), IEC 61162-450 (tag blocks), ITU-R M.1371-5
annex 8 (messages 1 to 27; 28 is of M.1371-6). Bits to fields is pyais; the line around them is
ours, because a bad line has to become a rejection with a reason, not an exception or a silent gap.
"""

import csv
import io
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pyais.bit_vector import bit_vector
from pyais.messages import MSG_CLASS

LINE_BYTES_MAX = 1024
_BYTE_BITS = 8
SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
METRES_A_SECOND_PER_KNOT = 1852 / 3600

# Epoch numbers from here on are milliseconds: as seconds it would be the year 5138.
_MILLISECONDS_FROM = 100_000_000_000
_EPOCH_SECONDS_MAX = 253_402_300_799  # 9999-12-31T23:59:59Z


class Sentence(NamedTuple):
    """One VDM or VDO line whose checksums are right.

    `item` is its number in the payload. `time_us` is µs since 1970 UTC where the line or its $PGHP
    names one. `group` is the tag block's sentence group, `source` the receiving station; b"": none.
    """

    item: int
    line: bytes
    time_us: int | None
    group: bytes
    source: bytes
    parts: int
    part: int
    sequence: bytes
    channel: bytes
    payload: bytes
    fill_bits: int


class Wrapper(NamedTuple):
    """A $PGHP line: it holds only the time of the sentence after it."""

    item: int
    line: bytes
    time_us: int


class Fault(NamedTuple):
    """A line that is none of these: why, as a slug and as a sentence."""

    item: int
    line: bytes
    reason: str
    detail: str


class Message(NamedTuple):
    """One whole AIS message: the lines it came in, its own time if any, its armoured bits."""

    sentences: tuple[Sentence, ...]
    time_us: int | None
    payload: bytes
    fill_bits: int


class Undecodable(ValueError):
    """The bits of a message are not what ITU-R M.1371 says they are."""


# ------------------------------------------------------------------------------
# Lines

_SENTENCE = re.compile(
    rb"((?:\\[^\\]*\\)*)"  # tag blocks
    rb"!([A-Z]{2}VD[MO],([1-9]),([1-9]),([0-9]?),([^,*]*),([0-W`-w]*),([0-5]))"
    rb"\*([0-9A-Fa-f]{2})"
    rb"(?:\s*|,(.*))"  # what the receiving network adds, as USCG's station and epoch seconds
)
_AIS_START = re.compile(rb"(?:\\[^\\]*\\)*![A-Z]{2}VD[MO],")
_EPOCH_TEXT = re.compile(rb"[0-9]{9,10}(?:\.[0-9]*)?")
_STATION = re.compile(rb"[rb][0-9A-Za-z_]+")
_CHECKED = re.compile(rb"!([^*!]*)\*([0-9A-Fa-f]{2})")
_GATEHOUSE = re.compile(rb"\$(PGHP,.*)\*([0-9A-Fa-f]{2})\s*")


def checksum(text: bytes) -> int:
    """XOR of all bytes, as NMEA 0183 has it; one integer folded, a loop is 5 times slower."""
    value = int.from_bytes(text, "big")
    half = 4
    while half < len(text):
        half *= 2
    bits = half * _BYTE_BITS
    while bits >= _BYTE_BITS:
        value ^= value >> bits
        bits //= 2
    return value & 0xFF


def is_message(line: bytes) -> bool:
    """Does this line count as a native message: anything but a blank line or a # comment."""
    text = line.strip()
    return bool(text) and not text.startswith(b"#")


def count_messages(payload: bytes) -> int:
    """Native messages in lines joined by LF: what a sender counts and `decode` must agree with."""
    return sum(map(is_message, payload.split(b"\n")))


def parts_of(line: bytes) -> tuple[int, int] | None:
    """(parts, part) of a VDM or VDO line, else None: a reader must not cut between parts."""
    found = _SENTENCE.fullmatch(line.strip())
    return (int(found[3]), int(found[4])) if found else None


def read(payload: bytes) -> Iterator[Sentence | Wrapper | Fault]:
    """Every native line of a payload, in order; never raises."""
    wrapped_time: int | None = None
    for item, raw in enumerate(filter(is_message, payload.split(b"\n"))):
        entry = read_line(item, raw.strip(), wrapped_time)
        wrapped_time = entry.time_us if isinstance(entry, Wrapper) else None
        yield entry


def read_line(item: int, line: bytes, wrapped_time: int | None) -> Sentence | Wrapper | Fault:
    """One line without its end; `wrapped_time` is what a $PGHP line before it said."""
    found = _SENTENCE.fullmatch(line) if len(line) <= LINE_BYTES_MAX else None
    if found is None:
        return _read_other(item, line)
    tags, body, parts, part, sequence, channel, payload, fill_bits, told, tail = found.groups()
    computed = checksum(body)
    if computed != int(told, 16):
        detail = f"checksum: the line says {told.decode()}, its text gives {computed:02X}"
        return Fault(item, line, "bad-checksum", detail)
    time_us, group, source = None, b"", b""
    if tags:
        tag_fault, time_us, group, source = _read_tags(tags)
        if tag_fault:
            return Fault(item, line, "bad-checksum", tag_fault)
    if tail:
        tail_time, tail_source = _read_tail(tail)
        time_us = time_us or tail_time
        source = source or tail_source
    if not payload:
        return Fault(item, line, "undecodable", "payload: empty")
    if part > parts:
        detail = f"part number: {part.decode()} of {parts.decode()}"
        return Fault(item, line, "undecodable", detail)
    return Sentence(
        item,
        line,
        wrapped_time if time_us is None else time_us,
        group,
        source,
        int(parts),
        int(part),
        sequence,
        channel,
        payload,
        int(fill_bits),
    )


def _read_other(item: int, line: bytes) -> Wrapper | Fault:
    """What is not a well-formed VDM or VDO sentence: a Gatehouse line, or why not."""
    if len(line) > LINE_BYTES_MAX:
        return Fault(item, line, "not-ais", f"line: longer than {LINE_BYTES_MAX} bytes")
    if _AIS_START.match(line):
        wrong = _wrong_checksum(_CHECKED.search(line))
        return Fault(
            item,
            line,
            "bad-checksum" if wrong else "undecodable",
            wrong or "sentence: its fields are not those of an IEC 61162-1 VDM",
        )
    found = _GATEHOUSE.fullmatch(line)
    if found is None:
        return Fault(item, line, "not-ais", "line: not a VDM or VDO sentence")
    wrong = _wrong_checksum(found)
    if wrong:
        return Fault(item, line, "bad-checksum", wrong)
    time_us = _gatehouse_time(found[1])
    if time_us is None:
        return Fault(item, line, "undecodable", "time: not the seven numbers of a $PGHP line")
    return Wrapper(item, line, time_us)


def _wrong_checksum(found: re.Match[bytes] | None) -> str:
    """What is wrong with (text, two hex digits), or nothing."""
    if found is None:
        return "checksum: none at the end of the sentence"
    computed = checksum(found[1])
    if computed == int(found[2], 16):
        return ""
    return f"checksum: the line says {found[2].decode()}, its text gives {computed:02X}"


def _gatehouse_time(body: bytes) -> int | None:
    """$PGHP,1,year,month,day,hour,minute,second,millisecond,... as µs since 1970 UTC."""
    try:
        *calendar_time, millisecond = map(int, body.split(b",")[2:9])
        year, month, day, hour, minute, second = calendar_time
        moment = datetime(year, month, day, hour, minute, second, millisecond * 1000, UTC)
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _epoch_us(text: bytes) -> int | None:
    """Seconds (or milliseconds) since 1970 as µs; None for what is neither."""
    try:
        value = float(text) if b"." in text else int(text)
    except ValueError:
        return None
    if value >= _MILLISECONDS_FROM:
        value = value / 1000
    return round(value * SECOND) if 0 < value <= _EPOCH_SECONDS_MAX else None


def _read_tags(tags: bytes) -> tuple[str, int | None, bytes, bytes]:
    """IEC 61162-450 tag blocks: (fault or "", time c:, group id of g:, source s:).

    A block whose own checksum is wrong is a fault of the line: its time cannot be believed, and
    storing the sentence under the receiver's clock instead would put it into the wrong history.
    """
    time_us, group, source = None, b"", b""
    for block in tags.split(b"\\"):
        if not block:
            continue
        fields, star, told = block.rpartition(b"*")
        if not star or not re.fullmatch(rb"[0-9A-Fa-f]{1,2}", told):
            return "tag block: it has no checksum", None, b"", b""
        if checksum(fields) != int(told, 16):
            computed = f"{checksum(fields):02X}"
            detail = f"tag block checksum: it says {told.decode()}, its text gives {computed}"
            return detail, None, b"", b""
        for field in fields.split(b","):
            code, _, value = field.partition(b":")
            if code == b"c":
                time_us = _epoch_us(value)
            elif code == b"g":
                group = value.rpartition(b"-")[2]
            elif code == b"s":
                source = value
    return "", time_us, group, source


def _read_tail(tail: bytes) -> tuple[int | None, bytes]:
    """What USCG's network appends: the station and, last, the receiver's epoch seconds."""
    fields = tail.split(b",")
    last = fields[-1].strip()
    time_us = _epoch_us(last) if _EPOCH_TEXT.fullmatch(last) else None
    source = next((field for field in fields if _STATION.fullmatch(field)), b"")
    return time_us, source


# ------------------------------------------------------------------------------
# Multipart

_GROUPS_MAX = 1_000
_REORDER_LINES_MAX = 8
_LINES_APART_MAX = 500
_SECONDS_APART_MAX = 30


class _Group:
    """Parts of one message that have come; `done` once whole, kept a while for repeated lines."""

    __slots__ = ("arrived_us", "counter", "done", "extra", "first_came_first", "parts")

    def __init__(self, sentence: Sentence, arrived_us: int, counter: int) -> None:
        self.parts: dict[int, Sentence] = {}
        self.extra: list[Sentence] = []
        self.arrived_us = arrived_us
        self.counter = counter
        self.done = False
        self.first_came_first = sentence.part == 1

    def lines(self) -> list[Sentence]:
        """Every line that the group answers for."""
        return [*(self.parts[number] for number in sorted(self.parts)), *self.extra]


class Assembler:
    """Puts multipart messages together; bounded, and every part leaves it exactly once.

    Parts belong together by the tag block's group, else by source, channel, sequence id and number
    of parts. A part that cannot belong to what is open (its place is taken by another text, too
    many lines or seconds away) begins a new message, and the old one's parts are given up.
    `reorder` lets a later part come before the first.
    """

    def __init__(self, *, reorder: bool) -> None:
        self._groups: dict[tuple[Any, ...], _Group] = {}
        self._counter = 0
        self._reorder = reorder

    def add(
        self, sentence: Sentence, scope: str = "", arrived_us: int = 0
    ) -> tuple[Message | None, list[Sentence]]:
        """Take one part: (the message if it is whole now, parts given up because of it)."""
        self._counter += 1
        key = self._key(sentence, scope)
        group = self._groups.get(key)
        given_up: list[Sentence] = []
        if group is not None and not self._fits(group, sentence):
            given_up = self._drop(key)
            group = None
        if group is None:
            if sentence.part != 1 and not (self._reorder or sentence.group):
                return None, [*given_up, sentence]
            group = self._groups[key] = _Group(sentence, arrived_us, self._counter)
            if len(self._groups) > _GROUPS_MAX:
                given_up += self._drop(next(iter(self._groups)))
        return self._place(group, sentence), given_up

    def expire(self, before_us: int) -> list[Sentence]:
        """Parts of messages that began to arrive before this time and are still not whole."""
        old = [key for key, group in self._groups.items() if group.arrived_us < before_us]
        return [sentence for key in old for sentence in self._drop(key)]

    def flush(self) -> list[Sentence]:
        """All parts that still wait."""
        return [sentence for key in list(self._groups) for sentence in self._drop(key)]

    def _key(self, sentence: Sentence, scope: str) -> tuple[Any, ...]:
        if sentence.group:
            return (scope, sentence.group, sentence.sequence, sentence.parts)
        key = (scope, sentence.source, sentence.channel, sentence.sequence, sentence.parts)
        if sentence.part == 1 or sentence.source or key in self._groups:
            return key
        # Some receivers tag only the first line: the newest open message of that sequence id it is.
        for other in reversed(self._groups):
            if other[0] == scope and other[2:] == key[2:] and not self._groups[other].done:
                return other
        return key

    def _fits(self, group: _Group, sentence: Sentence) -> bool:
        taken = group.parts.get(sentence.part)
        if taken is not None:
            return taken.line == sentence.line
        begun = next(iter(group.parts.values()))
        if begun.time_us is not None and sentence.time_us is not None:
            apart_us = abs(begun.time_us - sentence.time_us)
            if apart_us > _SECONDS_APART_MAX * SECOND:
                return False
        lines_max = _LINES_APART_MAX if group.first_came_first else _REORDER_LINES_MAX
        return self._counter - group.counter <= lines_max or bool(sentence.group)

    def _place(self, group: _Group, sentence: Sentence) -> Message | None:
        if sentence.part in group.parts:
            # The same line again. Once the message is whole it is given out again (storage knows it
            # for a duplicate): a redelivered last part must never find its message gone.
            if group.done:
                return self._message(group, (sentence,))
            group.extra.append(sentence)
            return None
        group.parts[sentence.part] = sentence
        if len(group.parts) < sentence.parts:
            return None
        group.done = True
        return self._message(group, tuple(group.lines()))

    @staticmethod
    def _message(group: _Group, lines: tuple[Sentence, ...]) -> Message:
        parts = [group.parts[number] for number in sorted(group.parts)]
        times = [part.time_us for part in parts if part.time_us is not None]
        return Message(
            lines,
            times[0] if times else None,
            b"".join(part.payload for part in parts),
            parts[-1].fill_bits,
        )

    def _drop(self, key: tuple[Any, ...]) -> list[Sentence]:
        group = self._groups.pop(key)
        return [] if group.done else group.lines()


# ------------------------------------------------------------------------------
# Bits

# The least bits with which every field that is read is whole (M.1371-5 annex 8, table 46 on).
BITS_MIN = {
    1: 143, 2: 143, 3: 143, 4: 134, 5: 422, 6: 88, 7: 72, 8: 56, 9: 134, 10: 70, 11: 134, 12: 72,
    13: 72, 14: 40, 15: 76, 16: 92, 17: 80, 18: 139, 19: 301, 20: 70, 21: 260, 22: 139, 23: 140,
    24: 160, 25: 40, 26: 40, 27: 95, 28: 101,
}  # fmt: skip

# Message 24 part A ends at 160 bits, part B's dimensions at 162 (tables 76, 77).
_STATIC_REPORT, _PART_B, _PART_B_BITS_MIN = 24, 1, 162


def decode_bits(payload: bytes, fill_bits: int) -> Any:
    """The fields of one message as pyais's object of that type; Undecodable says what is wrong."""
    bits = bit_vector(payload, fill_bits)
    kind = bits.get(0, 6)
    least = BITS_MIN.get(kind)
    if kind == _STATIC_REPORT and bits.get(38, 2) == _PART_B:
        least = _PART_B_BITS_MIN
    if least is None:
        raise Undecodable(f"message type: {kind} is not defined by ITU-R M.1371")
    if len(bits) < least:
        raise Undecodable(f"payload: type {kind} needs {least} bits, there are {len(bits)}")
    try:
        return MSG_CLASS[kind].from_vector(bits)
    except Exception as error:  # pyais raises whatever a binary payload makes it meet
        raise Undecodable(f"payload: type {kind} cannot be read ({error})") from error


def fields_of(message: Any) -> dict[str, Any]:
    """A message as a plain dict for JSON: bytes as hex, enumerations as numbers."""
    return {
        name: plain
        for name, value in message.asdict(enum_as_int=True).items()
        if (plain := _plain(value)) is not None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool):
        return value
    # pyais's enumerations are subclasses of these, and a JSON writer wants the plain ones.
    return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), str(value))


def text_of(text: str | None) -> str:
    """A six-bit text as M.1371 means it: it ends at the first @, blanks around it are padding."""
    return (text or "").partition("@")[0].strip()


# ------------------------------------------------------------------------------
# CSV (RFC 4180)

ROW_LINES_MAX = 64


def csv_rows(payload: bytes) -> list[bytes]:
    """The rows of a CSV text, header first, without blank ones.

    A quoted cell may span lines. A quote that stays open for more than 64 lines, or to the end, is
    taken for a stray one, so that it spoils its own line and not all that follow.
    """
    rows: list[bytes] = []
    pending: list[bytes] = []
    quotes = 0
    for line in payload.split(b"\n"):
        if not pending and not line.strip():
            continue
        pending.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            rows.append(b"\n".join(pending))
        elif len(pending) > ROW_LINES_MAX:
            rows += pending
        else:
            continue
        pending, quotes = [], 0
    return [*rows, *(line for line in pending if line.strip())]


def csv_cells(row: bytes) -> list[str]:
    """The cells of one row; Undecodable for a NUL byte and for what the csv module refuses."""
    if b"\0" in row:
        raise Undecodable("it holds a NUL byte")
    text = row.decode("utf-8-sig", "replace").rstrip("\r")
    try:
        return next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error as error:
        raise Undecodable(str(error)) from error


# ------------------------------------------------------------------------------
# Encoding

_PAYLOAD_CHARACTERS_MAX = 56
_ARMOUR = bytes(value + 48 if value < 40 else value + 56 for value in range(64))  # noqa: PLR2004


def position_report(
    mmsi: int,
    longitude: float | None,
    latitude: float | None,
    *,
    speed_knots: float | None,
    course: float | None,
    heading: float | None,
    status: int,
    moment_us: int,
    rate_of_turn: float | None = None,
    channel: str = "A",
) -> str:
    """A class A position report (message 1) as one line with its time in a tag block.

    Degrees WGS 84 and true, degrees a minute; None: not available. `status` is 0 to 15 of M.1371-5
    table 45.
    """
    turn = -128 if rate_of_turn is None else _indicated_turn(rate_of_turn)
    bits = _pack(
        (6, 1),
        (2, 0),
        (30, mmsi),
        (4, status),
        (8, turn),
        (10, 1023 if speed_knots is None else min(1022, round(speed_knots * 10))),
        (1, 0),
        (28, round((181 if longitude is None else longitude) * 600_000)),
        (27, round((91 if latitude is None else latitude) * 600_000)),
        (12, 3600 if course is None else round(course * 10) % 3600),
        (9, 511 if heading is None else round(heading) % 360),
        (6, moment_us // SECOND % 60),
        (2 + 3 + 1 + 19, 0),
    )
    return _lines(bits, channel, 0, moment_us)[0]


def static_report(
    mmsi: int,
    name: str,
    *,
    callsign: str = "",
    imo: int = 0,
    ship_type: int = 0,
    dimensions: tuple[int, int, int, int] = (0, 0, 0, 0),
    draught: float = 0.0,
    destination: str = "",
    eta: tuple[int, int, int, int] = (0, 0, 24, 60),
    moment_us: int,
    sequence: int = 0,
    channel: str = "A",
) -> list[str]:
    """Static and voyage data (message 5) as two grouped lines with their time in a tag block.

    `dimensions` are metres from the antenna to bow, stern, port, starboard; `eta` is (month, day,
    hour, minute) UTC, the default being "not available"; `sequence`, 0 to 9, should differ from
    that of the last message.
    """
    bits = _pack(
        (6, 5),
        (2, 0),
        (30, mmsi),
        (2, 2),
        (30, imo),
        (42, _six_bit(callsign, 7)),
        (120, _six_bit(name, 20)),
        (8, ship_type),
        *zip((9, 9, 6, 6), map(min, dimensions, (511, 511, 63, 63)), strict=True),
        (4, 1),
        *zip((4, 5, 5, 6), eta, strict=True),
        (8, min(255, round(draught * 10))),
        (120, _six_bit(destination, 20)),
        (2, 0),
    )
    return _lines(bits, channel, sequence, moment_us)


def tag_block(line: str, fields: str) -> str:
    r"""The line with an IEC 61162-450 tag block before it: \fields*hh\line."""
    return f"\\{fields}*{checksum(fields.encode()):02X}\\{line}"


def _indicated_turn(degrees_a_minute: float) -> int:
    """ROT_AIS = 4.733 * sqrt(rate), 126 at most (M.1371-5 table 48)."""
    size = min(126, round(4.733 * math.sqrt(abs(degrees_a_minute))))
    return size if degrees_a_minute >= 0 else -size


def _pack(*fields: tuple[int, int]) -> tuple[int, int]:
    """(width, value) fields, first is highest, as (bits, how many); two's complement."""
    value = length = 0
    for width, number in fields:
        value = (value << width) | (number & ((1 << width) - 1))
        length += width
    return value, length


def _six_bit(text: str, characters: int) -> int:
    """Six-bit ASCII padded with @; what it cannot write becomes a blank."""
    value = 0
    for character in text.upper()[:characters].ljust(characters, "@"):
        code = ord(character) if " " <= character <= "_" else ord(" ")
        value = (value << 6) | (code & 63)
    return value


def _lines(bits: tuple[int, int], channel: str, sequence: int, moment_us: int) -> list[str]:
    """Armoured VDM lines, grouped by tag block where there are several."""
    value, length = bits
    fill_bits = -length % 6
    value <<= fill_bits
    armoured = bytes(
        _ARMOUR[(value >> shift) & 63] for shift in range(length + fill_bits - 6, -1, -6)
    ).decode()
    size = _PAYLOAD_CHARACTERS_MAX
    chunks = [armoured[at : at + size] for at in range(0, len(armoured), size)]
    moment = _tag_time(moment_us)
    if len(chunks) == 1:
        return [tag_block(_vdm(f"1,1,,{channel},{armoured},{fill_bits}"), f"c:{moment}")]
    count = len(chunks)
    mmsi = value >> (length + fill_bits - 38) & 0x3FFFFFFF
    group = mmsi % 10_000 * 10 + sequence
    return [
        tag_block(
            _vdm(f"{count},{at},{sequence},{channel},{chunk},{fill_bits if at == count else 0}"),
            f"g:{at}-{count}-{group}" + (f",c:{moment}" if at == 1 else ""),
        )
        for at, chunk in enumerate(chunks, 1)
    ]


def _tag_time(moment_us: int) -> int:
    """c: is whole seconds, or milliseconds where the time is not whole seconds."""
    seconds, rest = divmod(moment_us, SECOND)
    return moment_us // 1000 if rest else seconds


def _vdm(fields: str) -> str:
    body = f"AIVDM,{fields}"
    return f"!{body}*{checksum(body.encode()):02X}"
