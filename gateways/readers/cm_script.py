"""Message scripts of jpo-conflictmonitor: lines of TYPE,offset_ms,JSON with placeholders for times.

The placeholders are filled from a start and the line's offset; sent as ode-json. TYPE may carry
more after a semicolon (`ProcessedSpat;ip;intersection`).
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core.clock import MICROSECONDS, to_iso
from gateways.batches import Limits, Record
from gateways.readers import DEFAULT_START_US
from gateways.readers.ode_json import join
from gateways.readers.times import MINUTE_US, millisecond_of_minute, minute_of_year

__all__ = ["LIMITS", "join", "read"]

LIMITS = Limits(messages_max=50, bytes_max=256 * 1024)
LINE = re.compile(rb"(?P<type>[^,]+),\s*(?P<offset>\d{1,12}),(?P<json>.*)", re.DOTALL)
PLACEHOLDER = re.compile(
    rb'(?P<open>"?)@(?P<name>[A-Z_]+?)(?:_(?P<number>-?\d+(?:\.\d+)?))?@(?P<close>"?)'
)


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record a script line; a line that is none is sent as it stands, to be rejected."""
    start = DEFAULT_START_US if start_us is None else start_us
    for path in files:
        with path.open("rb") as file:
            for raw in file:
                line = raw.strip()
                if line and not line.startswith(b"#"):
                    yield _record(line, start)


def _record(line: bytes, start_us: int) -> Record:
    parts = LINE.fullmatch(line)
    if parts is None:
        return Record(line, alone=True)
    time_us = start_us + int(parts["offset"]) * 1000
    return Record(fill(parts["json"], time_us), 1, time_us)


def fill(template: bytes, time_us: int) -> bytes:
    """The JSON with every known placeholder filled for this time; unknown ones are left."""

    def filled(found: re.Match[bytes]) -> bytes:
        value, is_number = _value(found["name"], found["number"], time_us)
        if value is None:
            return found[0]
        quoted = bool(found["open"] and found["close"])
        # "@MINUTE_OF_YEAR@" stands for a JSON number: its quotes go with the placeholder.
        return value if quoted and is_number else found["open"] + value + found["close"]

    return PLACEHOLDER.sub(filled, template)


def _value(name: bytes, number: bytes | None, time_us: int) -> tuple[bytes | None, bool]:
    """The text of a placeholder and whether it is a number; (None, False) for an unknown one."""
    if number is not None:
        if name != b"OFFSET_SECONDS":
            return None, False
        return to_iso(time_us + round(float(number) * MICROSECONDS)).encode(), False
    if name in TEXTS:
        return TEXTS[name](time_us).encode(), False
    return (b"%d" % NUMBERS[name](time_us), True) if name in NUMBERS else (None, False)


def _temporary_id(time_us: int) -> str:
    """A vehicle's temporary id (J2735 TemporaryID, four bytes), renewed every five minutes."""
    period = time_us // (5 * MINUTE_US)
    return hashlib.sha256(b"%d" % period).hexdigest()[:8].upper()


TEXTS: dict[bytes, Callable[[int], str]] = {b"ISO_DATE_TIME": to_iso, b"TEMP_ID": _temporary_id}
NUMBERS: dict[bytes, Callable[[int], int]] = {
    b"MINUTE_OF_YEAR": minute_of_year,
    b"MILLI_OF_MINUTE": millisecond_of_minute,
    b"EPOCH_SECONDS": lambda time_us: time_us // MICROSECONDS,
    b"EPOCH_MILLIS": lambda time_us: time_us // 1000,
}
