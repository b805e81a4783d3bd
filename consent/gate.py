"""The one door: every stored row leaves through the gate, filtered by what the principal may read.

    with gate.reading(principal, SECTOR) as connection:
        rows = connection.fetch(SELECT_NODES, {"limit": 10})

A query is an SQL constant that filters `data_class = ANY(%(classes)s)`; `fetch` refuses one that
does not. The gate binds three parameters, which a caller cannot: `classes` (what the principal may
read here), `sector` (its name) and `default_class` (the sector's own).
"""

import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Never
from uuid import UUID

import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from consent import audit, matcher, personal, proofs
from consent.channels import SELECT_POSITION, Position
from consent.columns import Column, column_of
from consent.decide import READ_EMERGENCY, READ_OWN, READ_PERSONAL, classes_of, read_by_class
from consent.log import Written
from consent.personal import PAGE, Chunk, Delivery, Query, Question
from consent.receipts import Signer
from consent.subject_keys import SubjectKeys
from core.errors import CityError, invalid
from core.sector import Sector
from core.settings import Settings
from core.storage.pool import DatabaseRole, Session, role_pool
from core.tokens import Principal

STATEMENT_SECONDS_MAX = 30
EXPORT_SECONDS_MAX = 4 * 3600
HEALTH_SECONDS_MAX = 2.0
OPEN_STREAMS_SECONDS = 1.0
CLASSES = "%(classes)s"
COPY_HEADER_BYTES, COPY_TRAILER = 19, b"\xff\xff"
BOUND = frozenset({"classes", "sector", "default_class"})

SELECT_HAS_OPEN = """
SELECT EXISTS (SELECT FROM thing t WHERE t.sector = %(sector)s AND 'open' = ANY(t.data_classes))
"""
SELECT_POSITIONS = "SELECT sector, append_id FROM sector_log"
SELECT_APPENDS = """
SELECT id, rows, time_min, time_max FROM append
WHERE sector = %(sector)s AND id > %(after)s AND id <= %(until)s ORDER BY id LIMIT %(limit)s
"""

_SEAL = object()
"""Held by this module alone: nothing else can make a PermittedConnection."""


class PermittedConnection:
    """A read-only transaction in which every query is filtered by data class; made by the gate."""

    __slots__ = ("_connection", "classes", "default_class", "kept", "sector")

    _connection: Connection[tuple[Any, ...]]
    sector: str
    classes: tuple[str, ...]
    default_class: str
    kept: dict[Any, Any]
    """What this process keeps of answers to the same permission: this sector, these classes."""

    def __init__(
        self,
        seal: object,
        connection: Connection[tuple[Any, ...]],
        sector: str,
        default_class: str,
        classes: tuple[str, ...],
        kept: dict[Any, Any],
    ) -> None:
        if seal is not _SEAL:
            raise TypeError("only consent.gate makes a PermittedConnection")
        for name, value in (
            ("_connection", connection),
            ("sector", sector),
            ("default_class", default_class),
            ("classes", classes),
            ("kept", kept),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError(f"a PermittedConnection is frozen: {name}")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError(f"a PermittedConnection is frozen: {name}")

    def fetch(self, query: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All rows of an SQL constant as dicts; ValueError for one that does not filter by class.

        Bound the query yourself (LIMIT): every row of the answer is held in memory.
        """
        given = self._bind(query, params)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), given, binary=True).fetchall()

    def copy(self, query: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """The rows one by one as COPY's binary tuples, however many; ValueError like `fetch`.

        For exports: the statement may take EXPORT_SECONDS_MAX. Nothing else can be asked before
        the last row was taken.
        """
        given = self._bind(query, params)
        with self._connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{EXPORT_SECONDS_MAX}s'".encode())
            command = b"COPY (" + query.encode() + b") TO STDOUT (FORMAT binary)"
            with cursor.copy(command, given) as copy:
                rows = (bytes(row) for row in copy)
                first = next(rows)[COPY_HEADER_BYTES:]
                yield from (row for row in chain([first], rows) if row not in (b"", COPY_TRAILER))

    def fetch_columns(
        self, query: str, params: Mapping[str, Any] | None = None
    ) -> dict[str, Column]:
        """The arrays of a query that answers one row of them, as numpy columns by name.

        Filtered and bounded as `fetch`, for the reads whose rows are too many to be Python objects.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(query.encode(), self._bind(query, params), binary=True)
            names = [column.name for column in cursor.description or ()]
            answer = cursor.pgresult
            if answer is None or answer.ntuples != 1:
                raise ValueError("a query of columns answers one row")
            values = (column_of(answer.ftype(n), answer.get_value(0, n)) for n in range(len(names)))
            return dict(zip(names, values, strict=True))

    def _bind(self, query: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        """The parameters with those that the gate alone sets."""
        given = dict(params or {})
        if CLASSES not in query:
            raise ValueError("a query must filter `data_class = ANY(%(classes)s)`")
        if taken := BOUND & given.keys():
            raise ValueError(f"bound by the gate alone: {sorted(taken)}")
        _check_texts(given)
        given.update(
            classes=list(self.classes), sector=self.sector, default_class=self.default_class
        )
        return given


@dataclass(frozen=True, slots=True)
class Append:
    """One append of a sector: its number, its rows, and the times between which they lie."""

    id: int
    rows: int
    time_min: datetime | None
    time_max: datetime | None


class Gate:
    """Opens the READ and GATE roles, and hands out connections that carry their filter."""

    def __init__(self, settings: Settings) -> None:
        url, size = _bounded(settings.database_url), settings.pool_connections_max
        self._read = role_pool(url, DatabaseRole.READ, size)
        self._gate = role_pool(url, DatabaseRole.GATE, size)
        self._has_open: dict[str, tuple[float, bool]] = {}
        self._kept: dict[tuple[str, tuple[str, ...]], dict[Any, Any]] = {}

    def close(self) -> None:
        """Close both pools."""
        self._read.close()
        self._gate.close()

    @contextmanager
    def reading(self, principal: Principal, sector: Sector) -> Iterator[PermittedConnection]:
        """One read-only snapshot of the sector's rows that this principal may see.

        CityError `unauthenticated` for a shared sector without a token (unless some of its streams
        are open: then those), `forbidden` for a token that may not read it and for a sector whose
        class is not read by class alone (audited), `unavailable` when the database is.
        """
        default = sector.data_class.value
        if not read_by_class(sector):
            self._refuse(
                audit.refusal(
                    principal,
                    recipient=principal.name,
                    sector=sector.name,
                    reason="personal-sector",
                )
            )
        classes = classes_of(principal)
        with _connected(self._read) as connection:
            declared = any(each.value in classes for each in sector.classes)
            if not declared and not self._has_open_streams(connection, sector.name):
                raise _no_entry(principal, sector.name)
            kept = self._kept.setdefault((sector.name, classes), {})
            yield PermittedConnection(_SEAL, connection, sector.name, default, classes, kept)

    def disclose(self, principal: Principal, question: Question, query: Query = PAGE) -> Chunk:
        """Read one chunk of what live grants permit, and write down its delivery; see `lease`.

        A token that no recipient of this platform has is refused on record: CityError `forbidden`,
        with a text that depends on nothing else that is stored.
        """
        question.check()
        chunk = None
        if {READ_PERSONAL, READ_EMERGENCY} & principal.scopes:
            with _connected(self._gate, writes=True, one_snapshot=True) as connection:
                delivery = personal.read(connection, principal, question, query)
                if delivery is not None:
                    chunk = _on_record(connection, delivery)
        if chunk is None:
            entry = audit.refusal(
                principal,
                recipient=principal.name,
                purpose=question.purpose,
                category=question.category,
                sector=question.sector.name,
                reason="no-recipient",
            )
            self._refuse(entry)
        return chunk

    def lease(self, chunk: Chunk) -> "Lease | None":
        """Permission to hand a chunk over at once; None where it must be read again.

        Who takes a grant back waits for it, and the server ends it where its holder does not.
        """
        lease = Lease(self._gate, chunk)
        if lease.stale:
            lease.release()
            return None
        return lease

    def act(self, principal: Principal, scope: str, write: Callable[[Session], Written]) -> Written:
        """Write one act of consent; returned is what holds on every channel from now on.

        CityError `unauthenticated` or `forbidden` for a principal without the scope.
        """
        if scope not in principal.scopes:
            raise _no_entry(principal, "consent")
        with _connected(self._gate, writes=True) as connection:
            written = write(connection)
            connection.commit()
            personal.wait_for_leases(connection, written.less)
        return written

    @contextmanager
    def working(self) -> Iterator[Session]:
        """One transaction for the platform's own workers: notices, timestamps, erasure."""
        with _connected(self._gate, writes=True) as connection:
            yield connection

    def match_requests(self) -> bool:
        """Match a few requests with what persons state; whether there is more to do."""
        with _connected(self._gate, writes=True) as connection:
            return matcher.turn(connection)

    def sequence(self, signer: Signer, secret: bytes, keys: SubjectKeys) -> int:
        """Give at most proofs.LEAVES_MAX new records their places in the tree; how many it did."""
        with self.working() as connection:
            return proofs.sequence(connection, signer, secret, keys)

    def receipts(
        self, principal: Principal, disclosure: UUID, keys: SubjectKeys
    ) -> list[dict[str, Any]] | None:
        """What proves a disclosure to whom it concerns; None where there is none for the caller."""
        if not {READ_PERSONAL, READ_EMERGENCY, READ_OWN} & principal.scopes:
            raise _no_entry(principal, "disclosures")
        with _connected(self._gate) as connection:
            return proofs.receipts(connection, principal, disclosure, keys)

    def checkpoint(self) -> str | None:
        """The newest signed checkpoint: it tells of no person, so everyone may have it."""
        with _connected(self._gate) as connection:
            return proofs.newest(connection)

    def consistency(self, old: int | None, new: int | None) -> dict[str, Any] | None:
        """What proves that one signed tree goes on in another; it tells of no person either."""
        with _connected(self._gate) as connection:
            return proofs.consistency(connection, old, new)

    @contextmanager
    def having(
        self, principal: Principal, scope: str, what: str, *, writes: bool = False
    ) -> Iterator[Session]:
        """One transaction of the gate's role about what is no personal row and no act of consent.

        CityError `unauthenticated` or `forbidden` for a principal without the scope.
        """
        if scope not in principal.scopes:
            raise _no_entry(principal, what)
        with _connected(self._gate, writes=writes) as connection:
            yield connection

    @contextmanager
    def own(self, principal: Principal, scope: str = READ_OWN) -> Iterator[Session]:
        """One read-only snapshot of what the caller said: CityError without the scope."""
        if scope not in principal.scopes:
            raise _no_entry(principal, "a person's own grants")
        with _connected(self._gate) as connection:
            yield connection

    @contextmanager
    def published(self) -> Iterator[Session]:
        """One read-only snapshot of what everyone may read; its role sees nothing personal."""
        with _connected(self._read) as connection:
            yield connection

    @contextmanager
    def reading_own(self, principal: Principal, sector: str | None = None) -> Iterator[Session]:
        """One snapshot of what is held about a person, for them; on record before it is read.

        CityError without scope read:own.
        """
        if READ_OWN not in principal.scopes:
            raise _no_entry(principal, "what is held about a person")
        with _connected(self._gate, writes=True, one_snapshot=True) as connection:
            audit.record(connection, audit.own(principal, sector))
            yield connection

    @contextmanager
    def operating(self, principal: Principal, scope: str) -> Iterator[Connection[tuple[Any, ...]]]:
        """One read-only snapshot for what operators read of the platform (consent.operations).

        CityError `unauthenticated` or `forbidden` for a principal without the scope.
        """
        if scope not in principal.scopes:
            raise _no_entry(principal, "the account")
        with _connected(self._read) as connection:
            yield connection

    def pools(self) -> dict[str, dict[str, int]]:
        """Each pool's own counts (psycopg_pool), by the pool's role."""
        return {pool.name: pool.get_stats() for pool in (self._read, self._gate)}

    @contextmanager
    def rejections(self, principal: Principal) -> Iterator[PermittedConnection]:
        """One read-only snapshot of the rejections; CityError without scope read:rejections.

        Queries filter by class: of what is personal they show no more than counts and reasons.
        """
        if "read:rejections" not in principal.scopes:
            raise _no_entry(principal, "the rejections")
        with _connected(self._gate) as connection:
            yield PermittedConnection(_SEAL, connection, "", "", classes_of(principal), {})

    def positions(self) -> dict[str, int]:
        """The newest append id of every sector: where a live stream starts."""
        with _connected(self._read) as connection:
            return {str(s): int(n) for s, n in connection.execute(SELECT_POSITIONS).fetchall()}

    def position(self, sector: str) -> Position:
        """Where a recipient's stream of a sector is that has everything until now; no rows."""
        with _connected(self._read) as connection:
            row = connection.execute(SELECT_POSITION, {"sector": sector}).fetchone()
        if row is None:
            raise CityError("unavailable", "the database does not answer now")
        return Position(*row)

    def appends(self, sector: str, after: int, until: int, limit: int) -> list[Append]:
        """Appends of a sector after one up to another: how many rows, over which times; no rows."""
        scope = {"sector": sector, "after": after, "until": until, "limit": limit}
        with _connected(self._read) as connection:
            return [Append(*row) for row in connection.execute(SELECT_APPENDS, scope).fetchall()]

    def check_health(self) -> None:
        """Return if the database answers within 2 s; CityError `unavailable` otherwise."""
        with _connected(self._read, HEALTH_SECONDS_MAX) as connection:
            connection.execute("SELECT 1")

    def _has_open_streams(self, connection: Connection[tuple[Any, ...]], sector: str) -> bool:
        at, known = self._has_open.get(sector, (float("-inf"), False))
        if time.monotonic() - at > OPEN_STREAMS_SECONDS:
            row = connection.execute(SELECT_HAS_OPEN, {"sector": sector}).fetchone()
            known = bool(row and row[0])
            self._has_open[sector] = (time.monotonic(), known)
        return known

    def _refuse(self, entry: audit.Record) -> Never:
        with _connected(self._gate, writes=True) as connection:
            audit.record(connection, entry)
        raise CityError("forbidden", "personal data leaves only with the consent of its subject")


def _on_record(connection: Session, delivery: Delivery) -> Chunk:
    """A delivery's chunk, once its record is durable; CityError `unavailable` where it is not.

    The rows are made while the server writes. What is quiet leaves nothing behind without rows.
    """
    if delivery.query.quiet and not delivery.pieces:
        connection.rollback()
        return delivery.chunk()
    with connection.pipeline():
        personal.record(connection, delivery)
        committed = connection.execute("COMMIT", prepare=False)
        chunk = delivery.chunk()
    if committed.statusmessage != "COMMIT":
        raise CityError("unavailable", "the database does not answer now")
    return chunk


class Lease:
    """Until `release` or its end, nobody's right is taken back from the chunk's recipient.

    `stale`: something of the chunk was taken back before.
    """

    def __init__(self, pool: ConnectionPool[Session], chunk: Chunk) -> None:
        self._opened = _connected(pool, writes=True)
        self._released = threading.Lock()
        connection = self._connection = self._opened.__enter__()
        try:
            personal.lease(connection, chunk.recipient)
            self._ends_at = time.monotonic() + personal.LEASE_SECONDS  # before the server's count
            self.stale = personal.is_stale(connection, chunk)
        except BaseException as error:
            self._opened.__exit__(type(error), error, error.__traceback__)
            raise

    def seconds_left(self) -> float:
        """How long it lasts; not above 0 once it has ended, with its session or by the clock."""
        if _has_word(self._connection):
            return 0.0
        return self._ends_at - time.monotonic()

    def release(self) -> None:
        """Give it back; a second time is nothing."""
        if self._released.acquire(blocking=False):
            with suppress(CityError, psycopg.Error):  # the server has ended it
                self._opened.__exit__(None, None, None)


def _has_word(connection: Session) -> bool:
    """Whether an idle session has heard from its server: that it was ended, most likely.

    A server says so before it lets the session's locks go.
    """
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _check_texts(params: Mapping[str, Any]) -> None:
    """CityError `invalid` for a text that no PostgreSQL text can be: the caller sent it."""
    for name, value in params.items():
        if isinstance(value, str) and ("\x00" in value or not _is_unicode(value)):
            raise invalid(name, "holds a character that no stored text has")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_entry(principal: Principal, what: str) -> CityError:
    if principal.role is None:
        return CityError("unauthenticated", f"{what} is shared: send an operator's bearer token")
    return CityError("forbidden", f"a token of role {principal.role.value} does not read {what}")


def _bounded(database_url: str) -> str:
    """The same database, with a limit on how long one statement may take."""
    if not database_url:
        raise CityError("unavailable", "CHIMATA_DATABASE_URL is not set")
    before = str(conninfo_to_dict(database_url).get("options") or "")
    # Reads are short: compiling one takes longer than the interpreter that it would save.
    limit = f"-c statement_timeout={STATEMENT_SECONDS_MAX}s -c jit=off"
    return make_conninfo(database_url, options=f"{before} {limit}".strip())


@contextmanager
def _connected(
    pool: ConnectionPool[Connection[tuple[Any, ...]]],
    timeout_seconds: float | None = None,
    *,
    writes: bool = False,
    one_snapshot: bool | None = None,
) -> Iterator[Connection[tuple[Any, ...]]]:
    """One transaction of a pool; the database's own failures become CityError `unavailable`.

    What only reads has one snapshot: a page that takes several queries agrees with itself.
    """
    snapshot = not writes if one_snapshot is None else one_snapshot
    try:
        with pool.connection(timeout_seconds) as connection:
            connection.read_only = not writes
            connection.isolation_level = IsolationLevel.REPEATABLE_READ if snapshot else None
            yield connection
    except psycopg.errors.QueryCanceled as error:
        raise CityError("unavailable", "that took too long: ask for less at a time") from error
    except psycopg.errors.IdleInTransactionSessionTimeout as error:
        raise CityError("unavailable", "that took too long to be still permitted") from error
    except (psycopg.OperationalError, PoolTimeout, PoolClosed, TooManyRequests) as error:
        raise CityError("unavailable", "the database does not answer now") from error
