"""CSV tables of measurements: headers with units, gaps, numbers and times as loggers write them."""

import csv
import math
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from core.clock import MICROSECONDS, from_datetime
from core.formats.checks import time_fault
from core.units import is_ucum

ROWS_MAX = 500_000
COLUMNS_MAX = 512
HEADED_BYTES_MAX = 1024 * 1024
GAPS = frozenset({"", "-", "--", "na", "n/a", "nan", "null", "none", "nil", "#n/a", "missing"})

# Spellings of units in headers and unit columns -> UCUM; anything else must be UCUM itself.
UNIT_SPELLINGS = {
    "dbm": "dB{mW}", "db": "dB", "dbw": "dB[W]",
    "bps": "bit/s", "bit/s": "bit/s", "bits/s": "bit/s",
    "kbps": "kbit/s", "kbit/s": "kbit/s", "kb/s": "kbit/s",
    "mbps": "Mbit/s", "mbit/s": "Mbit/s", "mb/s": "Mbit/s", "mbits/s": "Mbit/s",
    "gbps": "Gbit/s", "gbit/s": "Gbit/s",
    "bytes": "By", "byte": "By", "kbytes": "kBy", "mbytes": "MBy",
    "mhz": "MHz", "khz": "kHz", "hz": "Hz", "ghz": "GHz",
    "msec": "ms", "sec": "s", "seconds": "s", "milliseconds": "ms",
    "c": "Cel", "°c": "Cel", "℃": "Cel", "degc": "Cel", "deg c": "Cel", "deg. c": "Cel",
    "celsius": "Cel", "°f": "[degF]", "deg f": "[degF]", "degf": "[degF]",
    "°": "deg", "degree": "deg", "degrees": "deg", "degrees true": "deg",
    "percent": "%", "pct": "%", "%rh": "%", "% vwc": "%", "m³/m³": "m3/m3", "m3 m-3": "m3/m3",
    "mm/day": "mm/d", "mm d-1": "mm/d", "mm/hr": "mm/h",
    "m.s-1": "m/s", "m s-1": "m/s", "kmh": "km/h", "kph": "km/h",
    "w.m-2": "W/m2", "w m-2": "W/m2", "w/m²": "W/m2", "w/m^2": "W/m2",
    "mj/m²": "MJ/m2", "kg.kg-1": "kg/kg", "kg kg-1": "kg/kg",
    "µs/cm": "uS/cm", "μs/cm": "uS/cm", "us/cm": "uS/cm", "ms/cm": "mS/cm", "ds/m": "dS/m",
    "mbar": "hPa", "hpa": "hPa", "kpa": "kPa", "pa": "Pa",
    "volt": "V", "volts": "V", "v": "V", "lux": "lx", "ph": "[pH]", "ppm": "[ppm]",
}  # fmt: skip

_UNIT_IN_HEADER = re.compile(r"\s*[(\[]([^()\[\]]*)[)\]]\s*$")
_ZONES = {"UTC": 0, "GMT": 0, "Z": 0, "JST": 9}
# date(1) in the C locale: Wed Dec 15 16:04:38 UTC 2021
_DATE_COMMAND = re.compile(r"\w{3} (\w{3}) +(\d{1,2}) (\d\d):(\d\d):(\d\d) (\w+) (\d{4})", re.ASCII)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LOOSE = re.compile(
    r"(\d{4})[-./](\d{1,2})[-./](\d{1,2})"
    r"(?:[ T_](\d{1,2})[:.](\d\d)(?:[:.](\d\d)(?:\.(\d{1,6}))?)?)?",
    re.ASCII,
)
# Bare numbers are seconds, ms or µs since 1970, by their size: 2001 to 2286 in each.
_EPOCHS = ((10**9, 10**10, MICROSECONDS), (10**12, 10**13, 1000), (10**15, 10**16, 1))


class TableError(ValueError):
    """The table as a whole cannot be read; `reason` is the rejection's slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Header(NamedTuple):
    """A column: its text, its name without the unit as a slug, the unit as text and in UCUM."""

    text: str
    slug: str
    unit_text: str
    unit: str | None


class Row(NamedTuple):
    """A data row: its number from 0, its cells, and why it cannot be read (empty: it can)."""

    number: int
    cells: list[str]
    fault: str


class Headed:
    """Rows under their header, so that one alone can be mended and taken in.

    Not without end: a payload would become as many times its size as it has rows.
    """

    def __init__(self, header: bytes) -> None:
        self._header = header + b"\n"
        self._left = HEADED_BYTES_MAX

    def row(self, line: bytes) -> tuple[bytes, str | None]:
        """What is kept of a row that is rejected, and as what (see Rejected.format)."""
        self._left -= len(self._header)
        return (line, None) if self._left < 0 else (self._header + line, "")


class Table(NamedTuple):
    """A header and its rows, read as they are asked for."""

    headers: list[Header]
    rows: Iterator[Row]
    separator: str
    headed: Headed

    def rejected(self, row: Row) -> tuple[bytes, str | None]:
        """What is kept of a row that is rejected, and as what (see Rejected.format)."""
        return self.headed.row(_line(row.cells, self.separator))


def _line(cells: list[str], separator: str) -> bytes:
    return _joined(cells, separator).encode("utf-8", "replace")


def _joined(cells: list[str], separator: str) -> str:
    return separator.join(
        '"' + cell.replace('"', '""') + '"' if any(c in cell for c in f'{separator}"\n\r') else cell
        for cell in cells
    )


def read(payload: bytes) -> Table:
    """Read the header line; TableError where there is none, or where it cannot be one."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Loggers on Windows write the degree sign in one byte; every byte is a character there.
        text = payload.decode("latin-1")
    lines = iter(text.replace("\0", "\ufffd").splitlines(keepends=True))
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise TableError("empty", "header: there is no line")
    separator = max(",;\t", key=first.count)
    try:
        texts = next(csv.reader([first], delimiter=separator, strict=True))
    except (csv.Error, StopIteration) as error:
        raise TableError("bad-header", f"header: {error}") from error
    if len(texts) > COLUMNS_MAX:
        raise TableError("bad-header", f"header: over {COLUMNS_MAX} columns")
    headers = [header_of(name) for name in texts]
    headed = Headed(_line(texts, separator))
    return Table(headers, _rows(lines, separator, len(headers)), separator, headed)


def _rows(lines: Iterator[str], separator: str, width: int) -> Iterator[Row]:
    reader = csv.reader(lines, delimiter=separator)
    number = 0
    while number < ROWS_MAX:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, [], f"row: {error}")
            number += 1
            continue
        if len(cells) <= 1 and not any(cell.strip() for cell in cells):
            continue  # a blank line is no row; a row of empty cells is
        fault = "" if len(cells) == width else f"row: {len(cells)} cells under {width} headers"
        yield Row(number, cells, fault)
        number += 1
    rest = sum(1 for _ in lines)
    if rest:
        yield Row(number, [], f"row: over {ROWS_MAX} rows; {rest} lines were not read")


def header_of(text: str) -> Header:
    """`Air temperature (°C)` -> slug air-temperature, unit Cel."""
    found = _UNIT_IN_HEADER.search(text)
    # "(liquid equivalent, mm)": what comes last is the unit.
    unit_text = found[1].rpartition(",")[2].strip() if found else ""
    name = text[: found.start()] if found else text
    return Header(text.strip(), slug(name), unit_text, unit_of(unit_text) if unit_text else None)


def slug(text: str) -> str:
    """Lower-case letters and digits of any script, joined by hyphens; at most 80 characters."""
    plain = unicodedata.normalize("NFKC", text).lower()
    words = re.sub(r"[^\w.]+|_+", "-", plain).strip("-.")
    return "".join(c for c in words if c.isprintable())[:80].strip("-.")


def unit_of(text: str) -> str | None:
    """UCUM for a unit as loggers spell it, or None."""
    plain = text.strip()
    known = UNIT_SPELLINGS.get(plain.lower())
    # MS/cm and ms/cm differ by nine powers of ten: only spellings of the table ignore case.
    if known is not None:
        return known
    return plain if is_ucum(plain) else None


def number(text: str, separator: str = ",") -> float | None:
    """A cell's number; None for a gap; ValueError for anything else."""
    plain = text.strip()
    if plain.lower() in GAPS:
        return None
    if separator == ";" and "," in plain and "." not in plain:
        plain = plain.replace(",", ".")
    if "_" in plain or not plain.isascii():
        raise ValueError(f"{text[:40]!r} is not a number")
    try:
        value = float(plain)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is not finite")
    return value


def moment(text: str) -> int:
    """A cell's time as µs since 1970 UTC; ValueError where it is none.

    ISO 8601; date(1)'s text; dates with dots or slashes, year first; seconds, ms or µs since 1970.
    A time without a zone is taken as UTC, a date as its midnight UTC: a recording seldom says, and
    a fixed rule keeps a second replay from storing the same rows at other times.
    """
    plain = text.strip()
    found = _read_time(plain)
    if found is None or time_fault(found) is not None:
        raise ValueError(f"{text[:40]!r} is not a time")
    return found


def moment_of(date: str, clock: str) -> int:
    """As moment(), of a row with a date column, a time column (which may hold both), or both."""
    if not (date and clock):
        return moment(date or clock)
    try:
        return moment(clock)
    except ValueError:
        return moment(f"{date.strip()} {clock.strip()}")


def _read_time(plain: str) -> int | None:
    if re.fullmatch(r"\d+(\.\d+)?", plain, re.ASCII):
        return _epoch(plain)
    try:
        read = datetime.fromisoformat(plain)
    except ValueError:
        return _loose(plain)
    return from_datetime(read if read.tzinfo is not None else read.replace(tzinfo=UTC))


def _epoch(plain: str) -> int | None:
    if len(plain) == 8 and plain.isdigit():  # noqa: PLR2004 - YYYYMMDD
        try:
            return from_datetime(datetime.strptime(plain, "%Y%m%d").replace(tzinfo=UTC))
        except ValueError:
            return None
    value = float(plain)
    for low, high, factor in _EPOCHS:
        if low <= value < high:
            return round(value * factor)
    return None


def _loose(plain: str) -> int | None:
    try:
        said = _DATE_COMMAND.fullmatch(plain)
        if said is not None:
            month, day, hour, minute, second, zone, year = said.groups()
            offset = timezone(timedelta(hours=_ZONES[zone.upper()]))
            numbers = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute))
            return from_datetime(datetime(*numbers, int(second), tzinfo=offset))
        loose = _LOOSE.fullmatch(plain)
        if loose is None:
            return None
        *parts, fraction = loose.groups()
        year, month, day, hour, minute, second = (int(part or 0) for part in parts)
        micro = int((fraction or "0").ljust(6, "0"))
        return from_datetime(datetime(year, month, day, hour, minute, second, micro, tzinfo=UTC))
    except (ValueError, KeyError):
        return None
