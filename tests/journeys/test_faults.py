"""Faults at random under load, each kind: what has its receipt is there, once, as it was sent."""

import threading
from pathlib import Path

import pytest

from core.errors import CityError
from deploy.soak import command, faults
from deploy.soak.command import MIB, Options
from deploy.soak.gateway import LOOSE_WINDOW
from deploy.soak.load import LOOSE_ROWS
from tests.journeys.test_kills import timescale_database
from tests.kafka_server import KafkaServer
from tests.require import timescale_url

pytestmark = pytest.mark.timeout(280)

SMALL = Options(
    minutes=0.2,
    kills=3,
    rate=4_000,
    rows_a_batch=100,
    lag_blocks=2,
)


def soak(folder: Path, **named: object) -> command.Report:
    """A small soak; its report."""
    options = Options(**{**{f: getattr(SMALL, f) for f in SMALL.__slots__}, **named})  # type: ignore[arg-type]
    return command.run(options, folder / "soak")


def check(report: command.Report) -> None:
    """Nothing lost, nothing twice; and something was done: rows, corrections, rejections."""
    assert report.violations == [], command.lines(report)
    assert report.compared["sent"] > 1_000
    assert report.compared["corrected"] > 0
    assert report.compared["duplicate"] > 0
    assert report.compared["rejected"] > 0


@pytest.mark.parametrize("group", ["kill", "cut", "hang", "clock"])
def test_nothing_is_lost_and_nothing_twice(tmp_path: Path, group: str) -> None:
    # What only the broker has, it delivers a minute after the ingestor was killed: not waited for.
    late_seconds = 0.0 if group == "kill" else 20.0
    report = soak(tmp_path, faults=(group,), seed=len(group), late_seconds=late_seconds)
    check(report)
    assert {faults.FAULTS[name].group for name in report.strikes} == {group}
    assert group == "kill" or report.compared["loose_gone"] == 0


@pytest.mark.timescale
@pytest.mark.parametrize("group", ["kill", "cut", "hang"])
def test_the_same_on_timescale(tmp_path: Path, group: str) -> None:
    """Reached through a proxy that is cut and falls silent; the server is not ours to kill."""
    with timescale_database(timescale_url()) as url:
        check(soak(tmp_path, faults=(group,), database=url, seed=len(group), late_seconds=0.0))


def test_full_disks_are_told_and_waited_for(tmp_path: Path) -> None:
    """The database's, the broker's and the outboxes': room again, and all goes on by itself."""
    try:
        report = soak(tmp_path, faults=("disk",), seed=4, minutes=0.35, disk_bytes=512 * MIB)
    except CityError as error:
        pytest.skip(f"{error.detail}")
    check(report)
    assert set(report.strikes) == {"disk-database", "disk-broker", "disk-outbox"}
    assert report.outbox_held > 0
    told = (tmp_path / "soak" / "up.log").read_text("utf-8")
    for part in ("postgres", "broker"):
        assert f"data/{part} is full" in told
    assert told.count("there is room again") >= 2
    assert "the MQTT broker: ended; starting it again" in told
    # A broker whose disk fills may lose what it has just acknowledged: no more than is in flight.
    assert report.compared["loose_gone"] <= 2 * LOOSE_WINDOW * LOOSE_ROWS


def test_http_gives_a_receipt_to_loose_messages_too(tmp_path: Path) -> None:
    report = soak(tmp_path, faults=("kill",), via="http", seed=5, rate=1_500, late_seconds=0.0)
    check(report)
    assert report.compared["loose_gone"] == 0


@pytest.mark.kafka
def test_over_kafka_that_is_killed_as_well(tmp_path: Path, kafka_server: KafkaServer) -> None:
    """A replay is read again from the committed offsets: a repeat, and never a second row."""
    kafka_server.clear()
    restart = threading.Timer(8.0, kafka_server.restart)
    restart.start()
    try:
        report = soak(tmp_path, via="kafka", kafka=kafka_server.bootstrap, seed=9,
                      faults=("kill",), late_seconds=0.0)  # fmt: skip
    finally:
        restart.join()
    check(report)
