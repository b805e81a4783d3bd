"""SenML in CBOR (RFC 8428, 6): a file is one pack; labels are small integers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cbor2

from core.formats import senml
from gateways.batches import Record
from gateways.readers.senml import LIMITS, Codec, join, read_packs

__all__ = ["LIMITS", "join", "read"]

LABELS = {"bt": -3, "t": 6, "v": 2, "vs": 3, "vb": 4, "vd": 8, "s": 5}


def _decode(payload: bytes) -> Any:
    try:
        return cbor2.loads(payload)
    except cbor2.CBORDecodeError as error:
        raise ValueError("not CBOR") from error


CODEC = Codec(_decode, cbor2.dumps, LABELS, senml.decode_cbor)


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record a pack; see `gateways.readers.senml`."""
    yield from read_packs(files, start_us, CODEC)
