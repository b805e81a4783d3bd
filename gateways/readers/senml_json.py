"""SenML in JSON (RFC 8428, 5): a file is one pack."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from core.formats import senml
from gateways.batches import Record
from gateways.readers.senml import LIMITS, VALUES, Codec, join, read_packs

__all__ = ["LIMITS", "join", "read"]

LABELS = {name: name for name in ("bt", "t", *VALUES)}
CODEC = Codec(orjson.loads, orjson.dumps, LABELS, senml.decode_json)


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record a pack; see `gateways.readers.senml`."""
    yield from read_packs(files, start_us, CODEC)
