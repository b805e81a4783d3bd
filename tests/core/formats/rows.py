"""Decoded column sets as plain rows, so that tests can compare them."""

from typing import Any

from core.sector import Context
from core.sensorthings import Decoded

NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
CONTEXT = Context(gateway="example", received_at=NOW)


def rows(decoded: Decoded) -> list[tuple[str, str, str | None, int, Any]]:
    """(thing, property, unit, µs, result) in the order of the columns."""
    found: list[tuple[str, str, str | None, int, Any]] = []
    for columns in (decoded.numbers, decoded.categories, decoded.documents):
        if columns is None:
            continue
        for index, time, result in zip(
            columns.stream, columns.phenomenon_time, columns.result, strict=True
        ):
            stream = decoded.streams[index]
            value = result if isinstance(result, str | bytes) else float(result)
            found.append((stream.thing, stream.property, stream.unit, int(time), value))
    if decoded.positions is not None:
        at = decoded.positions
        for row, (index, time) in enumerate(zip(at.stream, at.phenomenon_time, strict=True)):
            stream = decoded.streams[index]
            place = tuple(
                float(column[row]) for column in (at.longitude, at.latitude, at.speed, at.course)
            )
            found.append((stream.thing, stream.property, stream.unit, int(time), place))
    return found


def check_account(decoded: Decoded) -> None:
    """What holds for every decoder, whatever it was given."""
    assert decoded.messages >= decoded.unchanged >= 0
    assert decoded.messages >= len(decoded.rejected) or decoded.messages >= 1
    for rejected in decoded.rejected:
        assert rejected.reason
        assert rejected.reason == rejected.reason.lower()
        assert rejected.detail
    for columns in (decoded.numbers, decoded.categories, decoded.positions, decoded.documents):
        if columns is not None:
            assert len(columns.stream) == len(columns.phenomenon_time) > 0
            assert columns.stream.min() >= 0
            assert columns.stream.max() < len(decoded.streams)
    assert len(set(decoded.streams)) == len(decoded.streams)
