"""One message on its way into storage: what it came with, and what became of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.sensorthings import Decoded, Rejected, ResultKind, Stream, kinds_of, used_streams
from core.storage.columns import DOCUMENT, NUMBER, POSITION, Rows, Shape
from core.storage.ledger import HOUR_US, Counts, Identity, Source


@dataclass(frozen=True, slots=True)
class Message:
    """One message on its way in: where it came from, its identity if it has one, what it held."""

    gateway: str
    format: str
    channel: str
    received_at: int
    payload: bytes
    sha256: bytes
    decoded: Decoded
    boot: str | None = None
    seq: int | None = None

    @property
    def identity(self) -> Identity | None:
        """(gateway, boot, seq), or None for a loose message."""
        if self.boot is None or self.seq is None:
            return None
        return (self.gateway, self.boot, self.seq)

    def source(self, sector: str) -> Source:
        """The line of the account that it belongs to."""
        hour = self.received_at // HOUR_US * HOUR_US
        return (self.gateway, sector, self.format, hour)

    def counts(self, **observations: int) -> Counts:
        """The message's counts, with what became of its observations."""
        decoded = self.decoded
        return Counts(decoded.messages, decoded.unchanged, decoded.received, **observations)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message: result is stored, duplicate or refused, and each is final."""

    result: str
    counts: Counts
    reason: str | None = None
    detail: str | None = None
    rejected: Sequence[Rejected] = ()


def wanted(
    messages: Sequence[tuple[int, Message]],
) -> dict[tuple[str, str], tuple[Stream, ResultKind, str]]:
    """Every (thing, property) named, with the kind of its first result and its gateway."""
    found: dict[tuple[str, str], tuple[Stream, ResultKind, str]] = {}
    for _, message in messages:
        decoded = message.decoded
        for columns, kind in kinds_of(decoded):
            for index in used_streams(columns):
                stream = decoded.streams[index]
                name = (stream.thing, stream.property)
                found.setdefault(name, (stream, kind, message.gateway))
    return found


def rows_of(
    decoded: Decoded, index: int, code_of: Callable[[str], int]
) -> Iterator[tuple[Rows, ResultKind]]:
    """The message's columns as rows whose datastream is still the index of the stream."""

    def rows(
        shape: Shape, columns: Any, *results: NDArray[np.float64], documents: Any = ()
    ) -> Rows:
        count = len(columns.stream)
        quality = columns.quality
        return Rows(
            shape,
            columns.stream.astype(np.int32, copy=False),
            columns.phenomenon_time,
            np.zeros(count, np.int16) if quality is None else quality.astype(np.int16, copy=False),
            np.full(count, index, np.int32),
            results,
            np.array([*documents, None], object)[:-1],
        )

    if decoded.numbers is not None:
        yield rows(NUMBER, decoded.numbers, decoded.numbers.result), ResultKind.NUMBER
    if decoded.categories is not None:
        codes = np.array([code_of(text) for text in decoded.categories.result], np.float64)
        yield rows(NUMBER, decoded.categories, codes), ResultKind.CATEGORY
    if decoded.positions is not None:
        p = decoded.positions
        yield rows(POSITION, p, p.longitude, p.latitude, p.speed, p.course), ResultKind.POSITION
    if decoded.documents is not None:
        d = decoded.documents
        yield rows(DOCUMENT, d, documents=d.result), ResultKind.DOCUMENT
