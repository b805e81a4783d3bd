"""NMEA 0183 / AIS recordings: lines as received; what belongs together is never parted.

Kept in one record: the parts of one multipart message (also interleaved with others), and a
Gatehouse `$PGHP` line with the sentence it times. A message without any time gets a tag block
`\\c:EPOCH*hh\\` (NMEA 0183 4.10, 7.9.3) made from its place in the recording.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import xor
from pathlib import Path

from core.clock import MICROSECONDS, from_datetime, to_datetime
from domains.ports import wire
from gateways.batches import Limits, Record
from gateways.readers import DEFAULT_START_US
from gateways.readers.times import Shift

LIMITS = Limits(messages_max=500, bytes_max=128 * 1024)
GROUP_LINES_MAX = 64
"""Lines waited for the missing part of a message; past it the parts go as they are."""
STEP_US = MICROSECONDS
"""Made-up times are this far apart a line: tag blocks count whole seconds."""

TAGGED = re.compile(rb"\\(?P<tags>[^\\]*)\\(?P<body>.*)", re.DOTALL)
SENTENCE = re.compile(rb"![A-Z]{2}VD[MO],")
MULTIPART = re.compile(
    rb"!(?P<talker>[A-Z]{2}VD[MO]),(?P<count>[2-9]),(?P<part>[1-9]),(?P<id>\d*),"
)
TAG_TIME = re.compile(rb"(?<![^,])c:(?P<epoch>\d{10}(?:\d{3})?)(?!\d)")
TAG_TEXT = re.compile(rb"(?<![^,])T:\d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d")
TAG_GROUP = re.compile(rb"(?<![^,])g:\d+-\d+-(?P<id>\d+)")
TAIL = re.compile(rb"\*[0-9A-Fa-f]{2}(?P<tail>,.*)$")
TAIL_EPOCH = re.compile(rb"(?<=,)\d{9,10}(?=,|$)")
GATEHOUSE = re.compile(
    rb"\$PGHP,1,(\d{4}),(\d{1,2}),(\d{1,2}),(\d{1,2}),(\d{1,2}),(\d{1,2}),(\d{1,3}),([^*]*)\*"
)
GATEHOUSE_PREFIX = b"$PGHP,"
SECONDS_DIGITS = 10


def join(payloads: Sequence[bytes]) -> bytes:
    """Lines, each with a line feed."""
    return b"\n".join(payloads) + b"\n"


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """Records of whole messages; comments (`#`) and blank lines are dropped, other lines sent."""
    shift = Shift(start_us)
    made_up_us = DEFAULT_START_US if start_us is None else start_us
    group = _Group()
    number = 0
    for path in files:
        with path.open("rb") as file:
            for raw in file:
                number += 1
                line = raw.strip()
                if not line or line.startswith(b"#"):
                    continue
                group.add(_Line(line, made_up_us + number * STEP_US))
                if group.complete:
                    yield group.record(shift)
                    group = _Group()
        if group.lines:
            yield group.record(shift)
            group = _Group()


@dataclass(frozen=True, slots=True)
class _Line:
    """One line, and the time it gets when its message has none."""

    content: bytes
    made_up_us: int

    @property
    def tags(self) -> bytes:
        tagged = TAGGED.match(self.content)
        return tagged["tags"] if tagged else b""

    @property
    def body(self) -> bytes:
        tagged = TAGGED.match(self.content)
        return tagged["body"] if tagged else self.content

    @property
    def key(self) -> bytes | None:
        """Which multipart message the line is a part of: tag block group, or sequence id."""
        parts = MULTIPART.match(self.body)
        if parts is None:
            return None
        if grouped := TAG_GROUP.search(self.tags):
            return b"g" + grouped["id"]
        return b"%s,%s,%s" % (parts["talker"], parts["count"], parts["id"])

    @property
    def has_time(self) -> bool:
        if b"c:" in self.tags:
            return True
        tail = TAIL.search(self.body)
        return tail is not None and TAIL_EPOCH.search(tail["tail"]) is not None


@dataclass(slots=True)
class _Group:
    """Lines that must stay in one batch."""

    lines: list[_Line] = field(default_factory=list)
    missing: dict[bytes, set[bytes]] = field(default_factory=dict)
    awaits_sentence: bool = False

    def add(self, line: _Line) -> None:
        self.lines.append(line)
        self.awaits_sentence = line.content.startswith(GATEHOUSE_PREFIX)
        key, parts = line.key, MULTIPART.match(line.body)
        if key is None or parts is None:
            return
        every = {b"%d" % part for part in range(1, int(parts["count"]) + 1)}
        left = self.missing.setdefault(key, every)
        left.discard(parts["part"])
        if not left:
            del self.missing[key]

    @property
    def complete(self) -> bool:
        if len(self.lines) >= GROUP_LINES_MAX:
            return True
        return not self.awaits_sentence and not self.missing

    def record(self, shift: Shift) -> Record:
        """The lines as one record: recorded times moved, made-up ones where there is none."""
        timed = self._timed()
        out: list[bytes] = []
        time_us: int | None = None
        for index, line in enumerate(self.lines):
            untimed = SENTENCE.match(line.body) and _message(index, line) not in timed
            timed.add(_message(index, line))
            content, line_us = _with_time(line) if untimed else _moved(line, shift)
            out.append(content)
            time_us = time_us if time_us is not None else line_us
        payload = b"\n".join(out)
        return Record(payload, wire.count_messages(payload), time_us)

    def _timed(self) -> set[bytes | int]:
        """The messages one of whose lines has a time, or follows a Gatehouse line."""
        timed: set[bytes | int] = set()
        after_gatehouse = False
        for index, line in enumerate(self.lines):
            if line.has_time or after_gatehouse:
                timed.add(_message(index, line))
            after_gatehouse = _tells_time(line.content)
        return timed


def _message(index: int, line: _Line) -> bytes | int:
    """What names a message in its group: its parts' key, or the place of its only line."""
    return line.key or index


def _tells_time(content: bytes) -> bool:
    """Whether this is a Gatehouse line that the platform will believe: its checksum holds."""
    body, _, digits = content.partition(b"*")
    return content.startswith(GATEHOUSE_PREFIX) and digits == b"%02X" % _checksum(body[1:])


def _with_time(line: _Line) -> tuple[bytes, int | None]:
    """The line with its made-up time in a tag block, beside the tags it has."""
    stamp = b"c:%d" % (line.made_up_us // MICROSECONDS)
    tags = line.tags.rpartition(b"*")[0] or line.tags
    return _tagged(b",".join(filter(None, (tags, stamp))), line.body), line.made_up_us


def _moved(line: _Line, shift: Shift) -> tuple[bytes, int | None]:
    """The line with its times moved, and the (moved) time it holds."""
    if line.content.startswith(GATEHOUSE_PREFIX):
        return _moved_gatehouse(line.content, shift)
    found: list[int] = []

    def move_epoch(match: re.Match[bytes]) -> bytes:
        digits = match["epoch"] if "epoch" in match.re.groupindex else match[0]
        unit = MICROSECONDS if len(digits) <= SECONDS_DIGITS else 1000
        found.append(shift.move(int(digits) * unit))
        return match[0].replace(digits, b"%d" % (found[-1] // unit))

    tags, body = TAG_TIME.sub(move_epoch, line.tags), line.body
    if tail := TAIL.search(body):
        body = body[: tail.start("tail")] + TAIL_EPOCH.sub(move_epoch, tail["tail"])
    if not shift or not found:
        return line.content, found[0] if found else None
    text = to_datetime(found[0]).strftime("T:%Y-%m-%d %H.%M.%S").encode()
    tags = TAG_TEXT.sub(text, tags).rpartition(b"*")[0]
    return (_tagged(tags, body) if tags else body), found[0]


def _moved_gatehouse(content: bytes, shift: Shift) -> tuple[bytes, int | None]:
    match = GATEHOUSE.match(content)
    if match is None:
        return content, None
    *fields, rest = match.groups()
    try:
        moment = datetime(*(int(part) for part in fields[:6]), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        return content, None
    moved_us = shift.move(from_datetime(moment) + int(fields[6]) * 1000)
    if not shift:
        return content, moved_us
    moved = to_datetime(moved_us)
    numbers = (*moved.timetuple()[:6], moved.microsecond // 1000)
    text = b"PGHP,1," + ",".join(map(str, numbers)).encode() + b"," + rest
    return b"$%s*%02X" % (text, _checksum(text)), moved_us


def _tagged(tags: bytes, body: bytes) -> bytes:
    return b"\\%s*%02X\\%s" % (tags, _checksum(tags), body)


def _checksum(content: bytes) -> int:
    """NMEA 0183: XOR of the characters between the delimiters."""
    return reduce(xor, content, 0)
