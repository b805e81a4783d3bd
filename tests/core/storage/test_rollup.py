"""Whatever arrives in whatever order, every tier answers what the rows themselves would."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consent import history
from consent.gate import Gate
from core.clock import to_datetime
from core.sensorthings import Decoded, Numbers, Stream
from core.settings import Settings
from core.storage.observations import SectorStore
from core.storage.rollup import Worker
from core.tokens import ANONYMOUS
from tests.core.storage.test_append import SECTOR, decoded, message

SECOND = 1_000_000
MINUTE, QUARTER, HOUR, DAY = (width * SECOND for width in (60, 900, 3600, 86400))
BASE = 1_790_000_000 // 86400 * 86400 * SECOND
names = count()


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(storage_url) as session:
        session.execute("SET ROLE chimata_ingest")
        session.commit()
        yield session


@pytest.fixture
def gate(storage_url: str) -> Iterator[Gate]:
    opened = Gate(Settings(database_url=storage_url))
    yield opened
    opened.close()


@dataclass
class Model:
    """One Thing with a number and a category, in the database and as plain dicts by time (µs)."""

    connection: psycopg.Connection[Any]
    gate: Gate
    store: SectorStore = field(default_factory=lambda: SectorStore(SECTOR))
    worker: Worker = field(default_factory=Worker)
    thing: str = field(default_factory=lambda: f"thing-{next(names)}")
    numbers: dict[int, float] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)

    def append(self, rows: list[tuple[int, float | str]], received: int) -> None:
        """One append of one message; texts are states."""
        observed = []
        for moment, value in rows:
            kept: dict[int, Any] = self.states if isinstance(value, str) else self.numbers
            if kept.get(moment) != value and value in self.used(kept, moment):
                continue  # a result that a key had before is no correction
            self.used(kept, moment).add(value)
            kept[moment] = value
            name = "state" if isinstance(value, str) else "level"
            observed.append((self.thing, name, moment, value))
        sent = message(decoded(*observed))
        object.__setattr__(sent, "received_at", received)
        self.store.append(self.connection, [sent])

    _used: dict[tuple[int, int], set[Any]] = field(default_factory=dict)

    def used(self, kept: dict[int, Any], moment: int) -> set[Any]:
        return self._used.setdefault((id(kept), moment), set())

    def work(self, now: int) -> None:
        while self.worker.run(self.connection, now):
            pass

    def stream(self, reading: Any, name: str) -> history.Datastream | None:
        return history.select_datastream(reading, self.thing, name)

    def check(self, lower: int, upper: int, step: int, until: int) -> None:
        """Both histories of [lower, upper) by `step` are what the dicts say."""
        page = history.Page(to_datetime(lower), to_datetime(upper))
        interval = timedelta(microseconds=step)
        with self.gate.reading(ANONYMOUS, SECTOR) as reading:
            level, state = self.stream(reading, "level"), self.stream(reading, "state")
            if level is not None:
                found = history.select_buckets(reading, level, page, interval)
                assert [tuple(row.values()) for row in found] == self.buckets(lower, upper, step)
            if state is not None:
                last = to_datetime(max(until, lower))
                shown = history.select_states(reading, state, page, interval, last)
                assert shown == self.spent(lower, upper, step, max(until, lower))

    def buckets(self, lower: int, upper: int, step: int) -> list[tuple[Any, ...]]:
        grouped: dict[int, list[float]] = {}
        for moment in sorted(self.numbers):
            if lower <= moment < upper:
                grouped.setdefault(moment // step * step, []).append(self.numbers[moment])
        return [
            (to_datetime(b), len(v), sum(v) / len(v), min(v), max(v), v[-1])
            for b, v in sorted(grouped.items())
        ]

    def spent(self, lower: int, upper: int, step: int, until: int) -> list[dict[str, Any]]:
        """A state holds until the next one, the last until `until` or the page's end."""
        times = [t for t in sorted(self.states) if t < upper]
        if not times:
            return []
        found: dict[int, dict[str, Any]] = {}
        for moment, following in zip(times, [*times, until][1:], strict=True):
            state, end = self.states[moment], max(moment, min(upper, following))
            at = max(moment, lower) // step * step
            while at < end or (at <= moment and moment >= lower):
                spent = max(0, min(end, at + step) - max(moment, lower, at))
                begins = moment >= lower and at <= moment < at + step
                if spent or begins:
                    bucket = found.setdefault(at, {"count": 0, "last": None, "seconds": {}})
                    bucket["count"] += begins
                    bucket["last"] = state
                    bucket["seconds"].setdefault(state, 0)
                    bucket["seconds"][state] += spent
                at += step
        return [
            {
                "phenomenon_time": to_datetime(at),
                "count": bucket["count"],
                "last": bucket["last"],
                "seconds": {s: us / SECOND for s, us in bucket["seconds"].items()},
            }
            for at, bucket in sorted(found.items())
        ]


@pytest.fixture
def model(connection: psycopg.Connection[Any], gate: Gate) -> Model:
    return Model(connection, gate)


MOMENTS = st.one_of(
    st.integers(0, 2 * HOUR // SECOND).map(lambda s: BASE + s * SECOND),
    st.builds(
        lambda q, off: BASE + q * QUARTER + off,
        st.integers(0, 200),
        st.sampled_from([-1, 0, 1, MINUTE - 1, MINUTE, SECOND]),
    ),
)
ROWS = st.lists(
    st.tuples(MOMENTS, st.one_of(st.sampled_from(["a", "b"]), st.integers(0, 3).map(float))),
    min_size=1,
    max_size=12,
)
STEPS = st.one_of(
    st.tuples(st.just("append"), ROWS, MOMENTS), st.tuples(st.just("work"), st.none(), MOMENTS)
)
INTERVALS = st.sampled_from([7 * SECOND, MINUTE, 5 * MINUTE, 45 * MINUTE, HOUR, 5 * HOUR, DAY])


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(STEPS, min_size=1, max_size=8),
    st.lists(st.tuples(MOMENTS, MOMENTS, INTERVALS, MOMENTS), min_size=2, max_size=4),
)
def test_tiers_answer_what_the_rows_would(
    connection: psycopg.Connection[Any],
    gate: Gate,
    steps: list[tuple[str, Any, int]],
    asked: list[tuple[int, int, int, int]],
) -> None:
    model = Model(connection, gate)
    for number, (what, rows, moment) in enumerate(steps):
        if what == "append":
            model.append(rows, moment)
        else:
            model.work(moment)
        lower, upper, step, until = asked[number % len(asked)]
        model.check(min(max(lower, upper - 2000 * step), upper), upper, step, until)
    model.work(BASE + 30 * DAY)
    for step in (MINUTE, HOUR, DAY):
        model.check(BASE - DAY, BASE + 3 * DAY, step, BASE + 2 * DAY + HOUR)


def tables(connection: psycopg.Connection[Any]) -> dict[str, int]:
    found = {}
    for tier in ("minute", "quarter", "hour", "day"):
        for kind in ("rollup", "state"):
            row = connection.execute(f"SELECT count(*) FROM {kind}_{tier}").fetchone()
            found[f"{kind}_{tier}"] = row[0] if row else -1
    connection.commit()
    return found


def test_every_tier_is_filled_once_its_time_is_over(
    connection: psycopg.Connection[Any], model: Model
) -> None:
    rows: list[tuple[int, float | str]] = [(BASE + k * MINUTE, float(k)) for k in range(1440)]
    rows += [(BASE + k * HOUR, "ab"[k % 2]) for k in range(24)]
    model.append(rows, BASE)
    model.work(BASE + DAY + SECOND)  # within the grace
    assert tables(connection)["rollup_minute"] == 1439
    model.work(BASE + DAY + 6 * SECOND)
    assert tables(connection) == {
        "rollup_minute": 1440, "rollup_quarter": 96, "rollup_hour": 24, "rollup_day": 1,
        "state_minute": 24, "state_quarter": 24, "state_hour": 24, "state_day": 1,
    }  # fmt: skip
    for step in (MINUTE, HOUR, DAY):
        model.check(BASE, BASE + DAY, step, BASE + DAY)
    # Nothing waits: so the tiers are what was read, and not the rows.
    connection.execute("RESET ROLE")
    connection.execute("DELETE FROM observation")
    connection.commit()
    model.states.clear()
    with model.gate.reading(ANONYMOUS, SECTOR) as reading:
        level = model.stream(reading, "level")
        assert level is not None
        page = history.Page(to_datetime(BASE), to_datetime(BASE + DAY))
        assert len(history.select_buckets(reading, level, page, timedelta(minutes=1))) == 1440


def test_a_late_row_is_computed_for_its_own_datastream_alone(
    connection: psycopg.Connection[Any], gate: Gate
) -> None:
    """Else a meter that comes back after a year would have the nation's year computed anew."""
    store, worker = SectorStore(SECTOR), Worker()
    streams = tuple(Stream(f"t{k}", "level") for k in range(100))
    index = np.arange(100, dtype=np.int32)
    full = Numbers(index, np.full(100, BASE), index.astype(np.float64))
    sent = message(Decoded(streams, full, messages=1))
    object.__setattr__(sent, "received_at", BASE)
    store.append(connection, [sent])
    late = message(decoded(("t5", "level", BASE - DAY, 1.0), ("t5", "level", BASE, 7.0)))
    object.__setattr__(late, "received_at", BASE + HOUR)
    store.append(connection, [late])
    found = connection.execute("SELECT minutes FROM append ORDER BY id").fetchall()
    assert [len(row[0]) for row in found] == [1, 0]
    assert connection.execute("SELECT count(*) FROM rollup_late").fetchone() == (2,)
    while worker.run(connection, BASE + 2 * DAY):
        pass
    assert connection.execute("SELECT count(*) FROM rollup_late").fetchone() == (0,)
    best = connection.execute("SELECT max(maximum) FROM rollup_day").fetchone()
    assert best == (99.0,)
    assert connection.execute("SELECT count(*) FROM rollup_minute").fetchone() == (101,)


def test_a_sum_too_large_stops_nobody(connection: psycopg.Connection[Any], model: Model) -> None:
    model.append([(BASE, 1.7e308), (BASE + SECOND, 1.7e308), (BASE + 2 * SECOND, 1.0)], BASE)
    model.work(BASE + DAY * 2)
    row = connection.execute("SELECT count, sum, maximum, last FROM rollup_day").fetchone()
    assert row is not None and row[0] == 3 and np.isnan(row[1]) and row[2:] == (1.7e308, 1.0)


def test_minutes_done_one_by_one_do_not_widen_the_steps_of_a_backlog(
    connection: psycopg.Connection[Any], model: Model
) -> None:
    """A quick minute says little of how long a day takes; in one step it would hold up the rest."""
    for k in range(12):
        minute = BASE + k * HOUR
        model.append([(minute, float(k))], minute)
        model.work(minute + 2 * MINUTE)
    backlog = [(BASE + DAY + k * MINUTE, float(k)) for k in range(1000)]
    model.append(backlog, BASE + DAY)
    assert model.worker.run(connection, BASE + 3 * DAY, seconds_max=1e-3)
    assert tables(connection)["rollup_minute"] < 500
    model.work(BASE + 3 * DAY)
    assert tables(connection)["rollup_minute"] == 1012


def test_one_worker_at_a_time(connection: psycopg.Connection[Any], storage_url: str) -> None:
    with psycopg.connect(storage_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (0x524F4C4C,))
        assert Worker().run(connection, BASE) is False
        other.rollback()


def test_what_arrived_before_the_rollups_is_computed(
    connection: psycopg.Connection[Any], model: Model
) -> None:
    """Appends of a version before, or of another writer, do not say which minutes they touched."""
    model.append([(BASE + k * MINUTE, float(k)) for k in range(3)], BASE)
    connection.execute("UPDATE append SET minutes = NULL")
    connection.execute("INSERT INTO append (sector, id, rows) VALUES ('toy', 2, 0)")
    connection.execute("UPDATE sector_log SET append_id = 2")
    connection.commit()
    model.check(BASE, BASE + HOUR, MINUTE, BASE)
    model.work(BASE + DAY)
    assert tables(connection)["rollup_minute"] == 3
