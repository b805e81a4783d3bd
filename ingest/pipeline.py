"""Messages from any channel to the database: decode, check, batch, store, then settle.

Each sector has two threads, so that decoding overlaps with COPY. Everything between is bounded by
payload bytes: a slow database stops `submit`, which stops the channel's reading, which stops the
broker's delivery. Nothing is settled (acknowledged, receipted) before its transaction is committed.
"""

import contextlib
import hashlib
import logging
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

import domains
from core.clock import now_us
from core.errors import CityError
from core.formats import DECODERS
from core.sector import COMMON_FORMATS, Context, Sector
from core.sensorthings import DataClass, Decoded, Rejected
from core.settings import Settings
from core.storage.latest import Flush
from core.storage.ledger import Pending, hold_process_lock, new_process
from core.storage.message import Message, Outcome
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, Session, open_session
from core.tokens import NAME
from ingest.check import check

log = logging.getLogger("chimata.ingest")

FLUSH_SECONDS = 0.5
"""Time between flushes of the latest values: half of the second that they may trail."""
HEARTBEAT_SECONDS = 1.0
RETRY_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
MESSAGES_AN_APPEND_MAX = 2_000
SEQ_MAX = 2**53
MAINTAIN_SECONDS = 15.0
LOCK_SECONDS_MAX = 2
STOPPING_SECONDS = 0.05
CANCEL_SECONDS = 6.0
"""Of the seconds that a stop may take: those left for an append that has to be cancelled."""
FOREVER = "2000 years"
REFUSALS_MAX = 2
"""Times that the database may refuse a batch before it is split to find the message at fault."""
REFUSED_CLASSES = ("21", "22", "23", "54")
"""Classes of SQLSTATE that a message's content can cause; all others are the database's own state.

Data exceptions, integrity violations and program limits (PostgreSQL, appendix A)."""

UNKNOWN = Sector("unknown", "不明", "Unknown", DataClass.PERSONAL, (), ())
"""Where rejections go that name no sector we have."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One message as a channel received it; `tag` is the channel's own, for settling it."""

    channel: str
    sector: str
    gateway: str
    format: str
    payload: bytes
    boot: str | None = None
    seq: str | None = None
    tag: Any = None
    received_at: int = field(default_factory=now_us)
    refuse: tuple[str, str] | None = None
    """(reason, detail) where the channel itself found that the message must not be taken."""


Settled = Sequence[tuple[Raw, Outcome]]
Source = tuple[str, str, str]
Batch = Sequence[tuple[Raw, Message]]


class Budget:
    """Payload bytes between receipt and commit; `acquire` waits while there are too many."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0
        self._changed = threading.Condition()

    def acquire(self, size: int, stop: threading.Event, seconds_max: float = math.inf) -> bool:
        """Wait for room; False at the stop, or after `seconds_max`.

        One message is let in however large it is.
        """
        until = time.monotonic() + seconds_max
        with self._changed:
            while self._held and self._held + size > self._bytes_max:
                left = until - time.monotonic()
                if stop.is_set() or left <= 0:
                    return False
                self._changed.wait(min(0.2, left))
            self._held += size
            return True

    def release(self, size: int) -> None:
        """The messages of this size are settled."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    @property
    def full(self) -> bool:
        """Whether `acquire` would wait now."""
        return self._held >= self._bytes_max


class Pipeline:
    """Takes messages of one process; `settle` is called from its threads, after each commit."""

    def __init__(self, settings: Settings, settle: Callable[[Settled], None]) -> None:
        self.settings = settings
        self.process = new_process()
        self.settle = settle
        self.budget = Budget(settings.queue_bytes_max)
        self.stopping = threading.Event()
        self._lines: dict[str, _Line] = {}
        self._opening = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="projection", daemon=True)
        self._maintainer = threading.Thread(target=self._maintain, name="maintenance", daemon=True)

    def start(self) -> None:
        """Start the projection's writer; each sector's threads start with its first message."""
        self._keeper.start()
        self._maintainer.start()

    def submit(self, raw: Raw, wait_seconds_max: float = math.inf) -> bool:
        """Take a message, waiting while the pipeline is full; False if it did not take it.

        That is so once it is stopping, or when there was no room for `wait_seconds_max`.
        """
        if self.stopping.is_set():
            return False
        if not self.budget.acquire(_size(raw), self.stopping, wait_seconds_max):
            return False
        self._line(raw.sector).put(raw)
        return True

    def _line(self, sector: str) -> "_Line":
        """The sector's line; HTTP submits from many threads, and a second line would be lost."""
        name = sector if sector in domains.names() else UNKNOWN.name
        with self._opening:
            if name not in self._lines:
                self._lines[name] = _Line(self, _sector(name))
            return self._lines[name]

    def stop(self) -> None:
        """Stop taking messages; what is not committed stays with the sender. Waits 10 s at most."""
        self.stopping.set()
        until = time.monotonic() + 10
        for line in list(self._lines.values()):
            line.join(until)
        for thread in (self._keeper, self._maintainer):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _keep(self) -> None:
        """Write the latest values and this process's line of the account; both are rebuildable."""
        session: Session | None = None
        finished = locked = False
        while not finished:
            if self.stopping.wait(FLUSH_SECONDS):
                time.sleep(STOPPING_SECONDS)
            lines = list(self._lines.values())
            # Asked before writing, so that what a line drains last is written too.
            finished = self.stopping.is_set() and not any(line.alive for line in lines)
            try:
                if session is None or session.closed:
                    session = open_session(self.settings.database_url, DatabaseRole.INGEST)
                    session.execute("SET synchronous_commit = off")
                    locked = False
                locked = locked or hold_process_lock(session, self.process)
                for line in lines:
                    line.write_latest(session)
                for line in lines:
                    line.write_pending(session)
            except Exception as error:  # noqa: BLE001 - without this thread nothing new is seen
                log.warning("projection not written, will retry: %s", _brief(error))
                if session is not None:
                    session.close()
        if session is not None:
            session.close()

    def _maintain(self) -> None:
        """Summarise new pages, seal closed partitions, drop what retention ends.

        Apart from the keeper: sealing a large day takes longer than latest values may trail.
        """
        keep = f"{self.settings.retention_days} days" if self.settings.retention_days else FOREVER
        while not self.stopping.is_set():
            try:
                with open_session(self.settings.database_url, DatabaseRole.INGEST) as session:
                    # Waiting in line for a table's lock would hold up every append behind us.
                    session.execute(f"SET lock_timeout = '{LOCK_SECONDS_MAX}s'")
                    session.execute("SELECT summarise_open_partitions()")
                    session.commit()
                    session.execute("SELECT maintain_partitions(%s::interval)", (keep,))
            except (psycopg.Error, CityError) as error:
                log.warning("partitions not maintained, will retry: %s", _brief(error))
            self.stopping.wait(MAINTAIN_SECONDS)


class _Line:
    """One sector's two threads: decode, and store."""

    def __init__(self, pipeline: Pipeline, sector: Sector) -> None:
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
        self._session: Session | None = None
        self._threads = [
            threading.Thread(target=self._decode_all, name=f"decode-{sector.name}", daemon=True),
            threading.Thread(target=self._store_all, name=f"store-{sector.name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def put(self, raw: Raw) -> None:
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
            source = (message.gateway, self._sector.name, message.format)
            received[source] -= message.decoded.received
            held[source] -= message.decoded.received
        rows = [
            {"gateway": g, "sector": s, "format": f, "received": n, "held": held[g, s, f]}
            for (g, s, f), n in received.items()
            if n
        ]
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
        try:
            flush.write(session)
            session.commit()
        except Exception as error:
            if _is_away(error):
                raise
            # It would fail for ever, and no newer value would be seen: leave these out.
            log.exception("latest values of %s cannot be written", self._sector.name)
            session.rollback()
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
            message = self._message(raw)
            with self._changed:
                self._count([(raw, message)], 1)
                self._ready.append((raw, message))
                self._ready_rows += message.decoded.received
                self._changed.notify_all()

    def _message(self, raw: Raw) -> Message:
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

    def _decoded(self, raw: Raw) -> Decoded:
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
            return check(self._sector, decoded, raw.received_at, self._settings.future_seconds_max)
        except Exception as error:
            log.exception("decoder of %s/%s failed", self._sector.name, raw.format)
            return _undecodable(raw, "decoder-error", f"{type(error).__name__}: {error}")

    # -- store ----------------------------------------------------------------------------------

    def _store_all(self) -> None:
        stopping = self._pipeline.stopping
        session: Session | None = None
        drained_at = 0.0
        while True:
            batch = self._next_batch()
            if batch:
                session = self._store_batch(session, batch)
            if self._flush is None and time.monotonic() - drained_at > FLUSH_SECONDS:
                self._flush, drained_at = self._store.drain(), time.monotonic()
            if stopping.is_set():
                break
        if session is not None:
            session.close()

    def _next_batch(self) -> list[tuple[Raw, Message]]:
        """Wait for a message, then a moment for its followers; [] after half a second of none."""
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
                outcomes = self._store.append(session, [message for _, message in tried], pending)
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
                log.warning("storage is away, holding %d messages: %s", len(batch), _brief(error))
                if session is not None:
                    session.close()
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

    def _as_refused(self, raw: Raw, message: Message, error: Exception) -> Batch:
        """The message as one rejection with its payload, still counting its native messages."""
        log.error("storage refuses a message of %s", message.gateway, exc_info=error)
        lost = _undecodable(raw, "storage-refused", _brief(error))
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
            source = (message.gateway, self._sector.name, message.format)
            self._received[source] += sign * message.decoded.received
            self._held[source] += sign * message.decoded.received

    def _settle(self, batch: Batch, outcomes: Sequence[Outcome], pending: Pending) -> None:
        with self._changed:
            self._version, self._told = pending.version, pending.rows
            self._count(batch, -1)
        self._pipeline.budget.release(sum(_size(raw) for raw, _ in batch))
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


def _sector(name: str) -> Sector:
    return UNKNOWN if name == UNKNOWN.name else domains.sector(name)


def _size(raw: Raw) -> int:
    """What a message costs while it is held; the constant is for its objects."""
    return len(raw.payload) + 1024


def _brief(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _undecodable(raw: Raw, reason: str, detail: str) -> Decoded:
    return Decoded(rejected=(Rejected(reason, detail, raw.payload),), messages=1)


def _identity(raw: Raw) -> tuple[tuple[str | None, int | None], tuple[str, str] | None]:
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
