"""SenML packs (RFC 8428): a file is one pack and one payload, since base fields carry on.

The two forms on the wire share this; senml_json and senml_cbor name the codec.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.clock import MICROSECONDS
from core.sector import Context
from core.sensorthings import Decoded
from gateways.batches import Limits, Record
from gateways.readers import DEFAULT_START_US

LIMITS = Limits(messages_max=1, bytes_max=256 * 1024)
RELATIVE_TIME_MAX = 2**28
"""RFC 8428, 4.5.3: a time below this is relative to now."""
VALUES = ("v", "vs", "vb", "vd", "s")


@dataclass(frozen=True, slots=True)
class Codec:
    """How a pack is coded, its labels (RFC 8428, tables 4, 5), and the platform's own reading."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    labels: Mapping[str, Any]
    resolve: Callable[[bytes, Context], Decoded]


def join(payloads: Sequence[bytes]) -> bytes:
    """Packs are not joined: every batch holds one."""
    return b"".join(payloads)


def read_packs(files: Sequence[Path], start_us: int | None, codec: Codec) -> Iterator[Record]:
    """One record a pack, counted by its resolved records; an unreadable pack is sent as it is."""
    for path in files:
        payload, time_us = path.read_bytes(), None
        if not payload:
            continue
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            pack = codec.decode(payload)
            time_us = first_time(pack, codec.labels)
            if start_us is not None and pack:
                move(pack, codec.labels, start_us, time_us)
                payload, time_us = codec.encode(pack), start_us
        # Which records resolve is the standard's business, decided in one place (core.formats).
        messages = codec.resolve(payload, Context("", DEFAULT_START_US)).messages
        yield Record(payload, messages, time_us, alone=True)


def first_time(records: Sequence[dict[Any, Any]], labels: Mapping[str, Any]) -> int | None:
    """Time of the first record with a value, µs since 1970; None where it is relative to now."""
    base = 0.0
    for record in records:
        base = record.get(labels["bt"], base)
        time = base + record.get(labels["t"], 0.0)
        if any(labels[name] in record for name in VALUES):
            return round(time * MICROSECONDS) if time >= RELATIVE_TIME_MAX else None
    return None


def move(
    records: Sequence[dict[Any, Any]],
    labels: Mapping[str, Any],
    start_us: int,
    first_us: int | None,
) -> None:
    """Move every time of a pack so that its first record falls on `start_us`."""
    delta = (start_us - (first_us or 0)) / MICROSECONDS
    if first_us is None or any(labels["bt"] in record for record in records):
        records[0].setdefault(labels["bt"], 0)
        for record in records:
            if labels["bt"] in record:
                record[labels["bt"]] += delta
        return
    for record in records:
        if record.get(labels["t"], 0) >= RELATIVE_TIME_MAX:
            record[labels["t"]] += delta
