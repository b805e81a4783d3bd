"""Readers: one file a file format; each turns recordings into native records, decoding little.

A reader module has `LIMITS` (where its batches are cut), `read(files, start_us)` and
`join(payloads)`. `start_us` is None to keep recorded times, else the first recorded time is moved
there and the others with it; times that a recording lacks are made from DEFAULT_START_US, so that
a second replay sends the same bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from core.errors import invalid
from gateways.batches import Limits, Record

DEFAULT_START_US = 1_704_067_200_000_000
"""2024-01-01T00:00:00Z: where placeholders and records without any time begin."""


class Reader(Protocol):
    """What a module of this package offers."""

    LIMITS: Limits

    def read(self, files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
        """The records of the files, in order; CityError `invalid` for an unreadable file."""
        ...

    def join(self, payloads: Sequence[bytes]) -> bytes:
        """Several records as one payload of the wire format."""
        ...


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A row of FILE_FORMATS: which module reads it and what it is called on the wire."""

    module: str
    wire_format: str

    def reader(self) -> Reader:
        """The module, imported on first use: some of them need heavy libraries."""
        return cast(Reader, import_module(f"gateways.readers.{self.module}"))


FILE_FORMATS = {
    "arrow": FileFormat("arrow", "arrow"),
    "cm-script": FileFormat("cm_script", "ode-json"),
    "csv": FileFormat("csv", "csv"),
    "j2735": FileFormat("j2735", "j2735"),
    "json": FileFormat("json", "json"),
    "lorawan": FileFormat("lorawan", "lorawan"),
    "nmea": FileFormat("nmea", "nmea"),
    "ode-json": FileFormat("ode_json", "ode-json"),
    "senml-cbor": FileFormat("senml_cbor", "senml-cbor"),
    "senml-json": FileFormat("senml_json", "senml-json"),
}


def file_format(name: str) -> FileFormat:
    """The row of a format name; CityError `invalid` that lists what there is."""
    if name not in FILE_FORMATS:
        raise invalid("format", f"{name!r} is not one of {', '.join(FILE_FORMATS)}")
    return FILE_FORMATS[name]
