"""Take rejections in after all: replay, fix, discard, and re-decode in bulk, each of them once.

What is replayed goes the way of everything else: decode, check, SectorStore.append. The rejection's
state changes in the append's own transaction, so that neither a crash nor a second operator can
take it in twice.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import psycopg
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import domains
from core import seal
from core.clock import from_datetime
from core.errors import CityError, brief, invalid
from core.sector import all_formats
from core.sensorthings import Decoded
from core.settings import Settings
from core.storage import mending
from core.storage.mending import ACTS, OPEN, Deed, Kept
from core.storage.message import Message, Outcome
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, Session, open_session
from core.storage.rejections import Keeping, unsealed
from ingest.clocks import Clocks
from ingest.decoding import Decoder
from ingest.faults import Fault, fault_of
from ingest.raw import Raw

log = logging.getLogger("chimata.ingest")

LOCK_SECONDS_MAX = 20
A_PAGE_MAX = 200
PAGE_BYTES_MAX = 16 * 1024 * 1024
CHANNEL = "replay"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an act on one rejection: its state now, and its observations."""

    id: int
    act: str
    state: str
    done: bool
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class _Task:
    """One payload on its way in, for the rejection whose place it takes."""

    kept: Kept
    deed: Deed
    payload: bytes
    form: str

    def done(self, outcome: Outcome) -> "_Task":
        counts = outcome.counts
        deed = replace(
            self.deed, stored=counts.stored, duplicate=counts.duplicate, rejected=counts.rejected
        )
        return replace(self, deed=deed)


class _RefusedError(Exception):
    """Undoes an append: (reason, detail) of the tasks that it could not take, by index."""

    def __init__(self, reasons: Mapping[int, tuple[str, str]]) -> None:
        super().__init__()
        self.reasons = reasons


class Mender:
    """Acts on rejections, one at a time; `key` opens those of personal sectors, where it is held.

    Not for two threads at once.
    """

    def __init__(self, settings: Settings, key: X25519PrivateKey | None = None) -> None:
        self._settings = settings
        self._key = key
        self._keeping = Keeping.of(settings)
        self._stores: dict[str, SectorStore] = {}

    def replay(self, rejection: int, who: str) -> Result:
        """Decode the payload anew and store what it holds.

        CityError `not-found`, `forbidden` (sealed), `conflict` (not open, or nothing to replay, or
        still rejected, which the history keeps), `unavailable`.
        """
        with self._session() as session:
            kept = self._find(session, rejection)
            task = self._replayable(kept, who)
            (result,) = self._take(session, kept.sector, [task])
        if not result.done:
            raise CityError("conflict", f"still rejected: {result.reason}: {result.detail}")
        return result

    def fix(
        self, rejection: int, who: str, why: str, payload: bytes, form: str | None = None
    ) -> Result:
        """Store what a corrected payload holds; it is kept beside the original.

        `form` is the format of the payload, where it is another than the rejection's own.
        CityError as for `replay`, and `invalid` for a payload that is rejected as well.
        """
        with self._session() as session:
            kept = self._find(session, rejection)
            if kept.folded:
                raise CityError("conflict", f"rejection {kept.id} is a count of many: discard it")
            if kept.sector not in domains.names():
                raise CityError("conflict", f"there is no sector {kept.sector!r} to store it in")
            form = form or kept.item_format or kept.format
            if form not in all_formats(domains.sector(kept.sector)):
                raise invalid("format", f"{kept.sector} takes no {form[:100]!r}")
            corrected, digest = payload, hashlib.sha256(payload).digest()
            if kept.sealed:
                corrected, digest = self._sealed(kept, payload), b""
            deed = Deed(kept.id, "fix", who, why, kept.sha256, corrected, digest)
            (result,) = self._take(session, kept.sector, [_Task(kept, deed, payload, form)])
        if not result.done:
            raise invalid("payload", f"{result.reason}: {result.detail}")
        return result

    def discard(self, rejection: int, who: str, why: str) -> Result:
        """Say why it is given up, and let its payload go; CityError as for `replay`."""
        with self._session() as session:
            kept = self._find(session, rejection)
            deed = Deed(kept.id, "discard", who, why, kept.sha256)
            if mending.settle(session, kept.sector, {kept.gateway}, [deed]):
                session.rollback()
                raise CityError("conflict", f"rejection {kept.id} is no longer open")
            session.commit()
        return Result(kept.id, "discard", ACTS["discard"].state, done=True)

    def redecode(
        self, sector: str, who: str, reason: str | None = None, gateway: str | None = None
    ) -> Iterator[list[Result]]:
        """Replay every open rejection of a sector, page by page; what fails stays open.

        To stop and to start again is safe: what was taken in is no longer open.
        """
        domains.sector(sector)
        with self._session() as session:
            pages = mending.open_pages(
                session, sector, reason, gateway, rows_max=A_PAGE_MAX, bytes_max=PAGE_BYTES_MAX
            )
            for page in pages:
                tasks, results = [], []
                for kept in page:
                    try:
                        tasks.append(self._replayable(kept, who))
                    except CityError as error:  # sealed, and to another key
                        results.append(_open_still(kept, "replay", error.slug, error.detail))
                yield [*results, *self._take(session, sector, tasks)]

    def open_sealed(self, rejection: int, who: str) -> tuple[str, bytes]:
        """(detail, payload) of a sealed rejection; who looked is kept in its history first."""
        with self._session() as session:
            kept = self._find(session, rejection, must_be_open=False)
            if not kept.sealed or kept.payload is None:
                raise CityError("conflict", f"rejection {kept.id} has no sealed payload")
            opened = self._opened(kept)
            mending.note(session, Deed(kept.id, "unseal", who, "", kept.sha256), done=True)
            session.commit()
        return opened

    # -- one rejection --------------------------------------------------------------------------

    def _find(self, session: Session, rejection: int, *, must_be_open: bool = True) -> Kept:
        kept = mending.find(session, rejection)
        session.rollback()
        if kept is None:
            raise CityError("not-found", f"there is no rejection {rejection}")
        if kept.sealed and self._key is None:
            raise CityError(
                "forbidden", "this rejection is sealed: only the holder of the key acts on it"
            )
        if must_be_open and kept.state != OPEN:
            raise CityError("conflict", f"rejection {kept.id} is {kept.state}")
        return kept

    def _replayable(self, kept: Kept, who: str) -> _Task:
        if kept.payload is None or kept.folded:
            raise CityError("conflict", f"the payload of rejection {kept.id} was let go")
        if kept.item_format is None or kept.sector not in domains.names():
            raise CityError("conflict", f"rejection {kept.id} can only be fixed or discarded")
        payload = self._opened(kept)[1] if kept.sealed else kept.payload
        return _Task(kept, Deed(kept.id, "replay", who, "", kept.sha256), payload, kept.item_format)

    def _opened(self, kept: Kept) -> tuple[str, bytes]:
        if self._key is None or kept.payload is None:
            raise CityError("forbidden", f"rejection {kept.id} is sealed, and here is no key")
        return unsealed(self._key, kept.sector, kept.gateway, kept.payload)

    def _sealed(self, kept: Kept, payload: bytes) -> bytes:
        if self._key is None:
            raise CityError("forbidden", f"rejection {kept.id} is sealed, and here is no key")
        return seal.seal(self._key.public_key(), payload, f"{kept.sector}/{kept.gateway}")

    # -- taking in ------------------------------------------------------------------------------

    def _take(self, session: Session, sector: str, tasks: Sequence[_Task]) -> list[Result]:
        """Take in all that can be; the others stay open, with the refusal in their history."""
        fine: list[tuple[_Task, Message]] = []
        results: list[Result] = []
        for task in tasks:
            decoded = self._decoded(task)
            fault = _fault(decoded)
            if fault is None:
                fine.append((task, _message(task, decoded)))
            else:
                results.append(self._refuse(session, task, *fault))
        session.commit()
        return [*results, *self._store(session, sector, fine)] if fine else results

    def _decoded(self, task: _Task) -> Decoded:
        """As its sector decodes it, in a memory of its own: what was heard since must not count."""
        kept = task.kept
        decoder = Decoder(domains.sector(kept.sector), self._settings, Clocks())
        received_at = from_datetime(kept.first_seen)
        return decoder.decoded(
            Raw(
                CHANNEL, kept.sector, kept.gateway, task.form, task.payload, received_at=received_at
            )
        )

    def _store(
        self, session: Session, sector: str, fine: Sequence[tuple[_Task, Message]]
    ) -> list[Result]:
        store = self._stores.get(sector)
        if store is None:
            store = self._stores[sector] = SectorStore(domains.sector(sector), self._keeping)
        tasks = [task for task, _ in fine]
        try:
            outcomes = store.append(
                session,
                [message for _, message in fine],
                finish=partial(_finish, session, sector, tasks),
            )
        except _RefusedError as refused:
            left = [each for index, each in enumerate(fine) if index not in refused.reasons]
            results = [
                self._refuse(session, tasks[i], *why) for i, why in sorted(refused.reasons.items())
            ]
            session.commit()
            return [*results, *self._store(session, sector, left)] if left else results
        except psycopg.Error as error:
            # How its COMMIT ended is told by the state of the rejections, not by this store.
            del self._stores[sector]
            if fault_of(error) is not Fault.REFUSED:
                raise
            if len(fine) > 1:
                middle = len(fine) // 2
                first = self._store(session, sector, fine[:middle])
                return [*first, *self._store(session, sector, fine[middle:])]
            result = self._refuse(session, tasks[0], "storage-refused", brief(error))
            session.commit()
            return [result]
        flush = store.drain()
        if flush is not None:
            flush.write(session)
            session.commit()
        return [_result(task.done(outcome)) for task, outcome in zip(tasks, outcomes, strict=True)]

    def _refuse(self, session: Session, task: _Task, reason: str, detail: str) -> Result:
        """Note that it was tried in vain; what a personal payload says is not quoted."""
        why = reason if task.kept.sealed else f"{reason}: {detail}"
        mending.note(session, replace(task.deed, why=why), done=False)
        return _open_still(task.kept, task.deed.act, reason, detail)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with open_session(self._settings.database_url, DatabaseRole.INGEST) as session:
                session.execute(f"SET lock_timeout = '{LOCK_SECONDS_MAX}s'")
                session.commit()
                yield session
        except psycopg.OperationalError as error:
            log.warning("rejections cannot be mended now: %s", brief(error))
            raise CityError("unavailable", "the database does not answer now") from error


def _open_still(kept: Kept, act: str, reason: str, detail: str) -> Result:
    return Result(kept.id, act, kept.state, done=False, reason=reason, detail=detail)


def _fault(decoded: Decoded) -> tuple[str, str] | None:
    """Why nothing of a payload can be taken in, or None."""
    if decoded.observations:
        return None
    if decoded.rejected:
        return decoded.rejected[0].reason, decoded.rejected[0].detail
    if decoded.things or decoded.heard or decoded.unchanged:
        return None
    return "nothing-in-it", "payload: it decodes, but to nothing"


def _message(task: _Task, decoded: Decoded) -> Message:
    """Under the source that the rejection is counted under; its messages were counted then."""
    kept = task.kept
    return Message(
        kept.gateway,
        kept.format,
        CHANNEL,
        from_datetime(kept.first_seen),
        task.payload,
        hashlib.sha256(task.payload).digest(),
        replace(decoded, messages=0, unchanged=0),
    )


def _finish(
    session: Session, sector: str, tasks: Sequence[_Task], outcomes: Sequence[Outcome]
) -> None:
    """Settle the rejections in the append's transaction, or undo it and say for which of them."""
    refused = {
        index: (outcome.rejected[0].reason, outcome.rejected[0].detail)
        for index, outcome in enumerate(outcomes)
        if outcome.rejected and not (outcome.counts.stored or outcome.counts.duplicate)
    }
    if refused:
        raise _RefusedError(refused)
    deeds = [task.done(outcome).deed for task, outcome in zip(tasks, outcomes, strict=True)]
    late = mending.settle(session, sector, {task.kept.gateway for task in tasks}, deeds)
    if late:
        raise _RefusedError(
            {
                index: ("not-open", "somebody else has acted on it")
                for index, task in enumerate(tasks)
                if task.kept.id in late
            }
        )


def _result(task: _Task) -> Result:
    deed = task.deed
    state = ACTS[deed.act].state
    return Result(deed.id, deed.act, state, True, deed.stored, deed.duplicate, deed.rejected)
