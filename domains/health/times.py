"""FHIR times as spans: a date is a day, a month thirty; and searches by date; pure.

A time without a zone is of Japan, where this platform's days begin. A span is [from, until), in µs
since 1970; `until` None: no end.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from core.clock import EPOCH, MICROSECONDS
from core.formats.checks import TIME_MAX
from domains.health.fhir import FhirError, fault

JAPAN = timezone(timedelta(hours=9))
FRACTION_DIGITS = 6
_TIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
_ENDED = "@.until != null && @.until"
_CONDITIONS = {
    "eq": f"@.from >= {{s0}} && {_ENDED} <= {{s1}}",
    "ne": f"!(@.from >= {{s0}} && {_ENDED} <= {{s1}})",
    "gt": "@.until == null || @.until > {s1}",
    "lt": "@.from < {s0}",
    "ge": "@.until == null || @.until > {s1} || @.from >= {s0}",
    "le": f"@.from < {{s0}} || ({_ENDED} <= {{s1}})",
    "sa": "@.from >= {s1}",
    "eb": f"{_ENDED} <= {{s0}}",
}
"""FHIR R4, 3.1.1.4.7, on half-open spans: S = [s0, s1) is asked for."""


class Span(NamedTuple):
    """From when until when, and how exactly its beginning is known, in µs."""

    start: int
    until: int | None
    precision: int


def span(text: str, where: str, *, exact: bool = True) -> Span:
    """The span that a text means; `exact`: with a time of day come seconds and a zone."""
    match = _TIME.fullmatch(text)
    if match is None or (exact and match[4] and not (match[6] and match[8])):
        raise fault("value", "is no date or time of FHIR", where)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        begin = datetime(year, month or 1, day or 1, hour, minute, second, tzinfo=_zone(match[8]))
        start = (begin - EPOCH) // timedelta(microseconds=1)
        length = _length(begin, month, day, match[4], match[6], match[7])
    except (ValueError, OverflowError) as error:
        raise fault("value", "is no date or time of FHIR", where) from error
    digits = (match[7] or "")[:FRACTION_DIGITS]
    start += int(digits.ljust(FRACTION_DIGITS, "0")) if digits else 0
    return Span(start, min(start + length, TIME_MAX + 1), length)


def _zone(text: str | None) -> timezone:
    if text in (None, "Z"):
        return JAPAN if text is None else UTC
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return timezone(timedelta(minutes=minutes if text[0] == "+" else -minutes))


def _length(
    begin: datetime, month: int, day: int, hour: str | None, second: str | None, digits: str | None
) -> int:
    if second:
        return int(10 ** max(FRACTION_DIGITS - len(digits or ""), 0))
    if hour:
        return 60 * MICROSECONDS
    if day:
        return 24 * 3600 * MICROSECONDS
    later = begin.replace(day=28) + timedelta(days=4) if month else begin.replace(month=12, day=31)
    ahead = later.replace(day=1) if month else later + timedelta(days=1)
    return (ahead - begin) // timedelta(microseconds=1)


def effective(resource: Mapping[str, Any]) -> Span | None:
    """When it was observed; None: it does not say. A Period ends with its end's last moment."""
    kind = str(resource.get("resourceType"))
    for name in ("effectiveDateTime", "effectiveInstant"):
        if name in resource:
            return span(resource[name], f"{kind}.{name}")
    if "effectivePeriod" in resource:
        return period(resource["effectivePeriod"], f"{kind}.effectivePeriod")
    if "effectiveTiming" in resource:
        events = resource["effectiveTiming"].get("event") or ()
        spans = [span(each or "", f"{kind}.effectiveTiming.event") for each in events]
        if not spans:
            raise fault("not-supported", "only a list of events", f"{kind}.effectiveTiming")
        first = min(spans)
        return Span(first.start, max(each.until or 0 for each in spans), first.precision)
    return None


def period(said: Mapping[str, Any], where: str) -> Span:
    """A Period: both of its ends belong to it, as exactly as they are written."""
    if "start" not in said:
        raise fault("required", "is missing: whose it is depends on it", f"{where}.start")
    start = span(said["start"], f"{where}.start")
    until = span(said["end"], f"{where}.end").until if "end" in said else None
    if until is not None and until <= start.start:
        raise fault("invariant", "per-1: it ends before it begins", where)
    return Span(start.start, until, start.precision)


def condition(text: str) -> str:
    """The jsonpath of one value of a `date` parameter: a prefix and a time."""
    prefix = text[:2] if text[:2].isalpha() else "eq"
    if prefix not in PREFIXES:
        raise fault("not-supported", f"date: one of {', '.join(PREFIXES)} before a time", "date")
    asked = text.removeprefix(prefix) if text[:2].isalpha() else text
    if " " in asked:
        raise fault("value", "date: send + as %2B", "date")
    try:
        bounds = span(asked, "date", exact=False)
    except FhirError as error:
        raise fault("value", "date: is no date or time", "date") from error
    said = _CONDITIONS[prefix].format(s0=bounds.start, s1=bounds.until)
    return f"(exists(@.from) && ({said}))"
