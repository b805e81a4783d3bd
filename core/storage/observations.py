"""The one way observations enter storage: `SectorStore.append`, ledger and rows in one transaction.

A key (datastream, phenomenon_time) stands once in the observation tables, without a unique index:
appends of a sector are serialised by its row in sector_log; rows newer than all that is stored of
their Datastream cannot repeat and go straight through COPY; all others are merged with the rest.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import Connection, sql

from core import live
from core.clock import to_datetime, to_iso
from core.remembered import STREAMS_MAX, STREAMS_MIN, Remembered
from core.resolution import UNDECLARED, groomed
from core.sector import Sector
from core.sensorthings import (
    Decoded,
    Rejected,
    ResultKind,
    Stream,
    canonical_json,
    kinds_of,
    observation_json,
    used_streams,
)
from core.storage import ledger, rejections, rollup
from core.storage.careful import brief, write_apart
from core.storage.catalogue import Catalogue
from core.storage.columns import DOCUMENT, NUMBER, SHAPES, Rows, concatenate, copy_in
from core.storage.latest import Flush, Latest
from core.storage.ledger import Counts, Pending
from core.storage.message import Message, Outcome, rows_of, wanted
from core.storage.pool import is_native

Session = Connection[tuple[Any, ...]]
Finish = Callable[[Sequence[Outcome]], None]

DIRECT_COMPRESS_ROWS_MIN = 10_000
"""Fewer rows make poor columnstore batches: they wait as rows for the compression policy."""
ROWS_A_SEGMENT_MIN = 20
"""So do fewer of each Datastream: with one of each a row costs 5.4 µs and 400 bytes in the
columnstore, 0.7 µs and 61 bytes as a row; at twenty the times are equal, and the bytes half."""
CORRECTIONS_A_KEY_MAX = 16
"""Different results for one key inside one append; more is a fault of the sender."""
CATCH_UP_MAX = 50
"""Appends of other processes that are read one by one; beyond, everything is loaded anew."""

SELECT_TRANSACTION = "SELECT pg_current_xact_id()::text"
SELECT_FATE = "SELECT pg_xact_status(%s::text::xid8)"
SELECT_PARTITION = """
SELECT (extract(epoch FROM lower) * 1000000)::bigint, (extract(epoch FROM upper) * 1000000)::bigint,
       suffix
FROM ensure_partition(%s)
"""
CREATE_STAGE = """
CREATE TEMPORARY TABLE IF NOT EXISTS {stage} (LIKE {table}, message integer NOT NULL)
ON COMMIT DELETE ROWS
"""
MERGE = "SELECT message, stored, duplicate FROM {merge}(%s, %s)"
# A correction in a compressed chunk decompresses its segment; a limit would make it a rejection.
UNLIMITED_CORRECTIONS = "SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0"
DIRECT_COMPRESS = (
    "SET LOCAL timescaledb.enable_direct_compress_copy = {}",
    "SET LOCAL timescaledb.enable_direct_compress_copy_client_sorted = {}",
)


@dataclass(slots=True)
class _Append:
    """One append while it is being made; counters are by index of the message."""

    id: int
    messages: Sequence[Message]
    careful: bool = False
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    stored: Counter[int] = field(default_factory=Counter)
    duplicate: Counter[int] = field(default_factory=Counter)
    rejected: dict[int, list[Rejected]] = field(default_factory=lambda: defaultdict(list))
    copied: list[Rows] = field(default_factory=list)
    merged: list[Rows] = field(default_factory=list)
    direct: bool = False
    """Whether COPY goes straight to the columnstore now, in this transaction."""
    corrected: int = 0
    """Merged rows of the public tables that were no duplicates."""

    @property
    def received_at(self) -> int:
        return max(message.received_at for message in self.messages)

    @property
    def fresh(self) -> list[int]:
        """Messages that the ledger did not know."""
        return [i for i in range(len(self.messages)) if i not in self.outcomes]

    def count(self, counter: Counter[int], rows: Rows) -> None:
        indices, counts = np.unique(rows.message, return_counts=True)
        counter.update(dict(zip(indices.tolist(), counts.tolist(), strict=True)))

    def times(self) -> tuple[int, int] | None:
        """Smallest and largest phenomenon time written."""
        written = [rows for rows in (*self.copied, *self.merged) if len(rows)]
        if not written:
            return None
        return (
            min(int(rows.time.min()) for rows in written),
            max(int(rows.time.max()) for rows in written),
        )


_Write = Callable[[Session, _Append, Rows], None]


class SectorStore:
    """Appends of one sector by one process, by one thread at a time.

    Connections given to it act as chimata_ingest and are not in autocommit mode.
    """

    def __init__(self, sector: Sector, keeping: rejections.Keeping | None = None) -> None:
        self.sector = sector
        self._keeping = keeping or rejections.Keeping()
        self._catalogue = Catalogue(sector)
        self._latest = Latest(sector.name)
        self._loaded = False
        self._native = True
        self._partitions: list[tuple[int, int, str]] = []
        self._unsure: tuple[str, list[Outcome]] | None = None
        self._identified: Remembered[
            tuple[int, ResultKind], tuple[Sequence[Stream], NDArray[np.int32]]
        ] = Remembered(STREAMS_MAX)

    def append(
        self,
        connection: Session,
        messages: Sequence[Message],
        pending: Pending | None = None,
        finish: Finish | None = None,
        *,
        careful: bool = False,
    ) -> list[Outcome]:
        """Store messages, all or none, and say what became of each, in their order.

        `pending` is what the process holds besides these messages, for the account; `finish` ends
        the transaction: what it writes is committed with the rows, what it raises undoes all.
        `careful` is for what was refused before: each row that the database refuses is rejected.

        After a psycopg error nothing is stored, or, when the connection broke during COMMIT, it is
        not known: either way the caller repeats this very call on a working connection.
        """
        try:
            settled = self._settle_unsure(connection)
            if settled is not None:
                return settled
            if not self._loaded:
                self._load(connection)
            return self._append(connection, messages, pending, finish, careful=careful)
        except BaseException:
            self._loaded = False  # ids and marks of a failed append are void
            if not connection.closed:
                connection.rollback()
            raise

    def drain(self) -> Flush | None:
        """Latest values that changed since the last call, for the projection's writer."""
        return self._latest.drain() if self._loaded else None  # never what was not committed

    def _settle_unsure(self, connection: Session) -> list[Outcome] | None:
        """Whether the last COMMIT, whose answer was lost, had happened after all."""
        if self._unsure is None:
            return None
        transaction, outcomes = self._unsure
        try:
            row = connection.execute(SELECT_FATE, (transaction,)).fetchone()
        except psycopg.DataError:  # a number that this server has not come to: a restored copy
            row = None
        connection.rollback()  # or the session would stay in this transaction until the next append
        self._unsure = None
        return outcomes if row and row[0] == "committed" else None

    def _load(self, connection: Session) -> None:
        self._catalogue.load(connection)
        self._latest.load(connection)
        self._partitions.clear()
        self._identified.clear()
        self._native = is_native(connection)
        if not self._native:
            connection.execute(UNLIMITED_CORRECTIONS)
        self._loaded = True

    def _append(
        self,
        connection: Session,
        messages: Sequence[Message],
        pending: Pending | None,
        finish: Finish | None,
        *,
        careful: bool,
    ) -> list[Outcome]:
        row = connection.execute(ledger.NEXT_APPEND, {"sector": self.sector.name}).fetchone()
        append = _Append(row[0] if row else 0, messages, careful)
        if append.id - 1 - self._latest.append_id > CATCH_UP_MAX:
            self._load(connection)  # the projection has seen nearly all of them
        if self._latest.append_id != append.id - 1:
            self._latest.catch_up(connection, append.id - 1)
        self._settle_known(connection, append)
        for rows in self._rows(connection, append):
            self._write(connection, append, rows)
        self._record(connection, append)
        if pending is not None:
            pending.replace(connection)
        if finish is not None:
            finish([append.outcomes[index] for index in range(len(messages))])
        self._commit(connection, append)
        self._remember(append)
        return [append.outcomes[index] for index in range(len(messages))]

    # -- identities -----------------------------------------------------------------------------

    def _settle_known(self, connection: Session, append: _Append) -> None:
        """Settle the batches that were taken before, or earlier in this very append."""
        identities = [m.identity for m in append.messages if m.identity is not None]
        taken = ledger.known_batches(connection, identities)
        for index, message in enumerate(append.messages):
            if message.identity is None:
                continue
            content = (self.sector.name, message.format, message.sha256)
            if message.identity not in taken:
                taken[message.identity] = content
            elif taken[message.identity] == content:
                counts = message.counts(duplicate=message.decoded.received)
                append.outcomes[index] = Outcome("duplicate", counts)
            else:
                counts = message.counts(rejected=message.decoded.received)
                detail = f"batch {message.boot}/{message.seq} was taken before with other content"
                append.outcomes[index] = Outcome("refused", counts, "batch-conflict", detail)
                append.rejected[index].append(Rejected("batch-conflict", detail, message.payload))

    # -- columns --------------------------------------------------------------------------------

    def _rows(self, connection: Session, append: _Append) -> Iterator[Rows]:
        """The fresh messages' observations by shape, sorted, under their Datastreams' ids."""
        fresh = [(index, append.messages[index]) for index in append.fresh]
        new = [(i, m) for i, m in fresh if not self._identifies(m.decoded)]
        self._catalogue.datastreams(connection, wanted(new))
        described = [(update, m.gateway) for _, m in fresh for update in m.decoded.things]
        self._catalogue.describe(connection, described)
        texts = {t for _, m in fresh if m.decoded.categories for t in m.decoded.categories.result}
        codes = self._catalogue.codes(connection, texts) if texts else {}
        parts: dict[str, list[Rows]] = defaultdict(list)
        for index, message in fresh:
            for rows, kind in rows_of(message.decoded, index, codes.__getitem__):
                known = self._identify(append, message.decoded.streams, rows, kind)
                parts[rows.shape.table].append(known)
        for shape in SHAPES:
            if parts[shape.table]:
                yield self._groomed(concatenate(shape, parts[shape.table]).sorted())

    def _groomed(self, rows: Rows) -> Rows:
        """Numbers in their Datastreams' declared resolution."""
        if rows.shape is not NUMBER:
            return rows
        decimals = self._catalogue.decimals[rows.datastream]
        if len(decimals) and (decimals == decimals[0]).all():
            decimals = decimals[0]  # one number for all is twice as fast
            if decimals == UNDECLARED:
                return rows
        return replace(rows, results=(groomed(rows.results[0], decimals),))

    def _identify(
        self, append: _Append, streams: Sequence[Stream], rows: Rows, kind: ResultKind
    ) -> Rows:
        """Stream indices become Datastream ids; rows unfit for their Datastream are rejected."""
        ids, reasons = self._ids(streams, rows, kind)
        if reasons:
            for position in np.flatnonzero(np.isin(rows.datastream, list(reasons))).tolist():
                index = int(rows.datastream[position])
                time = to_iso(int(rows.time[position]))
                payload = observation_json(streams[index], time, rows.value_at(position))
                message = int(rows.message[position])
                append.rejected[message].append(
                    Rejected("datastream-conflict", reasons[index], payload, position, "json")
                )
        known_rows = rows.take(ids[rows.datastream] >= 0) if reasons else rows
        return Rows(
            rows.shape,
            ids[known_rows.datastream],
            known_rows.time,
            known_rows.quality,
            known_rows.message,
            known_rows.results,
            known_rows.documents,
        )

    def _identifies(self, decoded: Decoded) -> bool:
        """Whether every column of the message is of streams whose ids are kept."""
        return all(self._identified.get((id(decoded.streams), k)) for _, k in kinds_of(decoded))

    def _ids(
        self, streams: Sequence[Stream], rows: Rows, kind: ResultKind
    ) -> tuple[NDArray[np.int32], dict[int, str]]:
        """Datastream ids by stream index, -1 where a reason says why not.

        Decoders hand over the same tuple of streams for every batch of a gateway that repeats its
        dictionaries, so the answer is kept by identity, beside the tuple that must then live on.
        """
        key = (id(streams), kind)
        remembered = self._identified.get(key)
        if remembered is not None:
            return remembered[1], {}
        ids = np.full(len(streams), -1, np.int32)
        reasons: dict[int, str] = {}
        used = np.flatnonzero(np.bincount(rows.datastream)).tolist()
        for index in used:
            stream = streams[index]
            known = self._catalogue.known(stream)
            if known.kind is not kind:
                reasons[index] = f"result: {kind} where the Datastream holds {known.kind}"
            elif stream.unit not in (None, known.unit):
                reasons[index] = f"unit: {stream.unit} where the Datastream has {known.unit}"
            else:
                ids[index] = known.id
        if len(used) == len(streams) >= STREAMS_MIN and not reasons:
            self._identified.put(key, (streams, ids), len(streams))
        return ids, reasons

    # -- rows -----------------------------------------------------------------------------------

    def _write(self, connection: Session, append: _Append, rows: Rows) -> None:
        """COPY what cannot repeat, merge the rest; a key's first result before its corrections."""
        self._latest.grow(self._catalogue.size)
        personal = self._catalogue.personal[rows.datastream]
        for number, turn in enumerate(self._turns(append, rows)):
            late = turn.time <= self._latest.time[turn.datastream]
            apart = self._catalogue.personal[turn.datastream] if personal.any() else None
            if apart is not None and apart.any():
                self._put(connection, append, turn.take(apart), self._merge_personal)
                turn, late = turn.take(~apart), late[~apart]  # noqa: PLW2901
            if number:
                late = np.ones(len(turn), bool)
            self._put(connection, append, turn.take(~late) if late.any() else turn, self._copy)
            if late.any():
                self._put(connection, append, turn.take(late), self._merge_public)

    def _put(self, connection: Session, append: _Append, rows: Rows, write: _Write) -> None:
        """Write rows, where asked for with care; partitions are made before, to stay."""
        if not len(rows):
            return
        if not append.careful:
            write(connection, append, rows)
            return
        self._partition_of(connection, rows)

        def refuse(row: Rows, error: psycopg.Error) -> int:
            append.rejected[int(row.message[0])].append(self._refused(append, row, error))
            return sum(map(len, append.rejected.values()))

        write_apart(connection, rows, lambda part: write(connection, append, part), refuse)

    def _refused(self, append: _Append, row: Rows, error: psycopg.Error) -> Rejected:
        message, datastream = int(row.message[0]), int(row.datastream[0])
        decoded = append.messages[message].decoded
        used = {index for columns, _ in kinds_of(decoded) for index in used_streams(columns)}
        known = ((self._catalogue.known(s), s) for s in map(decoded.streams.__getitem__, used))
        kind, stream = next((each.kind, s) for each, s in known if each.id == datastream)
        result = row.value_at(0)
        if kind is ResultKind.CATEGORY:
            result = self._catalogue.text_of(int(result))
        payload = observation_json(stream, to_iso(int(row.time[0])), result)
        item = len(append.rejected[message])
        return Rejected("storage-refused", brief(error), payload, item, "json")

    def _turns(self, append: _Append, rows: Rows) -> Iterator[Rows]:
        """Split rows so that no key repeats inside a turn, in order of arrival.

        A repeat of a result that the key already had in this append is a duplicate.
        """
        if len(rows) < 2:  # noqa: PLR2004
            yield rows
            return
        repeats = (np.diff(rows.datastream) == 0) & (np.diff(rows.time) == 0)
        if not repeats.any():
            yield rows
            return
        turn = np.zeros(len(rows), np.int64)
        seen: dict[Any, int] = {}
        again = np.append(repeats, False) | np.insert(repeats, 0, False)
        for position in np.flatnonzero(again).tolist():
            if position == 0 or not repeats[position - 1]:
                seen = {}
            result = rows.key_at(position)
            turn[position] = -1 if result in seen else len(seen)
            seen.setdefault(result, len(seen))
        append.count(append.duplicate, rows.take(turn < 0))
        for position in np.flatnonzero(turn >= CORRECTIONS_A_KEY_MAX).tolist():
            append.rejected[int(rows.message[position])].append(
                Rejected(
                    "too-many-corrections",
                    f"result: more than {CORRECTIONS_A_KEY_MAX} results for one time",
                    canonical_json(rows.value_at(position)),
                    position,
                    None,
                )
            )
        for number in range(min(int(turn.max()) + 1, CORRECTIONS_A_KEY_MAX)):
            yield rows.take(turn == number)

    def _copy(self, connection: Session, append: _Append, rows: Rows) -> None:
        table = sql.Identifier(rows.shape.table + self._partition_of(connection, rows))
        if not self._native and append.direct != _is_dense(rows):
            append.direct = not append.direct
            for statement in DIRECT_COMPRESS:
                connection.execute(statement.format("on" if append.direct else "off").encode())
        written = copy_in(connection, table, rows.shape.columns, rows.packed(append.id))
        if written != len(rows):
            raise psycopg.DataError(f"COPY took {written} of {len(rows)} rows")
        append.count(append.stored, rows)
        append.copied.append(rows)

    def _merge_public(self, connection: Session, append: _Append, rows: Rows) -> None:
        self._merge(connection, append, rows, "public")

    def _merge_personal(self, connection: Session, append: _Append, rows: Rows) -> None:
        self._merge(connection, append, rows, "personal")

    def _merge(self, connection: Session, append: _Append, rows: Rows, schema: str) -> None:
        self._partition_of(connection, rows)
        staged = f"staged_{rows.shape.table}"
        stage = sql.Identifier("pg_temp", staged)
        create = sql.SQL(CREATE_STAGE).format(
            stage=sql.Identifier(staged), table=sql.Identifier("public", rows.shape.table)
        )
        connection.execute(create)
        connection.execute(sql.SQL("GRANT SELECT ON {} TO chimata_gate").format(stage))
        connection.execute(sql.SQL("TRUNCATE {}").format(stage))
        packed = rows.packed(append.id, with_message=True)
        copy_in(connection, stage, (*rows.shape.columns, "message"), packed)
        # Few rows over a wide span are looked up one by one, many are joined: 0.06 s against 0.4.
        connection.execute(sql.SQL("ANALYZE {}").format(stage))
        merge = sql.SQL(MERGE).format(merge=sql.Identifier(schema, f"merge_{rows.shape.table}"))
        times = (to_datetime(int(rows.time.min())), to_datetime(int(rows.time.max())))
        for message, stored, duplicate in connection.execute(merge, times):
            append.stored[message] += stored
            append.duplicate[message] += duplicate
            append.corrected += stored if schema == "public" else 0
        if schema == "public":
            append.merged.append(rows)

    def _partition_of(self, connection: Session, rows: Rows) -> str:
        """The suffix of the one partition that takes all rows, or ''; missing ones are made."""
        if not self._native:
            return ""
        left = rows.time
        touched = []
        while len(left):
            first = int(left[0])
            bounds = next((b for b in self._partitions if b[0] <= first < b[1]), None)
            if bounds is None:
                row = connection.execute(SELECT_PARTITION, (to_datetime(first),)).fetchone()
                bounds = (row[0], row[1], row[2]) if row else (first, first + 1, "")
                self._partitions.append(bounds)
            touched.append(bounds[2])
            left = left[(left < bounds[0]) | (left >= bounds[1])]
        return touched[0] if len(touched) == 1 else ""

    # -- the account ----------------------------------------------------------------------------

    def _record(self, connection: Session, append: _Append) -> None:
        """Settle the fresh messages and write ledger, rejections and account."""
        for index in append.fresh:
            append.outcomes[index] = _settle(append, index)
        self._record_append(connection, append)
        totals: dict[ledger.Source, Counts] = {}
        for index, message in enumerate(append.messages):
            source = message.source(self.sector.name)
            totals[source] = totals.get(source, Counts()) + append.outcomes[index].counts
        ledger.add_to_account(connection, totals.items())
        kept = [
            rejections.Rejection(
                m.gateway, m.format, m.channel, m.boot, m.seq, r.item, r.reason, r.detail,
                r.payload, m.received_at, m.format if r.format == "" else r.format,
            )
            for index, m in enumerate(append.messages)
            for r in (*_own_rejections(append, index), *append.rejected[index])
        ]  # fmt: skip
        rejections.store(connection, self.sector, kept, self._keeping)
        ledger.add_to_rejected(connection, self.sector.name, Counter(r.reason for r in kept))

    def _record_append(self, connection: Session, append: _Append) -> None:
        times = append.times()
        rows = sum(map(len, (*append.copied, *append.merged)))
        connection.execute(
            ledger.INSERT_APPEND,
            {
                "sector": self.sector.name,
                "append_id": append.id,
                "rows": rows,
                "time_min": to_datetime(times[0]) if times else None,
                "time_max": to_datetime(times[1]) if times else None,
                "minutes": self._mark(connection, append),
            },
        )
        entries = []
        for index, m in enumerate(append.messages):
            outcome = append.outcomes[index]
            c = outcome.counts
            if m.identity and outcome.result != "duplicate" and outcome.reason != "batch-conflict":
                entries.append((
                    *m.identity, m.format, m.sha256, m.received_at,
                    c.received, c.stored, c.duplicate, c.rejected,
                ))  # fmt: skip
        ledger.enter_batches(connection, self.sector.name, append.id, entries)
        if rows:
            live.announce(connection, self.sector.name, append.id, rows)

    def _mark(self, connection: Session, append: _Append) -> str:
        """Note what the rollups have to compute anew; rows that only repeated change nothing."""
        merged = append.merged if append.corrected else ()
        parts = (*append.copied, *merged)
        return rollup.mark(connection, parts, append.received_at, self._catalogue.size)

    def _commit(self, connection: Session, append: _Append) -> None:
        """See merged rows as the table has them, then commit, keeping a way to ask how it ended."""
        for rows in append.copied:
            self._latest.take(rows, append.received_at, append.id)
        for rows in append.merged:
            times = (to_datetime(int(rows.time.min())), to_datetime(int(rows.time.max())))
            self._latest.see(connection, rows.shape, (append.id - 1, append.id), times)
        row = connection.execute(SELECT_TRANSACTION).fetchone()
        outcomes = [append.outcomes[index] for index in range(len(append.messages))]
        self._unsure = (row[0], outcomes) if row else None
        connection.commit()
        self._unsure = None

    def _remember(self, append: _Append) -> None:
        """After the commit: what was heard, and how far this process has seen the sector."""
        self._latest.append_id = append.id
        codes = np.array([self._latest.code_of(m.gateway) for m in append.messages], np.int32)
        received = np.array([m.received_at for m in append.messages], np.int64)
        for rows in (*append.copied, *append.merged):
            last = np.append(np.flatnonzero(np.diff(rows.datastream)), len(rows) - 1)
            things, message = self._catalogue.thing_of[rows.datastream[last]], rows.message[last]
            self._latest.hear(things, codes[message], received[message], rows.time[last])
        heard = [
            (self._catalogue.things[each.thing], index, each.phenomenon_time)
            for index, message in enumerate(append.messages)
            if message.decoded.heard and append.outcomes[index].result != "duplicate"
            for each in message.decoded.heard
            if each.thing in self._catalogue.things
        ]
        if heard:
            things, index, times = np.array(heard, np.int64).T
            self._latest.hear(things, codes[index], received[index], times)


def _is_dense(rows: Rows) -> bool:
    """Whether sorted rows make columnstore batches worth having."""
    if rows.shape is DOCUMENT or len(rows) < DIRECT_COMPRESS_ROWS_MIN:
        return False
    segments = np.count_nonzero(np.diff(rows.datastream)) + 1
    return len(rows) >= int(segments) * ROWS_A_SEGMENT_MIN


def _own_rejections(append: _Append, index: int) -> Sequence[Rejected]:
    """What the decoder rejected, unless the ledger had settled the whole message before."""
    outcome = append.outcomes[index]
    known = outcome.result == "duplicate" or outcome.reason == "batch-conflict"
    return () if known else append.messages[index].decoded.rejected


def _settle(append: _Append, index: int) -> Outcome:
    """A fresh message's outcome; one of which nothing could be taken at all is refused."""
    decoded = append.messages[index].decoded
    lost = (*decoded.rejected, *append.rejected[index])
    counts = append.messages[index].counts(
        stored=append.stored[index],
        duplicate=append.duplicate[index],
        rejected=len(lost),
    )
    # A message may hold no observation and still be taken: a MAP, a repeated state.
    taken = decoded.things or decoded.heard or decoded.unchanged
    if lost and len(lost) == counts.received and not taken:
        return Outcome("refused", counts, lost[0].reason, lost[0].detail, lost)
    return Outcome("stored", counts, rejected=lost)
