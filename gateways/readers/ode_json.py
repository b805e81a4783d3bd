"""US DOT ODE records (schema 6 to 9): JSON or NDJSON files, also the ODE's own test-case files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.errors import invalid
from gateways.batches import Limits, Record
from gateways.readers.json_documents import Document, documents, dumps
from gateways.readers.times import Shift, millisecond_of_minute, minute_of_year, parse

LIMITS = Limits(messages_max=50, bytes_max=256 * 1024)


def join(payloads: Sequence[bytes]) -> bytes:
    """NDJSON: one record a line."""
    return b"\n".join(payloads) + b"\n"


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record an ODE record; CityError `invalid` when times inside UPER would have to move."""
    shift = Shift(start_us)
    for path in files:
        for document in documents(path):
            for item in _items(document):
                yield _record(item, shift)


def _items(document: Document) -> Iterator[Document]:
    match document.value:
        case {"cases": [*cases]}:
            for case in cases:
                value = _of_case(case)
                yield Document(dumps(value), value)
        case [*values]:
            for value in values:
                yield Document(dumps(value), value)
        case _:
            yield document


def _of_case(case: Any) -> Any:
    """The ODE record of a test case: what is put in, or what comes out when that is the record."""
    if isinstance(case, dict):
        for key in ("input", "expected"):
            if isinstance(case.get(key), dict) and "metadata" in case[key]:
                return case[key]
    return case


def _record(item: Document, shift: Shift) -> Record:
    if not item.decodable:
        return Record(item.line, alone=True)
    metadata = item.value.get("metadata") if isinstance(item.value, dict) else None
    received = metadata.get("odeReceivedAt") if isinstance(metadata, dict) else None
    if not isinstance(received, str):
        return Record(item.line)
    if not shift:
        return Record(item.line, 1, parse(received))
    if _has_uper(item.value):
        raise invalid("start", "records with UPER inside keep their times: use --start recorded")
    return _moved(item.value, received, shift)


def _has_uper(record: dict[str, Any]) -> bool:
    return "asn1" in record["metadata"] or "bytes" in str(record.get("payload"))[:200]


def _moved(record: dict[str, Any], received: str, shift: Shift) -> Record:
    """The record as if received at another time; minute of the year and millisecond follow."""
    moved = shift.rewrite(received)
    time_us = parse(moved)
    record["metadata"]["odeReceivedAt"] = moved
    if time_us is not None:
        for state in _intersection_states(record):
            if state.get("moy") is not None:
                state["moy"] = minute_of_year(time_us)
            if state.get("timeStamp") is not None:
                state["timeStamp"] = millisecond_of_minute(time_us)
    return Record(dumps(record), 1, time_us)


def _intersection_states(record: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        states = record["payload"]["data"]["intersectionStateList"]["intersectionStatelist"]
    except (KeyError, TypeError):
        return []
    return [state for state in states if isinstance(state, dict)]
