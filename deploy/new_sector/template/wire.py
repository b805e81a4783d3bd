"""The native CSV of newsector stations, both ways: header `time,station,level,state`; pure.

A row is one reading. `time` is ISO 8601 with a zone, or empty: now. An empty `level` or `state`
was not measured. Replace this by the field's own standard, and say which clause each part follows.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

COLUMNS = ("time", "station", "level", "state")
ROW_CHARACTERS_MAX = 1_000
STATION_CHARACTERS_MAX = 255
YEARS = range(1970, 2200)


class WireError(ValueError):
    """A row that does not decode: `reason` is a slug, the message names the field and the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reading:
    """One row: `level` in metres; None where the row says nothing."""

    time: datetime | None
    station: str
    level: float | None
    state: str | None


def split(payload: bytes) -> Iterator[tuple[bytes, Reading | WireError]]:
    """Each row's bytes with its reading, or with why it has none; blank lines are no rows."""
    lines = payload.replace(b"\r\n", b"\n").split(b"\n")
    header = lines[0].decode("utf-8", "replace").lstrip("\ufeff").strip()
    if tuple(header.split(",")) != COLUMNS:
        yield lines[0], WireError("bad-header", f"the first line must be {','.join(COLUMNS)}")
        return
    for line in lines[1:]:
        if line.strip():
            try:
                yield line, decode_row(line)
            except WireError as error:
                yield line, error


def decode_row(line: bytes) -> Reading:
    """One row; WireError for one that is not UTF-8, too long, or has a bad field."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("invalid-record", f"byte {error.start} is not UTF-8") from error
    if len(text) > ROW_CHARACTERS_MAX:
        raise WireError("too-large", f"a row has at most {ROW_CHARACTERS_MAX} characters")
    try:
        cells = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise WireError("invalid-record", f"not a CSV row: {error}") from error
    if len(cells) != len(COLUMNS):
        raise WireError("invalid-record", f"{len(cells)} cells, not {len(COLUMNS)}")
    time, station, level, state = (cell.strip() for cell in cells)
    if not 0 < len(station) <= STATION_CHARACTERS_MAX or not station.isprintable():
        raise WireError("invalid-field", "station: 1 to 255 printable characters")
    if "/" in station:
        raise WireError("invalid-field", "station: no slash")
    return Reading(_time(time), station, _level(level), state or None)


def encode(readings: Iterable[Reading]) -> bytes:
    """The same format again: for simulators and tests."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for each in readings:
        time = "" if each.time is None else each.time.isoformat()
        level = "" if each.level is None else repr(each.level)
        rows.writerow((time, each.station, level, each.state or ""))
    return out.getvalue().encode()


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise WireError("invalid-time", f"time: {error}") from error
    if moment.tzinfo is None:
        raise WireError("invalid-time", "time: needs a zone, Z or an offset")
    if moment.year not in YEARS:
        raise WireError("invalid-time", f"time: year {moment.year} is not plausible")
    return moment


def _level(text: str) -> float | None:
    if not text:
        return None
    try:
        level = float(text)
    except ValueError as error:
        raise WireError("invalid-field", f"level: {text[:40]!r} is no number") from error
    if not math.isfinite(level):
        raise WireError("invalid-field", "level: must be finite")
    return level
