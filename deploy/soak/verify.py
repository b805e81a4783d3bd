"""After a soak: every row of the database against what was sent, and the account and rejections."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from deploy.soak import load as loads
from deploy.soak.load import LOOSE_ROWS, SECTOR, Load

ROWS_A_FETCH = 50_000

# The part of the Thing's name after the gateway is its group and stream.
SELECT_ROWS = """
SELECT substr(t.key, %(prefix)s), (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint,
       o.result
FROM observation o JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %(sector)s AND t.key LIKE %(like)s
"""
COUNT_SUPERSEDED = """
SELECT count(*) FROM superseded o
JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %(sector)s AND t.key LIKE %(like)s
"""
COUNT_THINGS_ROWS = """
SELECT count(*)
FROM observation o JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %(sector)s AND t.key LIKE %(like)s
"""
SELECT_REJECTED = "SELECT DISTINCT boot, seq, sha256 FROM rejection WHERE gateway = %(gateway)s"
SELECT_ACCOUNT = """
SELECT coalesce(sum(received), 0)::bigint, coalesce(sum(stored), 0)::bigint,
       coalesce(sum(duplicate), 0)::bigint, coalesce(sum(rejected), 0)::bigint
FROM {table} WHERE gateway = %(gateway)s
"""


@dataclass
class Compared:
    """What a comparison found, in rows; the first group has to be 0."""

    lost: int = 0
    twice: int = 0
    wrong: int = 0
    """Another result than the newest that was sent."""
    foreign: int = 0
    """Rows that nobody sent."""
    unrejected: int = 0
    """Malformed messages that are not in the rejection store."""
    rejected_wrongly: int = 0
    miscounted: int = 0
    """Gateways whose account does not add up, or counts as stored what is not there."""

    sent: int = 0
    stored: int = 0
    corrected: int = 0
    duplicate: int = 0
    rejected: int = 0
    loose_gone: int = 0
    """Rows of loose messages that the broker took and nobody gave a receipt for."""
    examples: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """What must not be, in words."""
        told = (
            (self.lost, "rows with a receipt are lost"),
            (self.twice, "rows are there twice"),
            (self.wrong, "rows do not have the newest result"),
            (self.foreign, "rows were never sent"),
            (self.unrejected, "malformed messages are not in the rejection store"),
            (self.rejected_wrongly, "well-formed messages are in the rejection store"),
            (self.miscounted, "gateways' accounts do not fit what is stored"),
        )
        return [f"{count} {words}" for count, words in told if count]


def wait_for_loose(url: str, load: Load, loose: int, seconds_max: float) -> None:
    """Until every loose row is there, or the broker had time enough to deliver it again."""
    wanted = sum(not load.loose_is_malformed(number) for number in range(loose)) * LOOSE_ROWS
    query = {"sector": SECTOR, "like": f"{load.gateway}-l%"}
    deadline = time.monotonic() + seconds_max
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(COUNT_THINGS_ROWS, query).fetchone()
            if row and row[0] >= wanted:
                return
            time.sleep(1.0)


def compare(
    url: str, load: Load, blocks: int, loose: int, *, loose_has_receipts: bool, into: Compared
) -> None:
    """Compare one gateway's rows; `blocks` and `loose` messages of it have been acknowledged."""
    wanted = loads.rows_of_blocks(load, blocks)
    counts = np.zeros(len(wanted), np.uint8)
    loose_counts = np.zeros(loose * LOOSE_ROWS, np.uint8)
    with psycopg.connect(url) as connection:
        for group, streams, times, results in _rows(connection, load):
            if group == "l":
                rows = load.find_loose(streams, times)
                _count(load, rows, times, results, load.results(rows), loose_counts, into)
                continue
            rows = load.find(streams, times)
            rows = np.where(_is_jump(load, rows) == (group == "j"), rows, -1)
            newest = load.results(rows) + load.corrected(rows, blocks)
            _count(load, rows, times, results, newest, counts, into)
        into.foreign += int(counts[~wanted].sum())
        lost = np.flatnonzero(wanted & (counts == 0))
        _tell(into, "lost", load, lost // load.rows_a_batch)
        into.lost += len(lost)
        into.sent += int(wanted.sum())
        into.twice += int(np.maximum(counts.astype(np.int64) - 1, 0).sum())
        into.twice += int(np.maximum(loose_counts.astype(np.int64) - 1, 0).sum())
        there = _compare_loose(load, loose_counts, loose_has_receipts, into)
        _compare_rejections(connection, load, blocks, loose, loose_has_receipts, into)
        _compare_account(connection, load, blocks, int((counts > 0).sum()) + there, into)


def _rows(
    connection: "psycopg.Connection[Any]", load: Load
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """(group, streams, times, results) of what is stored of a gateway, some rows at a time."""
    query = {"sector": SECTOR, "like": f"{load.gateway}-%", "prefix": len(load.gateway) + 2}
    with connection.cursor("soak") as cursor:
        cursor.itersize = ROWS_A_FETCH
        cursor.execute(SELECT_ROWS, query)
        while fetched := cursor.fetchmany(ROWS_A_FETCH):
            names, times, results = zip(*fetched, strict=True)
            groups = np.array([name[0] for name in names])
            streams = np.array([int(name[1:]) for name in names], np.int64)
            for group in "njl":
                chosen = groups == group
                if chosen.any():
                    yield (group, streams[chosen], np.array(times, np.int64)[chosen],
                           np.array(results, np.float64)[chosen])  # fmt: skip


def _is_jump(load: Load, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    jumping: NDArray[np.bool_] = load.offsets(rows) > 1
    return jumping


def _count(
    load: Load,
    rows: NDArray[np.int64],
    times: NDArray[np.int64],
    results: NDArray[np.float64],
    newest: NDArray[np.float64],
    counts: NDArray[np.uint8],
    into: Compared,
) -> None:
    known = (rows >= 0) & (rows < len(counts))
    into.foreign += int((~known).sum())
    _tell(into, "never sent, times", load, times[~known])
    np.add.at(counts, rows[known], 1)
    into.stored += int(known.sum())
    wrong = known & (results != newest)
    into.wrong += int(wrong.sum())
    _tell(into, "wrong result in", load, rows[wrong] // load.rows_a_batch)


def _compare_loose(
    load: Load, counts: NDArray[np.uint8], has_receipts: bool, into: Compared
) -> int:
    """How many loose rows are there."""
    messages = np.arange(len(counts)) // LOOSE_ROWS
    well_formed = np.array([not load.loose_is_malformed(int(n)) for n in messages], bool)
    gone = np.flatnonzero(well_formed & (counts == 0))
    into.sent += int(well_formed.sum())
    into.foreign += int(counts[~well_formed].sum())
    if has_receipts:
        into.lost += len(gone)
    else:
        into.loose_gone += len(gone)
    _tell(into, "loose gone", load, gone // LOOSE_ROWS)
    return int((counts > 0).sum())


def _compare_rejections(
    connection: "psycopg.Connection[Any]", load: Load, blocks: int, loose: int,
    loose_has_receipts: bool, into: Compared,
) -> None:  # fmt: skip
    """Every malformed message has its rejection, and nothing else has one."""
    found = connection.execute(SELECT_REJECTED, {"gateway": load.gateway}).fetchall()
    sequences = {seq for boot, seq, _ in found if boot == load.boot}
    wanted = set(loads.malformed_sequences(load, blocks))
    into.unrejected += len(wanted - sequences)
    into.rejected_wrongly += len(sequences - wanted)
    _tell(into, "not rejected", load, np.array(sorted(wanted - sequences)))
    _tell(into, "rejected", load, np.array(sorted(sequences - wanted)))
    malformed = sum(load.loose_is_malformed(number) for number in range(loose))
    got = len({digest for boot, _, digest in found if boot is None})
    into.rejected += len(found)
    into.rejected_wrongly += max(0, got - malformed)
    if loose_has_receipts:
        into.unrejected += max(0, malformed - got)
    else:
        into.loose_gone += max(0, malformed - got)


def _compare_account(
    connection: "psycopg.Connection[Any]", load: Load, blocks: int, there: int, into: Compared
) -> None:
    """What is counted as stored are the rows that are there and the corrections, each once."""
    accounts = [
        connection.execute(
            sql.SQL(SELECT_ACCOUNT).format(table=sql.Identifier(table)), {"gateway": load.gateway}
        ).fetchone()
        for table in ("account", "account_total")
    ]
    received, stored, duplicate, rejected = accounts[0] or (0, 0, 0, 0)
    names = {"sector": SECTOR, "like": f"{load.gateway}-%"}
    superseded = connection.execute(COUNT_SUPERSEDED, names).fetchone()
    corrected = loads.corrections(load, blocks)
    into.corrected += corrected
    into.duplicate += duplicate
    fits = stored == there + corrected and superseded == (corrected,)
    adds_up = received == stored + duplicate + rejected and accounts[0] == accounts[1]
    if not (fits and adds_up):
        into.miscounted += 1
        into.examples.append(
            f"{load.gateway}: received {received}, stored {stored}, duplicate {duplicate}, rejected"
            f" {rejected}; {there} rows are there, {corrected} corrected, superseded {superseded}"
        )


def _tell(into: Compared, what: str, load: Load, numbers: NDArray[np.int64]) -> None:
    """A few examples of what is wrong, for whoever has to find out why."""
    if len(numbers):
        into.examples.append(f"{load.gateway}: {what} {np.unique(numbers)[:8].tolist()}")
