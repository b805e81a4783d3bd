"""Stop notices over the real server: who had a right to data is told when it ends."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from consent import webhooks
from consent.gate import Gate
from consent.webhooks import Notifier, networks_of
from core.settings import Settings
from core.tokens import Role, issue, load_keys
from tests.api.conftest import serving
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import EVER, Row
from tests.hooks import hook
from tests.kafka_server import free_port
from tests.platform import CHIMATA

LOCAL = "127.0.0.0/8"
AI = "00000000-0000-4000-8000-00000000000a"
SECONDS_MAX = 20.0


def wait(condition: Callable[[], Any], seconds: float = SECONDS_MAX) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon, and nothing hangs for long."""
    monkeypatch.setattr(webhooks, "RETRY_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(webhooks, "ATTEMPT_SECONDS_MAX", 1.0)
    monkeypatch.setattr(webhooks, "TURN_SECONDS", 0.1)


@contextmanager
def town_with(url: str, data: Path, **settings: Any) -> Iterator[Town]:
    """Ai wears the band and lets the clinic and the gym read it."""
    values = {"notice_networks": LOCAL, "page_rows_max": 50, **settings}
    with (
        serving(Settings(database_url=url, data=data, **values)) as served,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        town = Town(served, connection)
        town.bind("band", ["ai"], (DAY, None))
        for n in range(3):
            town.store(Row(("band", "heart-rate"), DAY + timedelta(minutes=n), float(n)))
        for recipient in ("clinic", "gym"):
            town.register(recipient)
        assert town.grant("ai", AI).status_code == 200
        assert town.grant("ai", recipient="gym").status_code == 200
        yield town


@pytest.fixture
def town(database_url: str, tmp_path: Path, quick: None) -> Iterator[Town]:
    with town_with(database_url, tmp_path) as town:
        yield town


@pytest.fixture
def any_town(storage_url: str, tmp_path: Path, quick: None) -> Iterator[Town]:
    """On either kind of server."""
    with town_with(storage_url, tmp_path) as town:
        yield town


def set_endpoint(town: Town, recipient: str, url: str) -> httpx.Response:
    path = "/v1/recipients/me/endpoint"
    return town.send("PUT", path, Role.RECIPIENT, recipient, {"url": url})


def secret(town: Town, recipient: str, url: str) -> str:
    answer = set_endpoint(town, recipient, url)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["secret"])


def to_stop(town: Town, recipient: str, query: str = "") -> list[dict[str, Any]]:
    answer = town.send("GET", f"/v1/stops{query}", Role.RECIPIENT, recipient)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["stops"]
    return found


def mine(town: Town, person: str = "ai") -> list[dict[str, Any]]:
    answer = town.send("GET", "/v1/me/stops", Role.CITIZEN, person)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["stops"]
    return found


def object_to(town: Town, **what: str) -> None:
    path = f"/v1/consent/objections/{uuid4()}"
    assert town.send("PUT", path, Role.CITIZEN, "ai", what).status_code == 200


def test_property_10_each_act_that_takes_back_reaches_its_past_recipient(any_town: Town) -> None:
    town = any_town
    (row, *_) = town.ask("clinic")
    with hook() as clinic, hook() as gym:
        key = secret(town, "clinic", clinic.url)
        assert secret(town, "gym", gym.url) != key
        assert town.grant("ai", AI, resolution="minute").status_code == 200
        revoked = town.revoke("ai", AI)
        object_to(town, recipient="clinic", purpose="dpv:ServiceProvision")
        wait(lambda: len(clinic.notices) == 3)
        assert clinic.types() == ["consent.narrowed", "consent.revoked", "consent.objected"]
        for notice in clinic.notices:
            assert notice.is_signed_with(key)
            assert notice.told["data"]["person"] == row["persons"][0], "a name that it knows"
            assert notice.told["data"]["grants"] == [AI]
            assert notice.told["data"]["stop"] == notice.headers["webhook-id"]
            assert set(notice.told["data"]) == {"stop", "person", "grants", "purpose", "since"}
        told = clinic.notices[1].told
        assert told["timestamp"] == told["data"]["since"] == revoked.json()["at"]
        assert clinic.notices[2].told["data"]["purpose"] == "dpv:ServiceProvision"
        assert gym.notices == [], "nothing was taken back from it"
        wait(lambda: all(each["acknowledged_at"] for each in mine(town)))
        assert [each["type"] for each in mine(town)] == clinic.types()[::-1]
        assert {each["recipient"] for each in mine(town)} == {"clinic"}
        assert mine(town, "ken") == []
        assert to_stop(town, "clinic") == []
        assert [n.told for n in clinic.notices] == to_stop(town, "clinic", "?acknowledged=true")


def test_property_10_an_objection_tells_who_may_read_or_once_did(town: Town) -> None:
    for recipient in ("lab", "bank", "shop"):
        town.register(recipient)
    read, unread, other = (str(uuid4()) for _ in range(3))
    town.grant("ai", read, recipient="lab")
    town.grant("ai", unread, recipient="bank")
    town.grant("ai", other, recipient="shop", purpose="dpv:AcademicResearch")
    assert town.ask("lab")
    assert town.revoke("ai", read).status_code == town.revoke("ai", unread).status_code == 200
    before = {recipient: len(to_stop(town, recipient)) for recipient in ("lab", "bank", "shop")}
    assert before == {"lab": 1, "bank": 1, "shop": 0}
    object_to(town, purpose="dpv:ServiceProvision")
    told = {r: len(to_stop(town, r)) for r in ("clinic", "gym", "lab", "bank", "shop")}
    assert told == {"clinic": 1, "gym": 1, "lab": 2, "bank": 1, "shop": 0}
    object_to(town)
    assert len(to_stop(town, "shop")) == 1


def test_property_10_an_erasure_tells_everyone_who_ever_had_anything(town: Town) -> None:
    for recipient in ("lab", "shop"):
        town.register(recipient)
    read = str(uuid4())
    town.grant("ai", read, recipient="lab")
    (row, *_) = town.ask("lab")
    town.revoke("ai", read)
    town.grant("ken", recipient="shop")
    path = f"/v1/me/erasure/{uuid4()}"
    assert town.send("PUT", path, Role.CITIZEN, "ai").status_code == 200
    told = {r: to_stop(town, r)[-1] for r in ("clinic", "gym", "lab")}
    assert {each["type"] for each in told.values()} == {"person.erased"}
    assert told["clinic"]["data"]["grants"] == [AI]
    assert told["lab"]["data"]["person"] == row["persons"][0]
    assert to_stop(town, "shop") == []


def test_property_10_grants_that_end_with_something_else_are_told_of_too(town: Town) -> None:
    """That a guardianship ended is the person's own matter: a recipient learns of its grant."""
    guardianship, grant = town.guard("ken", "mio"), str(uuid4())
    given = town.grant("ken", grant, by="mio")
    assert given.status_code == 200, given.text
    path = f"/v1/consent/guardianships/{guardianship}"
    assert town.send("DELETE", path, Role.OPERATOR, "office").status_code == 200
    (told,) = to_stop(town, "clinic")
    assert (told["type"], told["data"]["grants"]) == ("consent.ended", [grant])
    assert [each["type"] for each in mine(town, "ken")] == ["consent.ended"]


def test_property_10_it_is_tried_until_it_is_taken_in_order(town: Town) -> None:
    with hook() as clinic:
        clinic.answer = 500
        key = secret(town, "clinic", clinic.url)
        town.grant("ai", AI, resolution="minute")
        town.revoke("ai", AI)
        wait(lambda: len(clinic.notices) > 4)
        assert set(clinic.types()) == {"consent.narrowed"}, "the later one waits for the first"
        endpoint = town.send("GET", "/v1/recipients/me/endpoint", Role.RECIPIENT, "clinic").json()
        assert endpoint["failures"] > 2
        assert endpoint["error"] == "answered 500"
        clinic.answer = 200
        wait(lambda: "consent.revoked" in clinic.types())
        assert len({n.headers["webhook-id"] for n in clinic.notices}) == 2, "one id, however often"
        assert all(n.is_signed_with(key) for n in clinic.notices)
        wait(lambda: all(each["acknowledged_at"] for each in mine(town)))
        assert mine(town)[1]["attempts"] > 4


def test_property_10_no_endpoint_waits_for_another(town: Town) -> None:
    """Some hang, one redirects, one is down: the others are told at once."""
    recipients = [f"r{n}" for n in range(6)]
    for recipient in recipients:
        town.register(recipient)
        assert town.grant("ai", recipient=recipient).status_code == 200
    with ExitStack() as stack:
        hooks = [stack.enter_context(hook()) for _ in recipients]
        hanging, redirecting, good = hooks[:2], hooks[2], hooks[4:]
        for each in hanging:
            each.answer = None
        redirecting.answer, redirecting.location = 307, good[0].url
        urls = [each.url for each in hooks]
        urls[3] = f"http://127.0.0.1:{free_port()}/"
        for recipient, url in zip(recipients, urls, strict=True):
            secret(town, recipient, url)
        began = time.monotonic()
        object_to(town)
        wait(lambda: all(each.notices for each in good), 5)
        assert max(each.notices[0].at for each in good) - began < 2
        wait(lambda: all(len(each.notices) > 2 for each in (*hanging, redirecting)))
        assert len(good[0].notices) == 1, "a redirect is not followed"
        answered = {each["recipient"]: each["acknowledged_at"] for each in mine(town)}
        assert [bool(answered[r]) for r in recipients] == [False] * 4 + [True] * 2


def test_property_10_what_is_not_acknowledged_is_escalated(
    database_url: str, tmp_path: Path, quick: None
) -> None:
    with town_with(database_url, tmp_path, notice_seconds_max=1.0) as town, hook() as clinic:
        clinic.answer = 503
        secret(town, "clinic", clinic.url)
        town.revoke("ai", AI)
        wait(lambda: mine(town)[0]["escalated_at"])
        tried = len(clinic.notices)
        assert tried > 1
        answer = town.send("GET", "/v1/stops/escalated", Role.OPERATOR, "office")
        (seen,) = answer.json()["stops"]
        assert (seen["recipient"], seen["error"]) == ("clinic", "answered 503")
        assert seen["attempts"] >= tried - 1
        assert not {"person", "grants", "subject"} & set(seen), "not of whom"
        time.sleep(0.6)
        assert len(clinic.notices) <= tried + 1, "it is not tried for ever"
        (stop,) = to_stop(town, "clinic")
        path = f"/v1/stops/{stop['data']['stop']}/acknowledged"
        assert town.send("PUT", path, Role.RECIPIENT, "clinic").status_code == 200
        assert mine(town)[0]["acknowledged_at"]
        answer = town.send("GET", "/v1/stops/escalated", Role.OPERATOR, "office")
        assert answer.json()["stops"] == []


def test_property_10_a_recipient_without_endpoint_polls(town: Town) -> None:
    town.revoke("ai", AI)
    again = str(uuid4())
    town.grant("ai", again)
    town.revoke("ai", again)
    path = "/v1/stops?limit=1"
    seen = []
    while path:
        page = town.send("GET", path, Role.RECIPIENT, "clinic").json()
        seen += page["stops"]
        path = page["next"]
    assert [each["data"]["grants"] for each in seen] == [[AI], [again]]
    assert to_stop(town, "gym") == []
    path = f"/v1/stops/{seen[0]['data']['stop']}/acknowledged"
    assert town.send("PUT", path, Role.RECIPIENT, "gym").status_code == 404
    first = town.send("PUT", path, Role.RECIPIENT, "clinic")
    assert first.status_code == 200
    assert town.send("PUT", path, Role.RECIPIENT, "clinic").json() == first.json()
    assert to_stop(town, "clinic") == seen[1:]
    assert to_stop(town, "clinic", "?acknowledged=true") == seen[:1]
    newest, oldest = mine(town)
    assert oldest["acknowledged_at"] == first.json()["acknowledged_at"]
    assert newest["acknowledged_at"] is None
    page = town.send("GET", "/v1/me/stops?limit=1", Role.CITIZEN, "ai").json()
    rest = town.send("GET", page["next"], Role.CITIZEN, "ai").json()
    assert [*page["stops"], *rest["stops"]] == [newest, oldest]


def test_property_10_a_notice_outlives_the_process(
    database_url: str, tmp_path: Path, quick: None
) -> None:
    """Killed while the endpoint hangs; the next process tells it once it is back."""
    port = free_port()
    with town_with(database_url, tmp_path) as town:
        secret(town, "clinic", f"http://127.0.0.1:{port}/")
    keys = load_keys(tmp_path / "keys")
    citizen = {"Authorization": f"Bearer {issue(keys, Role.CITIZEN, subject='ai')}"}
    with served_alone(database_url, tmp_path) as (url, process), hook(port) as clinic:
        clinic.answer = None
        revoked = httpx.delete(f"{url}/v1/consent/grants/{AI}", headers=citizen)
        assert revoked.status_code == 200
        wait(lambda: clinic.notices)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served_alone(database_url, tmp_path) as (url, _), hook(port) as clinic:
        wait(lambda: clinic.notices, 40)
        assert clinic.types() == ["consent.revoked"]
        wait(
            lambda: httpx.get(f"{url}/v1/me/stops", headers=citizen).json()["stops"][0][
                "acknowledged_at"
            ]
        )


@contextmanager
def served_alone(url: str, data: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`chimata serve` as its own process."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [str(CHIMATA), "serve", "--http", address],
        env={
            **os.environ, "CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": str(data),
            "CHIMATA_NOTICE_NETWORKS": LOCAL,
        },
    )  # fmt: skip
    try:

        def answers() -> bool:
            try:
                return httpx.get(f"http://{address}/v1/sectors").is_success
            except httpx.TransportError:
                return False

        wait(answers, 60)
        yield f"http://{address}", process
    finally:
        process.kill()
        process.wait()


def test_several_processes_tell_each_notice_once_and_in_order(town: Town) -> None:
    gates = [Gate(town.served.app.state.settings) for _ in range(3)]
    notifiers = [
        Notifier(gate, town.keys.secret, networks_of(LOCAL), timedelta(days=1)) for gate in gates
    ]
    with hook() as clinic:
        secret(town, "clinic", clinic.url)
        for notifier in notifiers:
            notifier.start()
        grants = [AI]
        for _ in range(20):
            town.revoke("ai", grants[-1])
            grants.append(str(uuid4()))
            town.grant("ai", grants[-1])
        wait(lambda: len(clinic.notices) >= 20)
        for notifier in notifiers:
            notifier.stop()
        time.sleep(0.3)
        assert [n.told["data"]["grants"] for n in clinic.notices] == [[g] for g in grants[:20]]
    for gate in gates:
        gate.close()


def test_a_replay_tells_nobody_again(town: Town) -> None:
    town.revoke("ai", AI)
    object_to(town)
    count = "SELECT count(*), max(sigma) FROM notices.stop"
    before = town.connection.execute(count).fetchone()
    assert town.connection.execute("SELECT consent.replay()").fetchone()
    assert town.connection.execute(count).fetchone() == before


def test_an_act_that_fails_tells_nobody(town: Town) -> None:
    with pytest.raises(psycopg.errors.NoDataFound):
        town.connection.execute(
            "SELECT consent.write('REVOKE', 1, 'x', 'self', jsonb_build_object('grant', %s::text))",
            (str(uuid4()),),
        )
    assert town.connection.execute("SELECT count(*) FROM notices.stop").fetchone() == (0,)


def test_a_secret_is_told_once_and_is_new_with_a_new_address(town: Town) -> None:
    url = "https://clinic.example/stops"
    first = secret(town, "clinic", url)
    assert first.startswith("whsec_")
    assert set_endpoint(town, "clinic", url).json() == {"url": url, "secret": None}
    other = secret(town, "clinic", "https://clinic.example/other")
    path = "/v1/recipients/me/endpoint"
    assert town.send("DELETE", path, Role.RECIPIENT, "clinic").status_code == 204
    assert town.send("GET", path, Role.RECIPIENT, "clinic").status_code == 404
    assert len({first, other, secret(town, "clinic", url), secret(town, "gym", url)}) == 4
    assert set_endpoint(town, "nobody", url).status_code == 404
    for role in (Role.CITIZEN, Role.OPERATOR, Role.STAFF):
        assert town.send("PUT", path, role, "clinic", {"url": url}).status_code == 403
    stored = town.connection.execute("SELECT e::text FROM notices.endpoint e").fetchall()
    assert not [row for row in stored if first.removeprefix("whsec_") in row[0]]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE notices.stop SET act = 'GRANT'",
        "UPDATE notices.stop SET recipient = 'gym'",
        "DELETE FROM notices.stop",
        "TRUNCATE notices.stop",
        "UPDATE notices.stop SET acknowledged_at = NULL",
        "UPDATE notices.stop SET acknowledged_at = acknowledged_at - interval '1 day'",
    ],
)
def test_what_was_told_is_evidence(town: Town, change: str) -> None:
    town.revoke("ai", AI)
    (stop,) = to_stop(town, "clinic")
    path = f"/v1/stops/{stop['data']['stop']}/acknowledged"
    assert town.send("PUT", path, Role.RECIPIENT, "clinic").status_code == 200
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        town.connection.execute(change.encode())


def test_an_operator_cannot_read_of_whom_a_notice_is(town: Town) -> None:
    town.connection.execute("SET ROLE chimata_read")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        town.connection.execute("SELECT subject FROM notices.stop")


def test_a_name_of_this_machine_is_not_called(
    database_url: str, tmp_path: Path, quick: None
) -> None:
    """What a name stands for is looked up when it is called."""
    with town_with(database_url, tmp_path, notice_networks="") as town, hook() as inside:
        assert set_endpoint(town, "clinic", inside.url).status_code == 422
        port = inside.url.rpartition(":")[2]
        secret(town, "clinic", f"https://localhost:{port}")
        town.revoke("ai", AI)
        path = "/v1/recipients/me/endpoint"

        def error() -> str:
            return str(town.send("GET", path, Role.RECIPIENT, "clinic").json()["error"])

        wait(lambda: "not public" in error())
        assert inside.notices == []


def test_revokes_do_not_wait_for_endpoints(town: Town) -> None:
    """Nor does their notice, for one another: acts go on while every endpoint hangs."""
    with hook() as clinic:
        clinic.answer = None
        secret(town, "clinic", clinic.url)
        began = time.monotonic()
        name = AI
        for _ in range(10):
            assert town.revoke("ai", name).status_code == 200
            name = str(uuid4())
            town.grant("ai", name, valid_to=iso(EVER[1]))
        assert time.monotonic() - began < 5
        clinic.answer = 200
        wait(lambda: len(to_stop(town, "clinic")) == 0)
        assert len({n.headers["webhook-id"] for n in clinic.notices}) == 10
