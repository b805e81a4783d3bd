"""One sector's line of two threads: decode and check, then store and settle, batch by batch."""

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from core.errors import brief
from core.sector import Sector
from core.storage.figures import ProcessFigures
from core.storage.latest import Flush
from core.storage.ledger import Pending, Source, pending_row
from core.storage.message import Message, Outcome
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, Session, open_session
from ingest.decoding import Decoder, undecodable
from ingest.faults import Fault, fault_of
from ingest.raw import Raw, Run

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline

log = logging.getLogger("chimata.ingest")

IDLE_SECONDS = 0.1
FLUSH_SECONDS = 0.05
"""Shortest rest between flushes of the latest values."""
FLUSH_SHORT_SECONDS, FLUSH_RESTS = 0.25, 2
"""A short flush is followed by a rest as long as it took, a dear one by one of so many times its
own: it takes a third of a core at most."""
FLUSH_REST_SECONDS_MAX = 2.0
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
MESSAGES_AN_APPEND_MAX = 2_000
CANCEL_SECONDS = 6.0
"""Of the seconds that a stop may take: those left for an append that has to be cancelled."""
PROBES_MAX = 32
"""Appends of parts of a batch that may fail before it is believed that none of it can be stored."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one message or run became, from its decoding until it is settled."""

    source: Raw | Run
    messages: Sequence[Message]

    @property
    def rows(self) -> int:
        """Observations and rejections: what the account has as received."""
        return sum(message.decoded.received for message in self.messages)


Batch = Sequence[Held]


class Line:
    """One sector's two threads: decode, and store."""

    def __init__(self, pipeline: "Pipeline", sector: Sector) -> None:
        self._pipeline = pipeline
        self._settings = pipeline.settings
        self._sector = sector
        self._decoder = Decoder(sector, pipeline.settings, pipeline.clocks)
        self._store = SectorStore(sector, pipeline.keeping)
        self._raw: deque[Raw | Run] = deque()
        self._ready: deque[Held] = deque()
        self._ready_rows = 0
        self._changed = threading.Condition()
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

    def put(self, received: Raw | Run) -> None:
        with self._changed:
            last = self._raw[-1] if self._raw else None
            # A run grows while it waits: under load the decoder gets few and long ones.
            if isinstance(received, Run) and isinstance(last, Run) and last.join(received):
                return
            self._raw.append(received)
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
        held = Counter(self._held)
        self._count(batch, -1, held)
        rows = [pending_row(source, n, n) for source, n in held.items() if n]
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
            if fault_of(error) is Fault.AWAY:
                raise
            # It would fail for ever, and no newer value would be seen: leave these out.
            log.exception("latest values of %s cannot be written", self._sector.name)
            session.rollback()
        took = time.monotonic() - began
        rests = 1 if took < FLUSH_SHORT_SECONDS else FLUSH_RESTS
        rest = min(max(FLUSH_SECONDS, rests * took), FLUSH_REST_SECONDS_MAX)
        self._flush_after = began + took + rest
        self._flush = None

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
                received = self._raw.popleft()
            started = time.perf_counter()
            held = Held(received, self._decoder.messages(received))
            self.figures.decode_seconds += time.perf_counter() - started
            self.figures.decoded += 1 if isinstance(received, Raw) else len(received)
            with self._changed:
                self._count([held], 1, self._held)
                self._ready.append(held)
                self._ready_rows += held.rows
                self._changed.notify_all()

    # -- store ----------------------------------------------------------------------------------

    def _store_all(self) -> None:
        stopping = self._pipeline.stopping
        while True:
            batch = self._next_batch()
            if batch:
                self._store_batch(batch)
            if self._flush is None and time.monotonic() >= self._flush_after:
                self._flush = self._store.drain()
                if self._flush is not None:
                    self._pipeline.drained.set()
            if stopping.is_set():
                break
        if self._session is not None:
            self._session.close()

    def _next_batch(self) -> Batch:
        """Wait for a message, then a moment for its followers; [] after a short while of none."""
        with self._changed:
            if not self._ready:
                self._changed.wait(IDLE_SECONDS)
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
            return self._take_ready()

    def _take_ready(self) -> Batch:
        """As much of what is ready as one append takes; under the line's lock."""
        batch: list[Held] = []
        rows = messages = 0
        while self._ready:
            first = self._ready[0]
            rows, messages = rows + first.rows, messages + len(first.messages)
            if batch and (
                rows > self._settings.batch_rows_max or messages > MESSAGES_AN_APPEND_MAX
            ):
                break
            batch.append(self._ready.popleft())
            self._ready_rows -= first.rows
        self._changed.notify_all()
        return batch

    def _store_batch(self, batch: Batch) -> None:
        """Store until it is stored; a database that is away is waited for, whatever it takes."""
        failures = 0
        while batch and not self._pipeline.stopping.is_set():
            batch, error = self._try(batch)
            if not batch or error is None:
                return
            failures = self._wait(failures, batch, error)
            if len(batch) < PROBES_MAX:
                with self._changed:  # those behind may tell whose fault it is
                    batch = [*batch, *self._take_ready()]

    def _wait(self, failures: int, batch: Batch, error: Exception) -> int:
        """Hold a batch for a while, longer each time; the next append takes a new connection."""
        log.warning("storage is away, holding %d messages: %s", len(batch), brief(error))
        if self._session is not None:
            self._session.close()
        self.figures.storage_failures += 1
        self._pipeline.stopping.wait(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
        return failures + 1

    def _try(self, batch: Batch) -> tuple[Batch, Exception | None]:
        """Store a batch, halving what fails; what has to wait, and for which error.

        What the database refuses for its content is rejected once it is alone. Where the error
        does not say whose fault it is, the others do: if some of them can be stored, it is the
        message's; if none can, it is the database's, and all wait.
        """
        parts: list[Batch] = [batch]
        doubtful: list[tuple[Batch, Exception]] = []
        stored, failed = False, 0
        error: Exception | None = None
        while parts and not self._pipeline.stopping.is_set():
            part = parts.pop()
            error = self._append(part)
            if error is not None and not self._pipeline.stopping.is_set():
                # Once more: another process may have taken the same identity meanwhile.
                error = self._append(part)
            if error is not None and self._pipeline.stopping.is_set():
                break
            if error is None:
                stored = stored or any(m.decoded.observations for h in part for m in h.messages)
                continue
            fault, failed = fault_of(error), failed + 1
            if fault is Fault.UNCLEAR and not stored and failed > PROBES_MAX:
                return _joined([part, *reversed(parts), *(each for each, _ in doubtful)]), error
            if halves := self._halves(part):
                parts += reversed(halves)
            elif fault is Fault.UNCLEAR:
                doubtful.append((part, error))
            elif again := self._reject(part, error):
                return _joined([part, *reversed(parts), *(each for each, _ in doubtful)]), again
        if doubtful and not stored:
            return _joined([*reversed(parts), *(each for each, _ in doubtful)]), doubtful[0][1]
        while doubtful:
            part, error = doubtful[-1]
            # The others may have been stored because the database has been mended meanwhile.
            again = self._append(part)
            if again is not None and not self._pipeline.stopping.is_set():
                again = self._reject(part, error)
            if again is not None:
                return _joined([each for each, _ in doubtful]), again
            doubtful.pop()
        return [], None

    def _append(self, batch: Batch, *, careful: bool = False) -> Exception | None:
        """Append and settle, however long the database is away; the error of what it refuses.

        After a lost connection it must be this very batch again: see SectorStore.append.
        """
        failures = 0
        while True:
            try:
                self._append_once(batch, careful=careful)
            except Exception as error:  # noqa: BLE001 - else the sector would stand still unseen
                away = fault_of(error) is Fault.AWAY
                if not away or self._pipeline.stopping.is_set():
                    return error
                failures = self._wait(failures, batch, error)
            else:
                return None

    def _append_once(self, batch: Batch, *, careful: bool = False) -> None:
        if self._session is None or self._session.closed:
            self._session = open_session(self._settings.database_url, DatabaseRole.INGEST)
        with self._changed:
            pending = self._pending(batch)
        messages = [message for held in batch for message in held.messages]
        started = time.perf_counter()
        outcomes = self._store.append(self._session, messages, pending, careful=careful)
        self.figures.append_seconds.observe(time.perf_counter() - started)
        self._settle(batch, outcomes, pending)

    def _halves(self, batch: Batch) -> Sequence[Batch]:
        """A batch as two, a run as two of its own; () where a message is alone."""
        if len(batch) > 1:
            return batch[: len(batch) // 2], batch[len(batch) // 2 :]
        source = batch[0].source
        if isinstance(source, Raw) or len(source) == 1:
            return ()
        halves = [Held(run, self._decoder.messages(run)) for run in source.halves()]
        self._swap(batch, halves)
        return [[held] for held in halves]

    def _reject(self, alone: Batch, error: Exception) -> Exception | None:
        """Store one message without the rows at fault, or all of it as a rejection.

        The error if even that is refused: then the message is not at fault.
        """
        self.figures.refusals += 1
        if fault_of(error) is Fault.REFUSED and self._append(alone, careful=True) is None:
            return None
        (held,) = alone
        (message,) = held.messages
        log.error("storage refuses a message of %s", message.gateway, exc_info=error)
        raw = held.source.alone(0) if isinstance(held.source, Run) else held.source
        lost = undecodable(raw, "storage-refused", brief(error))
        lost = replace(lost, messages=max(1, message.decoded.messages))
        rejection = [Held(held.source, [replace(message, decoded=lost)])]
        self._swap(alone, rejection)
        again = self._append(rejection)
        if again is not None:
            self._swap(rejection, alone)
        return again

    def _swap(self, before: Batch, after: Batch) -> None:
        """Hold `after` in the place of `before`."""
        with self._changed:
            self._count(before, -1, self._held)
            self._count(after, 1, self._held)

    def _count(self, batch: Batch, sign: int, held: Counter[Source]) -> None:
        """Add to (1) or take from (-1) what is held; the caller has the lock."""
        for each in batch:
            for message in each.messages:
                source = message.source(self._sector.name)
                held[source] += sign * message.decoded.received

    def _settle(self, batch: Batch, outcomes: Sequence[Outcome], pending: Pending) -> None:
        with self._changed:
            self._version, self._told = pending.version, pending.rows
            self._count(batch, -1, self._held)
        self._pipeline.budget.release(sum(held.source.size for held in batch))
        left = iter(outcomes)
        settled, runs = [], []
        for held in batch:
            became = [next(left) for _ in held.messages]
            if isinstance(held.source, Raw):
                settled.append((held.source, became[0]))
            else:
                runs.append(held.source)
        try:
            if settled:
                self._pipeline.settle(settled)
            if runs:
                self._pipeline.settle_runs(runs)
        except Exception:
            # The rows are committed: a sender that hears nothing sends again, as a duplicate.
            log.exception("%d stored messages could not be acknowledged", len(outcomes))


def _joined(parts: Sequence[Batch]) -> Batch:
    return [held for part in parts for held in part]
