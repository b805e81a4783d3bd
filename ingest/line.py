"""One sector's line of two threads: decode and check, then store and settle, batch by batch."""

import contextlib
import hashlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

import domains
from core.errors import CityError, brief
from core.formats import DECODERS
from core.sector import COMMON_FORMATS, Context, Sector
from core.sensorthings import DataClass, Decoded, Rejected
from core.storage.figures import ProcessFigures
from core.storage.latest import Flush
from core.storage.ledger import Pending, Source, pending_row
from core.storage.message import Message, Outcome
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, Session, open_session
from core.tokens import NAME
from ingest.check import check

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline, Raw

log = logging.getLogger("chimata.ingest")

FLUSH_SECONDS = 0.1
"""Shortest time between flushes of the latest values."""
FLUSH_RESTS = 4
"""A flush is followed by a rest of so many times its own: it takes a fifth of a core at most."""
FLUSH_REST_SECONDS_MAX = 5.0
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
MESSAGES_AN_APPEND_MAX = 2_000
SEQ_MAX = 2**53
CANCEL_SECONDS = 6.0
"""Of the seconds that a stop may take: those left for an append that has to be cancelled."""
REFUSALS_MAX = 2
"""Times that the database may refuse a batch before it is split to find the message at fault."""
REFUSED_CLASSES = ("21", "22", "23", "54")
"""Classes of SQLSTATE that a message's content can cause; all others are the database's own state.

Data exceptions, integrity violations and program limits (PostgreSQL, appendix A)."""

UNKNOWN = Sector("unknown", "不明", "Unknown", DataClass.PERSONAL, (), ())
"""Where rejections go that name no sector we have."""

Batch = Sequence[tuple["Raw", Message]]


class Line:
    """One sector's two threads: decode, and store."""

    def __init__(self, pipeline: "Pipeline", sector: Sector) -> None:
        self._pipeline = pipeline
        self._settings = pipeline.settings
        self._sector = sector
        self._store = SectorStore(sector)
        self._memory: dict[Any, Any] = {}
        self._raw: deque[Raw] = deque()
        self._ready: deque[tuple[Raw, Message]] = deque()
        self._ready_rows = 0
        self._changed = threading.Condition()
        self._received: Counter[Source] = Counter()
        self._held: Counter[Source] = Counter()
        self._version = 0
        self._told: Sequence[dict[str, Any]] = ()
        self._flush: Flush | None = None
        self._flush_after = 0.0
        self._session: Session | None = None
        self.figures = ProcessFigures(sector.name)  # each field has one thread that writes it
        self._threads = [
            threading.Thread(target=self._decode_all, name=f"decode-{sector.name}", daemon=True),
            threading.Thread(target=self._store_all, name=f"store-{sector.name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def put(self, raw: "Raw") -> None:
        with self._changed:
            self._raw.append(raw)
            self._changed.notify_all()

    def join(self, until: float) -> None:
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, until - CANCEL_SECONDS - time.monotonic()))
        session = self._session
        if self.alive and session is not None:
            # It waits for a lock, say: better that it gives up than that it commits, unsettled,
            # after we have gone.
            with contextlib.suppress(psycopg.Error):
                session.cancel_safe(timeout=CANCEL_SECONDS / 2)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _pending(self, batch: Batch = ()) -> Pending:
        """What is decoded and not yet committed once this batch is; under the line's lock."""
        received, held = Counter(self._received), Counter(self._held)
        for _, message in batch:
            source = message.source(self._sector.name)
            received[source] -= message.decoded.received
            held[source] -= message.decoded.received
        rows = [pending_row(source, n, held[source]) for source, n in received.items() if n]
        version = self._version + (1 if batch else 0)
        return Pending(self._pipeline.process, self._sector.name, version, rows)

    def write_pending(self, session: Session) -> None:
        """Write what waits between appends, where it is another than was written last."""
        with self._changed:
            pending = self._pending()
        if pending.rows != self._told:
            pending.update(session)
            session.commit()
            with self._changed:
                if pending.version == self._version:  # else an append has told more meanwhile
                    self._told = pending.rows

    def write_latest(self, session: Session) -> None:
        """Write what the store thread has drained; it drains again only once this is done."""
        flush = self._flush
        if flush is None:
            return
        began = time.monotonic()
        try:
            flush.write(session)
            session.commit()
        except Exception as error:
            if _is_away(error):
                raise
            # It would fail for ever, and no newer value would be seen: leave these out.
            log.exception("latest values of %s cannot be written", self._sector.name)
            session.rollback()
        took = time.monotonic() - began
        rest = min(max(FLUSH_SECONDS, FLUSH_RESTS * took), FLUSH_REST_SECONDS_MAX)
        self._flush_after = began + took + rest
        self._flush = None

    # -- decode ---------------------------------------------------------------------------------

    def _decode_all(self) -> None:
        stopping = self._pipeline.stopping
        while True:
            with self._changed:
                # Decoded columns are larger than payloads: hold no more than two appends of them.
                while not stopping.is_set() and (
                    not self._raw or self._ready_rows > 2 * self._settings.batch_rows_max
                ):
                    self._changed.wait(0.5)
                if stopping.is_set():
                    return
                raw = self._raw.popleft()
            started = time.perf_counter()
            message = self._message(raw)
            self.figures.decode_seconds += time.perf_counter() - started
            self.figures.decoded += 1
            with self._changed:
                self._count([(raw, message)], 1)
                self._ready.append((raw, message))
                self._ready_rows += message.decoded.received
                self._changed.notify_all()

    def _message(self, raw: "Raw") -> Message:
        gateway = raw.gateway if NAME.fullmatch(raw.gateway) else UNKNOWN.name
        identity, fault = _identity(raw)
        fault = raw.refuse or fault
        decoded = _undecodable(raw, *fault) if fault is not None else self._decoded(raw)
        if not decoded.received and not decoded.messages:
            decoded = replace(decoded, messages=1, unchanged=1)
        return Message(
            gateway,
            raw.format if raw.format.isprintable() and len(raw.format) < 100 else "unknown",  # noqa: PLR2004
            raw.channel,
            raw.received_at,
            raw.payload,
            hashlib.sha256(raw.payload).digest(),
            decoded,
            *identity,
        )

    def _decoded(self, raw: "Raw") -> Decoded:
        """Decode and check; whatever a decoder does wrong ends as a rejection of this message."""
        if self._sector is UNKNOWN:
            return _undecodable(raw, "unknown-sector", f"sector: there is no {raw.sector!r}")
        context = Context(raw.gateway, raw.received_at, self._memory)
        try:
            if len(raw.payload) > self._settings.body_bytes_max:
                limit = self._settings.body_bytes_max
                return _undecodable(raw, "too-large", f"payload: over {limit} bytes")
            if raw.format in self._sector.formats:
                decode = domains.load(self._sector.name, "decode").decode
                derive = domains.load(self._sector.name, "rules").derive
                decoded = derive(decode(raw.format, raw.payload, context))
            elif raw.format in COMMON_FORMATS:
                decoded = DECODERS[raw.format](raw.payload, context)
            else:
                detail = f"format: {self._sector.name} takes no {raw.format!r}"
                return _undecodable(raw, "unknown-format", detail)
            self._pipeline.clocks.hear(raw.gateway, raw.received_at, decoded)
            return check(self._sector, decoded, raw.received_at, self._settings.future_seconds_max)
        except Exception as error:
            log.exception("decoder of %s/%s failed", self._sector.name, raw.format)
            return _undecodable(raw, "decoder-error", f"{type(error).__name__}: {error}")

    # -- store ----------------------------------------------------------------------------------

    def _store_all(self) -> None:
        stopping = self._pipeline.stopping
        session: Session | None = None
        while True:
            batch = self._next_batch()
            if batch:
                session = self._store_batch(session, batch)
            if self._flush is None and time.monotonic() >= self._flush_after:
                self._flush = self._store.drain()
            if stopping.is_set():
                break
        if session is not None:
            session.close()

    def _next_batch(self) -> Batch:
        """Wait for a message, then a moment for its followers; [] after a short while of none."""
        with self._changed:
            if not self._ready:
                self._changed.wait(FLUSH_SECONDS)
            if not self._ready or self._pipeline.stopping.is_set():
                return []
            until = time.monotonic() + self._settings.batch_seconds_max
            while (
                self._ready_rows < self._settings.batch_rows_max
                and len(self._ready) < MESSAGES_AN_APPEND_MAX
                and (left := until - time.monotonic()) > 0
                and not self._pipeline.stopping.is_set()
            ):
                self._changed.wait(left)
            batch: list[tuple[Raw, Message]] = []
            rows = 0
            while self._ready and len(batch) < MESSAGES_AN_APPEND_MAX:
                size = self._ready[0][1].decoded.received
                if batch and rows + size > self._settings.batch_rows_max:
                    break
                batch.append(self._ready.popleft())
                rows += size
            self._ready_rows -= rows
            self._changed.notify_all()
            return batch

    def _store_batch(self, session: Session | None, batch: Batch) -> Session | None:
        """Store until it is stored; a database that is away is waited for, whatever it takes."""
        tried, failures, refusals = batch, 0, 0
        while not self._pipeline.stopping.is_set():
            try:
                if session is None or session.closed:
                    session = open_session(self._settings.database_url, DatabaseRole.INGEST)
                    self._session = session
                with self._changed:
                    pending = self._pending(tried)
                started = time.perf_counter()
                outcomes = self._store.append(session, [message for _, message in tried], pending)
                self.figures.append_seconds.observe(time.perf_counter() - started)
            except Exception as error:  # noqa: BLE001 - else the sector would stand still unseen
                away = _is_away(error)
                refusals += not away
                if not away and refusals < REFUSALS_MAX:
                    continue  # another process may have taken the same identity meanwhile
                if not away and len(batch) > 1:
                    return self._store_halves(session, batch)
                if not away and tried is batch:
                    tried = self._swap(batch, self._as_refused(*batch[0], error))
                    continue
                # It is away; or it refuses a mere rejection, so that the message is not at fault.
                tried, refusals = self._swap(tried, batch), 0
                log.warning("storage is away, holding %d messages: %s", len(batch), brief(error))
                if session is not None:
                    session.close()
                self.figures.storage_failures += 1
                self._pipeline.stopping.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
            else:
                self._settle(tried, outcomes, pending)
                return session
        return session

    def _store_halves(self, session: Session | None, batch: Batch) -> Session | None:
        """The database refuses something in it: halve until the message at fault is alone."""
        middle = len(batch) // 2
        session = self._store_batch(session, batch[:middle])
        return self._store_batch(session, batch[middle:])

    def _as_refused(self, raw: "Raw", message: Message, error: Exception) -> Batch:
        """The message as one rejection with its payload, still counting its native messages."""
        self.figures.refusals += 1
        log.error("storage refuses a message of %s", message.gateway, exc_info=error)
        lost = _undecodable(raw, "storage-refused", brief(error))
        lost = replace(lost, messages=max(1, message.decoded.messages))
        return [(raw, replace(message, decoded=lost))]

    def _swap(self, before: Batch, after: Batch) -> Batch:
        """Hold `after` in the place of `before`."""
        with self._changed:
            self._count(before, -1)
            self._count(after, 1)
        return after

    def _count(self, batch: Batch, sign: int) -> None:
        """Add to (1) or take from (-1) what is held; the caller has the lock."""
        for _, message in batch:
            source = message.source(self._sector.name)
            self._received[source] += sign * message.decoded.received
            self._held[source] += sign * message.decoded.received

    def _settle(self, batch: Batch, outcomes: Sequence[Outcome], pending: Pending) -> None:
        with self._changed:
            self._version, self._told = pending.version, pending.rows
            self._count(batch, -1)
        self._pipeline.budget.release(sum(raw.size for raw, _ in batch))
        settled = [(raw, outcome) for (raw, _), outcome in zip(batch, outcomes, strict=True)]
        try:
            self._pipeline.settle(settled)
        except Exception:
            # The rows are committed: a sender that hears nothing sends again, as a duplicate.
            log.exception("%d stored messages could not be acknowledged", len(batch))


def _is_away(error: Exception) -> bool:
    """Whether the database's state is at fault, and not what it was asked to store."""
    if not isinstance(error, psycopg.Error | CityError):
        return False
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return False
    return not str(getattr(error, "sqlstate", None)).startswith(REFUSED_CLASSES)


def _undecodable(raw: "Raw", reason: str, detail: str) -> Decoded:
    return Decoded(rejected=(Rejected(reason, detail, raw.payload),), messages=1)


def _identity(raw: "Raw") -> tuple[tuple[str | None, int | None], tuple[str, str] | None]:
    """The batch identity, or the fault of one that is not of the right form."""
    if not NAME.fullmatch(raw.gateway):
        return (None, None), ("bad-identity", f"gateway: {raw.gateway!r} must match {NAME.pattern}")
    if raw.boot is None and raw.seq is None:
        return (None, None), None
    if raw.boot is None or not NAME.fullmatch(raw.boot):
        return (None, None), ("bad-identity", f"boot: {raw.boot!r} must match {NAME.pattern}")
    if raw.seq is None or not raw.seq.isascii() or not raw.seq.isdecimal():
        return (None, None), ("bad-identity", f"seq: {raw.seq!r} must be a decimal integer")
    if len(raw.seq) > 16 or int(raw.seq) >= SEQ_MAX:  # noqa: PLR2004 - 2**53 has 16 digits
        return (None, None), ("bad-identity", f"seq: must be below {SEQ_MAX}")
    return (raw.boot, int(raw.seq)), None
