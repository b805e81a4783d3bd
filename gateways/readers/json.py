"""Plain JSON observations (docs/ingest.md): one document, an array of them, or one a line."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gateways.batches import Limits, Record
from gateways.readers.json_documents import documents, dumps
from gateways.readers.times import Shift, parse

LIMITS = Limits(messages_max=1_000, bytes_max=256 * 1024)
TIME_NAMES = ("phenomenon_time", "time")


def join(payloads: Sequence[bytes]) -> bytes:
    """A JSON array of observations; what is sent alone stands as it is."""
    return payloads[0] if len(payloads) == 1 else b"[" + b",".join(payloads) + b"]"


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record an observation; its time is moved where it is a text."""
    shift = Shift(start_us)
    for path in files:
        for document in documents(path):
            if not document.decodable:
                yield Record(document.line, alone=True)
                continue
            for value in _observations(document.value):
                yield _record(value, document.line if value is document.value else None, shift)


def _observations(value: object) -> Iterable[object]:
    """The observations of a document: itself, an array, or {"observations": [...]}."""
    match value:
        case [*values] | {"observations": [*values]}:
            return values
        case _:
            return (value,)


def _record(value: object, line: bytes | None, shift: Shift) -> Record:
    time_us: int | None = None
    if isinstance(value, dict):
        name = next((name for name in TIME_NAMES if isinstance(value.get(name), str)), None)
        if name is not None:
            if shift:
                value[name], line = shift.rewrite(value[name]), None
            time_us = parse(value[name])
    return Record(dumps(value) if line is None else line, 1, time_us)
