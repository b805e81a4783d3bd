"""`chimata account` and `chimata gateways` as an operator runs them."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core.clock import now_us
from core.storage import clocks, ledger
from core.storage.ledger import HOUR_US, Counts
from tests.deploy.test_cli import chimata

HOUR = now_us() // HOUR_US * HOUR_US


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    with psycopg.connect(database_url) as connection:
        for hours_ago in (0, 2, 40):
            hour = HOUR - hours_ago * HOUR_US
            source = ("pole-1", "signals", "j2735", hour)
            ledger.add_to_account(connection, [(source, Counts(9, 4, 5, 3, 1, 1))])
        connection.execute("INSERT INTO sector_log VALUES ('signals', 3)")
        entries = [("pole-1", "b1", seq, "j2735", b"x", HOUR, 1, 1, 0, 0) for seq in (0, 1, 5, 9)]
        ledger.enter_batches(connection, "signals", 1, entries)
        now = now_us()
        clocks.write(connection, [clocks.Heard("pole-1", now, now, 50, -30.0, -29.5)])
    yield database_url


def test_the_account_by_hour(url: str, tmp_path: Path) -> None:
    told = chimata("account", "--by", "hour", "--json", cwd=tmp_path, CHIMATA_DATABASE_URL=url)
    assert told.returncode == 0, told.stderr
    hours = json.loads(told.stdout)["hours"]
    assert [(row["received"], row["stored"], row["adds_up"]) for row in hours] == [(5, 3, True)] * 2
    assert all(row["hour"].endswith(":00:00Z") and "missing" not in row for row in hours)
    more = chimata(
        "account", "--by", "hour", "--since", "3d", "--gateway", "pole-1", "--json",
        cwd=tmp_path, CHIMATA_DATABASE_URL=url,
    )  # fmt: skip
    assert len(json.loads(more.stdout)["hours"]) == 3
    table = chimata("account", "--by", "hour", cwd=tmp_path, CHIMATA_DATABASE_URL=url).stdout
    assert table.count("pole-1") == 2 and "yes" in table


def test_an_account_that_does_not_add_up_ends_with_1(url: str, tmp_path: Path) -> None:
    total = chimata("account", cwd=tmp_path, CHIMATA_DATABASE_URL=url)
    assert total.returncode == 0 and "15" in total.stdout
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE account SET stored = stored - 1")
    hours = chimata("account", "--by", "hour", cwd=tmp_path, CHIMATA_DATABASE_URL=url)
    assert hours.returncode == 1 and hours.stdout.count("NO") == 2


@pytest.mark.parametrize("since", ["", "yesterday", "0h", "9999d"])
def test_a_bad_span_is_named(since: str, url: str, tmp_path: Path) -> None:
    done = chimata(
        "account", "--by", "hour", "--since", since, cwd=tmp_path, CHIMATA_DATABASE_URL=url
    )
    assert done.returncode == 1
    assert done.stderr.startswith("chimata: ") and "--since" in done.stderr


def test_gateways_with_their_clocks(url: str, tmp_path: Path) -> None:
    told = chimata("gateways", "--json", cwd=tmp_path, CHIMATA_DATABASE_URL=url)
    assert told.returncode == 0, told.stderr
    (row,) = json.loads(told.stdout)["gateways"]
    assert (row["id"], row["boots"], row["missing"], row["rejected"]) == ("pole-1", 1, 6, 3)
    assert (row["clock"]["state"], row["clock"]["skew_seconds"]) == ("ahead", 30.0)
    assert row["last_seen"].endswith("Z")
    table = chimata("gateways", cwd=tmp_path, CHIMATA_DATABASE_URL=url).stdout
    assert "ahead +30.0 s" in table


def test_gaps_of_a_gateway(url: str, tmp_path: Path) -> None:
    lines = chimata("gateways", "gaps", "pole-1", cwd=tmp_path, CHIMATA_DATABASE_URL=url).stdout
    assert lines.splitlines() == ["b1/2..4: 3", "b1/6..8: 3"]
    told = chimata(
        "gateways", "gaps", "pole-1", "--json", cwd=tmp_path, CHIMATA_DATABASE_URL=url
    ).stdout
    assert json.loads(told)["gaps"][0] == {"boot": "b1", "first": 2, "last": 4, "count": 3}
    unknown = chimata("gateways", "gaps", "pole-2", cwd=tmp_path, CHIMATA_DATABASE_URL=url)
    assert unknown.returncode == 1 and "pole-2" in unknown.stderr
