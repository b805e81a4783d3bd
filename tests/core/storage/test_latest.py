"""The latest values: newest wins, whichever process flushes what, and in whatever order."""

import hashlib
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import from_datetime
from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, Decoded, Numbers, Stream
from core.storage.latest import Latest
from core.storage.message import Message
from core.storage.observations import SectorStore

NOW = 1_790_000_000_000_000
SECOND = 1_000_000
SECTOR = Sector(
    "toy", "例", "Toy", DataClass.OPEN, (), (ObservedProperty("level", "水位", "Level", "m"),)
)
STREAMS = tuple(Stream(f"thing-{number}", "level") for number in range(4))


def message(rows: list[tuple[int, int]], gateway: str) -> Message:
    """Rows of (stream, second); the result is the second, so that a repeat is a duplicate."""
    stream, second = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    numbers = Numbers(stream.astype(np.int32), NOW + second * SECOND, second.astype(np.float64))
    decoded = Decoded(STREAMS, numbers, messages=len(rows))
    payload = repr(rows).encode()
    return Message(
        gateway, "arrow", "test", NOW, payload, hashlib.sha256(payload).digest(), decoded
    )


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=6)
STEP = st.tuples(st.integers(0, 1), ROWS | st.none())
"""A process, and what it appends; None: it flushes."""


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(STEP, max_size=8))
def test_two_processes_leave_the_newest_of_all(
    storage_url: str, steps: list[tuple[int, list[tuple[int, int]] | None]]
) -> None:
    """Against a naive model: the largest second of each stream, and who last spoke for it."""
    with psycopg.connect(storage_url) as connection:
        tables = "observation, latest, thing_heard, projection, sector_log, append, batch, account"
        connection.execute(f"TRUNCATE {tables}")
        connection.execute("SET ROLE chimata_ingest")
        stores = [SectorStore(SECTOR), SectorStore(SECTOR)]
        newest: dict[int, int] = {}
        for process, rows in [*steps, (0, None), (1, None)]:
            if rows is None:
                flush = stores[process].drain()
                if flush is not None:
                    flush.write(connection)
                    connection.commit()
                continue
            stores[process].append(connection, [message(rows, f"gateway-{process}")])
            for stream, second in rows:
                newest[stream] = max(second, newest.get(stream, 0))
        found = connection.execute(
            "SELECT t.key, l.phenomenon_time, l.result, h.heard_time FROM latest l"
            " JOIN datastream d ON d.id = l.datastream_id JOIN thing t ON t.id = d.thing_id"
            " JOIN thing_heard h ON h.thing_id = t.id"
        ).fetchall()
        connection.rollback()
    seen = {
        key: (from_datetime(time), result, from_datetime(at)) for key, time, result, at in found
    }
    assert seen == {
        f"thing-{stream}": (NOW + second * SECOND, float(second), NOW + second * SECOND)
        for stream, second in newest.items()
    }


def columns(*rows: tuple[int, int, int]) -> tuple[Any, ...]:
    thing, gateway, time = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return thing, gateway.astype(np.int32), time + 5, time


def test_of_many_words_of_a_thing_the_last_one_counts() -> None:
    """In one append and over several, until they are drained."""
    latest = Latest("toy")
    latest.code_of("a"), latest.code_of("b")
    latest.hear(*columns((7, 0, 30), (7, 1, 40), (9, 0, 10)))
    latest.hear(*columns((7, 0, 35), (9, 1, 20)))
    flush = latest.drain()
    assert flush is not None
    things, spoken = flush.heard
    assert things.tolist() == [7, 9]
    assert spoken["time"].tolist() == [40, 20]
    assert [flush.gateways[code] for code in spoken["gateway"]] == ["b", "b"]
    assert latest.drain() is None
    latest.hear(*columns((7, 0, 1)))  # a clock that was set right: the table decides
    again = latest.drain()
    assert again is not None
    assert again.heard[1]["time"].tolist() == [1]


@pytest.mark.parametrize("count", [1, 3_000])
def test_a_flush_writes_as_many_as_changed(storage_url: str, count: int) -> None:
    """First inserted, then updated in place."""
    streams = tuple(Stream(f"t{number}", "level") for number in range(count))
    numbers = np.arange(count, dtype=np.int32)
    store = SectorStore(SECTOR)
    with psycopg.connect(storage_url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        for second in (1, 2):
            levels = (numbers + second / 2).astype(np.float64)
            columns = Numbers(numbers, np.full(count, NOW + second * SECOND), levels)
            payload = bytes([second])
            digest = hashlib.sha256(payload).digest()
            decoded = Decoded(streams, columns, messages=count)
            store.append(connection, [Message("g", "a", "t", NOW, payload, digest, decoded)])
            flush = store.drain()
            assert flush is not None
            flush.write(connection)
            connection.commit()
            found = connection.execute("SELECT count(*), sum(result) FROM latest").fetchone()
            assert found == (count, float(levels.sum()))
