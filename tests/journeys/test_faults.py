"""Faults at random under load, each kind: what has its receipt is there, once, as it was sent."""

from pathlib import Path

import pytest

from deploy.soak import command, faults
from deploy.soak.command import Options

pytestmark = pytest.mark.timeout(280)

SMALL = Options(
    minutes=0.2,
    kills=3,
    rate=4_000,
    rows_a_batch=100,
    lag_blocks=4,
    late_seconds=0.0,  # what only the broker has is counted, and not waited for
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
    report = soak(tmp_path, faults=(group,), seed=len(group))
    check(report)
    assert {faults.FAULTS[name].group for name in report.strikes} == {group}


def test_http_gives_a_receipt_to_loose_messages_too(tmp_path: Path) -> None:
    report = soak(tmp_path, faults=("kill",), via="http", seed=5, rate=1_500)
    check(report)
    assert report.compared["loose_gone"] == 0
