"""Gateways' clocks through the pipeline: sampled before anything is rejected."""

from typing import Any

import psycopg
import pytest

from core.clock import now_us
from core.settings import Settings
from core.storage.clocks import Clock
from core.storage.gateways import gateways
from ingest.clocks import SAMPLES_MAX, Clocks, newest_time
from tests.core.storage.test_append import decoded
from tests.ingest.helpers import SECOND, Channel, payload, running, until

pytestmark = pytest.mark.timeout(120)
YEAR_US = 365 * 86_400 * SECOND


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell at each of the keeper's turns."""
    monkeypatch.setattr("ingest.pipeline.TELL_SECONDS", 0.0)


def clock(channel: Channel, gateway: str = "g1", samples: int = 0) -> Clock:
    """What is known of a gateway's clock once it has so many samples."""

    def found() -> Clock | None:
        with psycopg.connect(channel.database.url) as connection:
            known = {each.id: each.clock for each in gateways(connection)}
        told = known.get(gateway)
        return told if told is not None and told.samples >= samples else None

    told = until(found)
    assert isinstance(told, Clock)
    return told


def send(channel: Channel, ahead_us: int, count: int = 8, **more: Any) -> None:
    before = len(channel.settled)
    for number in range(count):
        # With an identity: loose messages are decoded together, and are one sample a run.
        more |= {"boot": "b", "seq": str(before + number)}
        channel.send(payload(float(number), at=now_us() + ahead_us), **more)
    channel.outcomes(before + count)


@pytest.mark.usefixtures("hasty")
def test_a_clock_ahead_shows_although_its_rows_are_rejected(channel: Channel) -> None:
    send(channel, 3_600 * SECOND)
    assert {reason for reason, _ in channel.database.rejections()} == {"bad-time"}
    assert channel.database.results() == []
    told = clock(channel, samples=8)
    assert told.state == "ahead"
    assert told.skew_seconds == pytest.approx(3_600, abs=2)
    assert told.uncertainty_seconds is not None and told.uncertainty_seconds < 5


@pytest.mark.usefixtures("hasty")
def test_an_old_recording_is_a_backlog_and_no_slow_clock(channel: Channel) -> None:
    send(channel, -YEAR_US)
    assert len(channel.database.results()) == 8
    told = clock(channel, samples=8)
    assert (told.state, told.skew_seconds) == ("backlog", None)
    assert told.delay_seconds == pytest.approx(365 * 86_400, abs=5)


@pytest.mark.usefixtures("hasty")
def test_a_slow_clock_is_behind_by_its_best_message(channel: Channel) -> None:
    for late in (70, 42, 40, 41, 45, 60, 44):
        send(channel, -late * SECOND, count=1)
    told = clock(channel, samples=7)
    assert told.state == "behind", told
    assert told.skew_seconds == pytest.approx(-40, abs=2)


@pytest.mark.usefixtures("hasty")
def test_what_names_no_time_of_its_own_says_nothing(channel: Channel) -> None:
    body = b'{"thing": "t", "property": "soil-moisture", "result": 1.5}'
    for _ in range(6):
        channel.send(body)
    channel.outcomes(6)
    told = clock(channel)
    assert (told.state, told.samples) == ("unknown", 0)


def test_a_message_whose_sender_is_in_doubt_is_no_sample(settings: Settings) -> None:
    with running(settings) as channel:
        channel.send(payload(1.0), gateway="No Name")
        channel.send(payload(1.0), refuse=("bad-signature", "of somebody else"))
        channel.outcomes(2)
    assert channel.database.query("SELECT gateway FROM gateway_heard") == []


def test_the_end_of_a_pipeline_tells_what_it_heard(settings: Settings) -> None:
    with running(settings) as channel:
        send(channel, 0, count=5)
    assert clock(channel).samples == 5


def test_what_is_kept_of_a_gateway_is_bounded_and_its_minimum_exact() -> None:
    kept = Clocks()
    for number in range(10_000):
        at = now_us()
        kept.hear("g", at, decoded(("t", "level", at - (number + 1) * SECOND, 1.0)))
    (heard,) = kept._heard.values()
    assert (heard.count, len(heard.kept), heard.delay_min) == (10_000, SAMPLES_MAX, 1.0)
    assert 1_000 < sorted(heard.kept)[SAMPLES_MAX // 2] < 9_000


def test_the_newest_time_of_a_message_counts() -> None:
    several = decoded(
        ("t", "level", 5, 1.0), ("t", "level", 9, 1.0), ("t", "note", 7, {}), ("t", "state", 8, "a")
    )
    assert newest_time(several) == 9
    assert newest_time(decoded()) is None
