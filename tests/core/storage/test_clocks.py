"""A gateway's clock by its delays: queueing does not count, backlogs are no slow clocks."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import from_datetime
from core.storage import clocks, gateways
from core.storage.clocks import ClockState, Heard, Slot, clock_of
from core.storage.pool import DatabaseRole, open_session

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
YEAR_SECONDS = 365 * 86_400.0


def slots(*minutes: tuple[float, float], samples: int = 60) -> list[Slot]:
    """One slot a minute: (shortest, median) delay in seconds."""
    return [Slot(START + i * MINUTE, *delays, samples) for i, delays in enumerate(minutes)]


@pytest.mark.parametrize(
    ("kept", "state", "skew"),
    [
        ([], ClockState.UNKNOWN, None),
        (slots((0.1, 0.3), samples=4), ClockState.UNKNOWN, None),
        (slots(*[(0.2, 0.5)] * 10), ClockState.GOOD, -0.2),
        (slots(*[(-1.0, -0.5)] * 3), ClockState.GOOD, 1.0),
        (slots(*[(-100.0, -99.5)] * 10), ClockState.AHEAD, 100.0),
        (slots(*[(60.0, 60.5)] * 10), ClockState.BEHIND, -60.0),
        # One minute of ten without a queue is enough.
        (slots(*[(30.0, 40.0)] * 9, (0.1, 20.0)), ClockState.GOOD, -0.1),
        # A recording of a year ago, in its own time.
        (slots(*[(YEAR_SECONDS, YEAR_SECONDS + 1)] * 10), ClockState.BACKLOG, None),
        # An outbox that is emptied at twice the speed of time.
        (slots(*[(900.0 - 60 * i, 930.0 - 60 * i) for i in range(10)]), ClockState.BACKLOG, None),
        # A sender that falls behind.
        (slots(*[(100.0 + 30 * i, 110.0 + 30 * i) for i in range(10)]), ClockState.BACKLOG, None),
        # One corrupt time stamp among good ones.
        (slots(*[(0.1, 0.2)] * 9, (-3e9, 0.2)), ClockState.UNSTEADY, None),
    ],
)
def test_what_delays_say(kept: list[Slot], state: ClockState, skew: float | None) -> None:
    found = clock_of(kept)
    assert (found.state, found.skew_seconds) == (state, skew)
    assert (found.uncertainty_seconds is None) == (skew is None)


def test_what_is_older_than_the_window_does_not_count() -> None:
    """A clock that was ahead and has been set right is good ten minutes later."""
    kept = [*slots(*[(-100.0, -99.0)] * 5), Slot(START + 15 * MINUTE, 0.1, 0.2, 60)]
    assert clock_of(kept).state is ClockState.GOOD
    assert clock_of(kept).measured_at == START + 15 * MINUTE
    assert clock_of(kept[:5]).state is ClockState.AHEAD


delays = st.floats(0, 30)


@given(
    st.floats(-800, 800),
    st.lists(st.lists(delays, min_size=5, max_size=20), min_size=1, max_size=10),
)
def test_the_skew_found_is_the_true_one_to_within_the_least_queueing(
    skew: float, queued: list[list[float]]
) -> None:
    """Whatever waited how long: the estimate is off by what the luckiest message waited."""
    kept = []
    for minute, waits in enumerate(queued):
        seen = sorted(wait - skew for wait in waits)
        kept.append(Slot(START + minute * MINUTE, seen[0], seen[len(seen) // 2], len(seen)))
    found = clock_of(kept)
    least = min(wait for waits in queued for wait in waits)
    assert found.delay_seconds == pytest.approx(least - skew)
    if found.skew_seconds is not None:
        assert found.skew_seconds == pytest.approx(skew - least)
        assert found.uncertainty_seconds is not None and found.uncertainty_seconds >= 0
    if skew > 35 or skew < -5:
        # Far enough off for its direction: the sign is right, or it is not called a clock at all.
        wrong = ClockState.BEHIND if skew > 0 else ClockState.AHEAD
        assert found.state not in (wrong, ClockState.GOOD)


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with open_session(storage_url, DatabaseRole.INGEST) as session:
        yield session


def heard(at: datetime, delay_min: float, median: float, samples: int, name: str = "g") -> Heard:
    time = from_datetime(at)
    return Heard(name, time, time, samples, delay_min, median)


def test_processes_share_a_window_and_a_ring_of_ten_minutes_is_kept(
    connection: psycopg.Connection[Any],
) -> None:
    for minute in range(25):
        at = START + minute * MINUTE
        clocks.write(connection, [heard(at, 10.0 + minute, 20.0, 10)])
        clocks.write(connection, [heard(at + timedelta(seconds=30), 5.0 + minute, 8.0, 30)])
    connection.commit()
    kept = connection.execute("SELECT count(*), sum(samples) FROM gateway_clock").fetchone()
    assert kept == (10, 400)
    (found,) = gateways.gateways(connection)
    assert found.first_seen == START
    assert found.last_seen == START + timedelta(minutes=24, seconds=30)
    assert (found.clock.samples, found.clock.delay_seconds) == (400, 20.0)
    medians = connection.execute("SELECT DISTINCT delay_median FROM gateway_clock").fetchall()
    assert medians == [(11.0,)]  # 10 of 20 s and 30 of 8 s


def test_what_comes_late_from_another_process_does_not_turn_the_ring_back(
    connection: psycopg.Connection[Any],
) -> None:
    clocks.write(connection, [heard(START + 10 * MINUTE, 1.0, 1.0, 9)])
    clocks.write(connection, [heard(START, -50.0, -50.0, 9), heard(START, 1.0, 1.0, 0, "mute")])
    kept = connection.execute("SELECT gateway, delay_min FROM gateway_clock").fetchall()
    assert kept == [("g", 1.0)]
    assert [g.id for g in gateways.gateways(connection)] == ["g", "mute"]
