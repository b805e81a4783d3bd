"""Cross-border files, property 20: no live file means deny; a failed or overdue check suspends."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from core.tokens import Role
from tests.api.conftest import Served
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import Row

ABROAD = {"countries": ["JP", "US", "DE"]}


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    """Ai lets a lab in the United States read her band."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Town(served, connection)
        town.register("clinic", "US")
        town.bind("band", ["ai"], (DAY, None))
        town.store(Row(("band", "heart-rate"), DAY, 1.0))
        yield town


def seen(town: Town) -> list[float]:
    return [row["result"] for row in town.ask("clinic")]


def filed(town: Town) -> None:
    """Both files, and a grant by who was told."""
    assert town.file("US").status_code == 200
    assert town.file("US", "clinic").status_code == 200
    assert town.grant("ai", **ABROAD).status_code == 200
    assert seen(town) == [1.0]


def test_property_20_no_file_means_deny(town: Town) -> None:
    """Of the country and of the recipient both; and who granted before was not told."""
    assert town.grant("ai", **ABROAD).status_code == 200
    assert seen(town) == []
    assert town.file("US").status_code == 200
    assert seen(town) == []
    assert town.file("US", "clinic").status_code == 200
    assert seen(town) == [], "consent without being told is none (Art. 28(2))"
    assert town.grant("ai", **ABROAD).status_code == 200
    assert seen(town) == [1.0]
    town.register("clinic", "BR")
    assert seen(town) == [], "of another country there is no file"
    town.register("clinic", "JP")
    assert seen(town) == [1.0], "at home none is needed"


def test_property_20_the_grant_must_name_the_country(town: Town) -> None:
    assert town.file("US").status_code == 200
    assert town.file("US", "clinic").status_code == 200
    assert town.grant("ai").status_code == 200
    assert seen(town) == []


def test_property_20_a_file_of_another_recipient_opens_nothing(town: Town) -> None:
    town.register("gym", "US")
    assert town.file("US").status_code == 200
    assert town.grant("ai", **ABROAD).status_code == 200
    assert seen(town) == [], "that of the country is not enough"
    assert town.file("US", "gym").status_code == 200
    assert town.grant("ai", **ABROAD).status_code == 200
    assert seen(town) == []


@pytest.mark.parametrize("of", [None, "clinic"])
def test_property_20_a_failed_check_suspends_and_a_passed_one_restores(
    town: Town, of: str | None
) -> None:
    filed(town)
    assert town.check("US", of, passed=False).status_code == 200
    assert seen(town) == []
    assert town.check("US", of).status_code == 200
    assert seen(town) == [1.0]
    before = iso(datetime.now(UTC) - timedelta(minutes=30))
    assert town.check("US", of, passed=False, checked_at=before).status_code == 409, (
        "a later one is known"
    )
    assert seen(town) == [1.0]


@pytest.mark.parametrize("of", [None, "clinic"])
def test_property_20_an_overdue_check_suspends_by_the_clock(town: Town, of: str | None) -> None:
    filed(town)
    due = datetime.now(UTC) + timedelta(seconds=2)
    assert town.check("US", of, check_by=iso(due)).status_code == 200
    assert seen(town) == [1.0]
    time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + 0.1)
    assert seen(town) == [], "nobody did anything"
    assert town.check("US", of).status_code == 200
    assert seen(town) == [1.0]


def test_property_20_a_designated_country_needs_no_file(town: Town) -> None:
    """Its protection is held to be as good as Japan's (Art. 28(1)): the notice says by what."""
    town.register("clinic", "DE")
    assert town.grant("ai", **ABROAD).status_code == 200
    assert seen(town) == [1.0]
    notice = town.send("GET", "/v1/consent/notices/clinic/transfer", Role.CITIZEN, "ai").json()
    assert (notice["basis"], notice["open"], notice["regime"]) == ("designated", True, None)
    assert "28(1)" in notice["designated_by"]
    designated = town.connection.execute("SELECT array_agg(country) FROM consent.designated")
    assert len((designated.fetchone() or [[]])[0]) == 31, "27 and 3 of the EEA, and the UK"


def test_property_20_the_person_reads_country_regime_and_measures(town: Town) -> None:
    path = "/v1/consent/notices/clinic/transfer"
    notice = town.send("GET", path, Role.CITIZEN, "ai").json()
    assert (notice["country"], notice["basis"], notice["open"]) == ("US", "consent", False)
    assert notice["regime"] is None
    town.file("US", text_en="No general law.")
    town.file("US", "clinic", text_en="Encrypted; read in Japan alone.")
    town.check("US", "clinic", note="asked by letter")
    notice = town.send("GET", path, Role.CITIZEN, "ai").json()
    assert notice["open"]
    assert notice["regime"]["text"]["en"] == "No general law."
    assert notice["measures"]["text"]["en"] == "Encrypted; read in Japan alone."
    assert [each["note"] for each in notice["measures"]["checks"]] == ["asked by letter"]
    assert town.send("GET", path.replace("clinic", "gym"), Role.CITIZEN, "ai").status_code == 404
    assert town.send("GET", path, Role.RECIPIENT, "clinic").status_code == 403


def test_files_say_when_they_are_checked_again(town: Town) -> None:
    """Within a year; written again they are the same act, and a check is one act too."""
    now = datetime.now(UTC)
    for said, field in (
        ({"check_by": iso(now + timedelta(days=400))}, "check_by"),
        ({"check_by": iso(now - timedelta(days=1))}, "check_by"),
        ({"checked_at": iso(now + timedelta(hours=1))}, "checked_at"),
        ({"text_ja": ""}, "text_ja"),
    ):
        answer = town.file("US", **said)
        assert answer.status_code == 422, said
        assert answer.json()["errors"][0]["name"] == field
    said = {"checked_at": iso(now), "check_by": iso(now + timedelta(days=1))}
    assert town.file("US", **said).json()["sigma"] > 0
    assert town.file("US", **said).json()["sigma"] == 0
    assert town.file("US", "nobody").status_code == 404
    assert town.check("US", "clinic").status_code == 404, "there is no file to check"
    path = f"/v1/consent/countries/US/checks/{uuid4()}"
    body = {"passed": False, "note": "n", **said}
    assert town.send("PUT", path, Role.OPERATOR, "o", body).json()["sigma"] > 0
    assert town.send("PUT", path, Role.OPERATOR, "o", body).json()["sigma"] == 0
    other = body | {"passed": True}
    assert town.send("PUT", path, Role.OPERATOR, "o", other).status_code == 409
    assert town.send("PUT", path, Role.CITIZEN, "ai", body).status_code == 403
    tables = [f"SELECT * FROM consent.{name}" for name in ("transfer_file", "transfer_check")]
    before = [town.connection.execute(table.encode()).fetchall() for table in tables]
    town.connection.execute("SELECT consent.replay()")
    assert [town.connection.execute(table.encode()).fetchall() for table in tables] == before
