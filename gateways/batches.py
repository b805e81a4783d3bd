"""Batches: records cut by content alone, so that the same recording makes the same batches."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CUT_VERSION = "2"
"""Part of every boot: raise it when readers or limits change, or old and new would clash."""

HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One native record, or several that must not be parted (the parts of one AIS message).

    `messages` counts native messages as the platform's account does. `time_us` is when it was
    recorded (µs since 1970 UTC) where it says so. `prefix` opens every batch that holds the record
    (a CSV header). `alone`: may share a batch with nothing (malformed, or not to be concatenated).
    """

    payload: bytes
    messages: int = 1
    time_us: int | None = None
    prefix: bytes = b""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a batch is cut: what comes first. A record over the limits is a batch of its own."""

    messages_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent, stored and acknowledged as one; known by (gateway, boot, seq)."""

    sector: str
    format: str
    boot: str
    seq: int
    payload: bytes
    messages: int
    time_us: int | None = None


Join = Callable[[Sequence[bytes]], bytes]


def cut(records: Iterable[Record], limits: Limits) -> Iterator[list[Record]]:
    """Group records into batches by count and bytes; never by time, rate or what is in flight."""
    group: list[Record] = []
    messages = size = 0
    for record in records:
        grown = size + len(record.payload)
        if group and (
            messages + record.messages > limits.messages_max
            or grown > limits.bytes_max
            or record.prefix != group[0].prefix
            or record.alone
            or group[0].alone
        ):
            yield group
            group, messages, grown = [], 0, len(record.payload) + len(record.prefix)
        group.append(record)
        messages += record.messages
        size = grown
    if group:
        yield group


def number(
    groups: Iterable[list[Record]], join: Join, sector: str, wire_format: str, boot: str
) -> Iterator[Batch]:
    """Give every group its identity: `boot` and a sequence from 0."""
    for seq, group in enumerate(groups):
        times = (record.time_us for record in group if record.time_us is not None)
        yield Batch(
            sector=sector,
            format=wire_format,
            boot=boot,
            seq=seq,
            payload=group[0].prefix + join([record.payload for record in group]),
            messages=sum(record.messages for record in group),
            time_us=next(times, None),
        )


def boot_of(sector: str, file_format: str, start: str, files: Sequence[Path]) -> str:
    """The boot of a recording: the same sector, format, start and file contents, the same boot.

    Names and folders of the files do not count. OSError for a file that cannot be read.
    """
    digest = hashlib.sha256()
    for text in (CUT_VERSION, sector, file_format, start):
        digest.update(text.encode() + b"\n")
    for path in files:
        digest.update(_sha256(path))
    return "r" + digest.hexdigest()[:16]


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()
