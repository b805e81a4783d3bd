"""The bank's ledgers over the real server: what persons got, what went wrong, what was paid."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from consent.breaches import ITEMS
from core.tokens import Role
from tests.api.bank import Bank
from tests.api.conftest import Served
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import Row

LEDGERS = ("benefit", "incident", "incident_person", "incident_step", "compensation")


@pytest.fixture
def read(served: Served) -> Iterator[Bank]:
    """The clinic has read of ai, and not of ken."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Town(served, connection)
        yield begun(Bank(town), town)


def begun(bank: Bank, town: Town) -> Bank:
    assert bank.register("clinic").status_code == 200
    town.bind("band", ["ai"], (DAY, None))
    town.store(Row(("band", "heart-rate"), DAY, 61.0))
    assert town.grant("ai", "00000000-0000-4000-8000-000000000001").status_code == 200
    town.grant("ken", recipient="clinic")
    assert len(town.ask("clinic")) == 1
    return bank


def test_the_person_sees_what_it_got(read: Bank) -> None:
    """Entered by the recipient, by the name it knows, or by an operator for a grant."""
    town = read.town
    (row,) = town.ask("clinic")
    benefit: dict[str, Any] = {"kind": "service", "text": "健康相談", "day": "2026-10-01"}
    named = benefit | {"person": row["persons"][0]}
    path = f"/v1/recipients/clinic/benefits/{uuid4()}"
    put = town.send("PUT", path, Role.RECIPIENT, "clinic", named)
    assert put.status_code == 200, put.text
    assert town.send("PUT", path, Role.RECIPIENT, "clinic", named).status_code == 200
    other = named | {"text": "別"}
    assert town.send("PUT", path, Role.RECIPIENT, "clinic", other).status_code == 409
    assert town.send("PUT", path, Role.RECIPIENT, "gym", named).status_code == 403
    assert town.send("PUT", path, Role.CITIZEN, "ai", named).status_code in (403, 422)
    unknown = benefit | {"person": "a" * 39}
    assert town.send("PUT", path, Role.RECIPIENT, "clinic", unknown).status_code == 422
    both = named | {"grant": "00000000-0000-4000-8000-000000000001"}
    assert town.send("PUT", path, Role.RECIPIENT, "clinic", both).status_code == 422
    for_grant = benefit | {"grant": "00000000-0000-4000-8000-000000000001", "kind": "money",
                           "amount": "500.5", "unit": "JPY"}  # fmt: skip
    path = f"/v1/recipients/clinic/benefits/{uuid4()}"
    assert town.send("PUT", path, Role.RECIPIENT, "clinic", for_grant).status_code == 422
    assert read.operate("PUT", path, for_grant).status_code == 200
    assert read.operate("PUT", path, for_grant | {"grant": str(uuid4())}).status_code == 422
    path, found = "/v1/me/benefits?limit=1", []
    while path:
        page = town.send("GET", path, Role.CITIZEN, "ai").json()
        found += page["benefits"]
        path = page["next"]
    assert [(each["kind"], each["amount"]) for each in found] == [
        ("money", "500.5"), ("service", None),
    ]  # fmt: skip
    assert town.send("GET", "/v1/me/benefits", Role.CITIZEN, "ken").json()["benefits"] == []


def incident(bank: Bank, name: str, **said: Any) -> Any:
    now = datetime.now(UTC)
    body = {
        "known_at": iso(now),
        "happened_from": iso(now - timedelta(days=1)),
        "happened_to": iso(now + timedelta(days=1)),
        "recipient": "clinic",
        "items": {"outline": "不正アクセス", "data": "心拍数", "response": "調査中"},
        **said,
    }
    return body, bank.operate("PUT", f"/v1/bank/incidents/{name}", body)


def test_an_incident_concerns_those_whose_data_were_there(read: Bank) -> None:
    """And they see of it what the law tells them, and what the bank paid."""
    town, name = read.town, str(uuid4())
    body, put = incident(read, name, grounds=["wrongful"])
    assert put.status_code == 200, put.text
    assert read.operate("PUT", f"/v1/bank/incidents/{name}", body).status_code == 200
    other = body | {"grounds": []}
    assert read.operate("PUT", f"/v1/bank/incidents/{name}", other).status_code == 409
    incident(read, str(uuid4()), recipient=None, persons=["ken"])
    assert incident(read, str(uuid4()), persons=["nobody"])[1].status_code == 422
    pay = {"person": "ai", "amount": "5000", "unit": "JPY", "text": "賠償"}
    path = f"/v1/bank/incidents/{name}/payments/{uuid4()}"
    assert read.operate("PUT", path, pay | {"person": "ken"}).status_code == 422
    for _ in range(2):
        assert read.operate("PUT", path, pay).status_code == 200
    assert read.operate("PUT", path, pay | {"amount": "1"}).status_code == 409
    (own,) = town.send("GET", "/v1/me/incidents", Role.CITIZEN, "ai").json()["incidents"]
    assert own["items"] == {"outline": "不正アクセス", "data": "心拍数"}
    assert [(each["amount"], each["unit"]) for each in own["compensation"]] == [("5000", "JPY")]
    (kens,) = town.send("GET", "/v1/me/incidents", Role.CITIZEN, "ken").json()["incidents"]
    assert (kens["recipient"], kens["compensation"]) == (None, [])
    page = town.send("GET", "/v1/bank/incidents?limit=1", Role.BOARD, "mori").json()
    assert page["incidents"][0]["due"] is None
    (found,) = town.send("GET", page["next"], Role.BOARD, "mori").json()["incidents"]
    assert (found["id"], found["persons"], found["grounds"]) == (name, 1, ["wrongful"])
    assert found["compensation"] == [{"unit": "JPY", "amount": "5000", "payments": 1}]


def test_reports_are_due_and_late_ones_are_named(read: Bank) -> None:
    name = str(uuid4())
    known = datetime.now(UTC) - timedelta(days=31)
    incident(read, name, grounds=["property"], known_at=iso(known))

    def overdue() -> list[str]:
        (found,) = read.operate("GET", "/v1/bank/incidents").json()["incidents"]
        return list(found["overdue"])

    def step(kind: str, **said: Any) -> int:
        path = f"/v1/bank/incidents/{name}/steps/{uuid4()}"
        return read.operate("PUT", path, {"step": kind, **said}).status_code

    assert overdue() == ["preliminary", "final"]
    assert step("preliminary", items={"outline": "x"}) == 200
    assert overdue() == ["final"]
    assert step("preliminary") == 422
    assert step("told") == 422
    assert step("final", items={"outline": "x"}) == 422, "a final report is whole"
    assert step("final", items=dict.fromkeys(ITEMS, "詳細")) == 200
    assert step("told", text="郵送した") == 200
    assert overdue() == []
    own = read.town.send("GET", "/v1/me/incidents", Role.CITIZEN, "ai").json()["incidents"][0]
    assert own["told_at"]
    assert own["items"]["cause"] == "詳細"
    path = f"/v1/bank/incidents/{uuid4()}/steps/{uuid4()}"
    assert read.operate("PUT", path, {"step": "closed", "text": "x"}).status_code == 404


def test_the_ledgers_are_append_only(read: Bank) -> None:
    name = str(uuid4())
    incident(read, name)
    path = f"/v1/bank/incidents/{name}"
    step = {"step": "told", "text": "郵送した"}
    payment = {"person": "ai", "amount": "5000", "unit": "JPY", "text": "賠償"}
    benefit = {"grant": "00000000-0000-4000-8000-000000000001", "kind": "service", "text": "相談",
               "day": "2026-10-01"}  # fmt: skip
    for where, body in (
        (f"{path}/steps/{uuid4()}", step),
        (f"{path}/payments/{uuid4()}", payment),
        (f"/v1/recipients/clinic/benefits/{uuid4()}", benefit),
    ):
        assert read.operate("PUT", where, body).status_code == 200
    for table in LEDGERS:
        assert read.town.city.one(f"SELECT count(*) FROM consent.{table}") == 1
        for change in (f"DELETE FROM consent.{table}", f"TRUNCATE consent.{table} CASCADE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                read.town.connection.execute(change.encode())
