"""Anonymised releases over the real server: properties 13 to 16 of docs/consent.md."""

import csv
import io
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

import domains
from consent import counting, personal, releases
from consent.releases import STEPS
from core.settings import Settings
from core.tokens import Role
from tests.api.channels import following, results, rolled_up
from tests.api.conftest import Served, serving
from tests.api.fair import HOUR, OFFICE, SAID, TERMS, Fair
from tests.api.test_personal import paths
from tests.api.town import DAY, iso
from tests.consent.oracle import Row


@pytest.fixture
def fair(served: Served) -> Iterator[Fair]:
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Fair(served, connection)
        town.register(OFFICE)
        yield town


# -- 13 ------------------------------------------------------------------------------------------


def test_property_13_pseudonymised_data_leave_to_nobody(fair: Fair) -> None:
    """Not by any route, token or grant, and into no release."""
    fair.register("clinic")
    thing = fair.city.thing("health", "987654321")
    made = fair.city.datastream(thing, "heart-rate", "number", "/min", "pseudonymised")
    assert fair.bind("987654321", ["ai"], (DAY, None))
    fair.store(Row(("987654321", "heart-rate"), DAY, 98.7654321))
    for operation in ("read", "derive", "anonymise", "reshare"):
        for recipient in ("clinic", OFFICE):
            fair.allow("ai", recipient=recipient, purpose="dpv:ServiceManagement",
                       operation=operation)  # fmt: skip
    asked = 0
    for path in paths(fair.served):
        for role, subject in (
            (Role.OPERATOR, "office"), (Role.STAFF, "x"), (Role.RECIPIENT, "clinic"),
            (Role.RECIPIENT, OFFICE), (Role.GATEWAY, "g"), (Role.CITIZEN, "ken"),
        ):  # fmt: skip
            answer = fair.send("GET", path, role, subject)
            assert "98.765" not in answer.text, (path, role)
            asked += 1
    assert asked > 100
    for operation in ("read", "reshare"):
        assert fair.ask("clinic", operation=operation) == []
    assert rolled_up(fair, "hour", (DAY, DAY + HOUR)) == []
    with following(fair) as stream:
        fair.come(Row(("987654321", "heart-rate"), DAY + HOUR, 99.0))
        assert stream.silent(1.5)
    terms = {"k": 10, "purpose": "dpv:ServiceManagement"}
    for n in range(20):
        fair.person(f"p{n}", purpose="dpv:ServiceManagement")
        fair.beat(f"p{n}", 0.5, 70.0)
    assert fair.released(**terms)[0, None] == (20, None), "and not Ai"
    fair.connection.execute("UPDATE datastream SET data_class = 'personal' WHERE id = %s", (made,))
    assert len(fair.ask("clinic")) == 2, "nothing but its class kept it in"
    assert len(rolled_up(fair, "hour", (DAY, DAY + HOUR))) == 1
    with following(fair) as stream:
        fair.come(Row(("987654321", "heart-rate"), DAY + 2 * HOUR, 99.0))
        assert results(stream) == [99.0]


# -- 14 ------------------------------------------------------------------------------------------


def test_property_14_each_step_of_rule_34_is_evidenced_before(fair: Fair) -> None:
    fair.people(12)
    release = str(uuid4())
    path = f"/v1/releases/{release}"
    assert fair.operate("PUT", f"{path}/evidence/codes", {"method": "x"}).status_code == 404
    assert fair.publish(release).status_code == 404
    draft = fair.operate("PUT", path, TERMS).json()
    assert (draft["state"], draft["evidence"], draft["published_at"]) == ("draft", [], None)
    for step in STEPS:
        assert fair.publish(release).status_code == 409, f"{step} is not evidenced"
        told = fair.operate("PUT", f"{path}/evidence/{step}", {"method": f"How {step}."})
        assert told.status_code == 200
        again = fair.operate("PUT", f"{path}/evidence/{step}", {"method": f"How {step}."})
        assert again.status_code == 200
        other = fair.operate("PUT", f"{path}/evidence/{step}", {"method": "Otherwise."})
        assert other.status_code == 409
    assert told.json()["state"] == "evidence-complete"
    assert fair.served.get(path).status_code == 404, "nobody sees a draft"
    assert fair.served.get(f"{path}/cells").status_code == 404
    for half in ("items", "method"):
        answer = fair.operate("PUT", f"{path}/publication", {half: SAID[half]})
        assert answer.status_code == 422, (
            "what it holds and how it is provided are published with it"
        )
    published = fair.publish(release).json()
    assert published["state"] == "published"
    evidence = published["evidence"]
    assert [(e["step"], e["checked"]) for e in evidence] == [
        (step, checked) for step in STEPS for checked in (False, True)
    ]
    assert {e["principal"] for e in evidence} == {"office", "chimata"}
    assert all(datetime.fromisoformat(e["at"]) <= datetime.now(UTC) for e in evidence)
    shown = fair.served.get(path).json()
    assert (shown["items"], shown["method"], shown["state"]) == (
        SAID["items"], SAID["method"], "published",
    )  # fmt: skip
    assert "evidence" not in shown, "how it was made is not for everyone (Art. 43(2))"
    assert fair.served.get(f"{path}/evidence").status_code == 401


def test_property_14_no_linking_code_survives(fair: Fair) -> None:
    """Nothing in a release is a name, a number, a hash or an id of anyone or anything."""
    people = fair.people(12, hours=2)
    release = fair.prepare(mean=True)
    assert fair.publish(release).status_code == 200
    texts = [fair.served.get(f"/v1/releases{end}").text for end in (
        "", f"/{release}", f"/{release}/cells", f"/{release}/cells?format=csv",
    )]  # fmt: skip
    ids = [
        str(value)
        for query in (
            "SELECT grant_id FROM consent.granted", "SELECT id FROM consent.binding",
            "SELECT id FROM audit.decision", "SELECT key FROM thing",
        )
        for (value,) in fair.connection.execute(query.encode()).fetchall()
    ]  # fmt: skip
    mask = personal_names(fair, people)
    for text in texts:
        for name in (*people, *ids, *mask):
            assert not re.search(rf"\b{re.escape(name)}\b", text), name
        assert set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", text)) <= {release}
        assert not re.search(r"[0-9a-f]{32}|[a-z2-7]{24}", text)
    cells = fair.served.get(f"/v1/releases/{release}/cells").json()["cells"]
    assert {tuple(cell) for cell in cells} == {("time", "cell", "persons", "mean")}
    columns = fair.connection.execute(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = 'release' AND table_name = 'cell'"
    ).fetchall()
    assert {c for (c,) in columns} == {"release", "number", "time", "cell", "persons", "mean"}


def personal_names(fair: Fair, people: list[str]) -> list[str]:
    """What recipients know these people and their bands as."""
    from consent.masks import Mask

    mask = Mask(fair.keys.secret, OFFICE)
    return [mask.person(fair.number(p)) for p in people] + [mask.thing(f"band-{p}") for p in people]


def test_property_14_a_later_revoke_changes_only_later_releases(fair: Fair) -> None:
    fair.people(11, hours=3)
    fair.person("ai")
    mine = fair.allow("ai", event_from=iso(DAY - HOUR))
    for hour in range(3):
        fair.beat("ai", hour + 0.1, 70.0)
    first = fair.prepare(event_to=iso(DAY + HOUR))
    assert fair.publish(first).status_code == 200
    before = fair.table(first)
    assert before == {(0, None): (12, None), (0, "60/80"): (12, None)}
    listed = fair.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    for grant in listed:
        assert fair.revoke("ai", grant["id"]).status_code == 200
    assert mine in {g["id"] for g in listed}
    assert fair.table(first) == before, "what is published stays"
    assert fair.publish(first).status_code == 200, "and so it does when it is sent again"
    assert fair.table(first) == before
    after = fair.released(event_from=iso(DAY + HOUR), event_to=iso(DAY + 2 * HOUR))
    assert after == {(1, None): (11, None), (1, "60/80"): (11, None)}


def test_property_14_a_revoke_during_the_count_is_counted(
    fair: Fair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody takes back between the count and the publication is counted anew."""
    fair.people(11)
    fair.person("ai")
    grant = fair.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"][0]["id"]
    fair.beat("ai", 0.1, 70.0)
    count, counted = counting.count, []

    def slow(*args: Any) -> Any:
        counted.append(count(*args))
        if len(counted) == 1:
            assert fair.revoke("ai", grant).status_code == 200
        return counted[-1]

    monkeypatch.setattr(counting, "count", slow)
    assert fair.released()[0, None] == (11, None)
    assert len(counted) == 2


@pytest.mark.parametrize("pause_seconds", [0.3, 3.0])
def test_property_14_a_revoke_waits_for_a_publication_under_way(
    fair: Fair, monkeypatch: pytest.MonkeyPatch, pause_seconds: float
) -> None:
    """And not for one that hangs: that one is ended, and nothing of it is published."""
    fair.people(12)
    grant = fair.send("GET", "/v1/consent/grants", Role.CITIZEN, "p0").json()["grants"][0]["id"]
    release = fair.prepare()
    is_stale, answered = personal.is_stale, threading.Event()
    seen: list[int] = []

    def revoke() -> None:
        assert fair.revoke("p0", grant).status_code == 200
        seen.append(fair.served.get(f"/v1/releases/{release}").status_code)
        answered.set()

    thread = threading.Thread(target=revoke)

    def slow(connection: Any, chunk: Any) -> bool:
        stale = is_stale(connection, chunk)
        thread.start()
        assert answered.wait(pause_seconds) == (pause_seconds > 1)
        return stale

    monkeypatch.setattr(personal, "is_stale", slow)
    published = fair.publish(release).status_code
    thread.join(10)
    assert (published, seen) == ((200, [200]) if pause_seconds < 1 else (503, [404]))


# -- 15 ------------------------------------------------------------------------------------------


def test_property_15_k_counts_persons_and_not_rows(fair: Fair) -> None:
    """Nine persons with two devices and many rows are nine."""
    people = fair.people(9)
    for name in people:
        fair.device(f"watch-{name}", name)
        for n in range(5):
            fair.store(Row((f"watch-{name}", "heart-rate"), DAY + n * HOUR / 6, 70.0))
            fair.beat(name, n / 7, 70.0)
    assert fair.released(event_to=iso(DAY + HOUR)) == {}
    fair.person("p9")
    fair.beat("p9", 1.1, 70.0)
    for name in people:
        fair.beat(name, 1.2, 70.0)
        fair.beat(name, 1.3, 90.0)
    assert fair.released(event_from=iso(DAY + HOUR)) == {(1, None): (10, None)}, (
        "nobody is in two cells: the last one counts, and nine of ten is all but one"
    )


def test_property_15_what_is_hidden_is_not_the_difference(fair: Fair) -> None:
    fair.people(12, 70.0)
    fair.people(11, 50.0, begin=12)
    fair.people(1, 90.0, begin=23)
    release = fair.prepare(mean=True)
    assert fair.publish(release).status_code == 200
    assert fair.table(release) == {
        (0, None): (24, pytest.approx((12 * 70 + 11 * 50 + 90) / 24, abs=0.01)),
        (0, "60/80"): (12, 70.0),
    }


def test_property_15_two_releases_of_the_same_moment_are_refused(fair: Fair) -> None:
    """The difference of two tables, one of them after Ai came, would be Ai."""
    fair.people(12, hours=3)
    first = fair.prepare()
    assert fair.publish(first).status_code == 200
    fair.person("ai")
    fair.beat("ai", 0.2, 70.0)
    for changes in (
        {},
        {"bands": [50, 60, 70]},
        {"mean": True},
        {"event_from": iso(DAY + 2 * HOUR), "event_to": iso(DAY + 5 * HOUR)},
        {"resolution": "day", "event_to": iso(DAY + timedelta(days=1))},
    ):
        again = fair.prepare(**changes)
        answer = fair.publish(again)
        assert answer.status_code == 409, changes
        assert fair.served.get(f"/v1/releases/{again}").status_code == 404
    apart = {"event_from": iso(DAY + 3 * HOUR), "event_to": iso(DAY + 4 * HOUR)}
    assert fair.publish(fair.prepare(**apart)).status_code == 200


def test_property_15_releases_that_are_published_at_once_do_not_overlap(
    fair: Fair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see no other one before they count; one is published."""
    fair.people(12, hours=3)
    drafts = [
        fair.prepare(),
        fair.prepare(event_from=iso(DAY + HOUR), event_to=iso(DAY + 4 * HOUR)),
    ]
    count, together = counting.count, threading.Barrier(2)

    def slow(*args: Any) -> Any:
        together.wait(20)
        return count(*args)

    monkeypatch.setattr(counting, "count", slow)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(fair.publish, drafts))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert len(fair.served.get("/v1/releases").json()["releases"]) == 1


def test_property_15_a_person_or_a_request_may_only_raise_k(fair: Fair) -> None:
    people = fair.people(12, hours=3)
    body = {**TERMS, "k": 9}
    assert fair.operate("PUT", f"/v1/releases/{uuid4()}", body).status_code == 422
    for k, status in ((9, 422), (13, 200), (13, 200)):
        answer = fair.send("PUT", "/v1/me/crowd", Role.CITIZEN, people[0], {"k": k})
        assert answer.status_code == status
    asked = {p: fair.send("GET", "/v1/me/crowd", Role.CITIZEN, p).json()["k"] for p in people[:2]}
    assert asked == {people[0]: 13, people[1]: 10}
    hour = {"event_to": iso(DAY + HOUR)}
    assert fair.released(**hour)[0, None] == (11, None), "not the one who asks for more"
    second = {"event_from": iso(DAY + HOUR), "event_to": iso(DAY + 2 * HOUR)}
    assert fair.released(**second, k=12) == {}
    third = {"event_from": iso(DAY + 2 * HOUR), "event_to": iso(DAY + 3 * HOUR)}
    assert fair.released(**third, k=11)[2, None] == (11, None)
    acts = fair.connection.execute(
        "SELECT count(*) FROM consent.log WHERE act = 'CROWD'"
    ).fetchone()
    assert acts == (1,)
    state = fair.connection.execute("SELECT * FROM consent.crowd").fetchall()
    fair.connection.execute("SELECT consent.replay()")
    assert fair.connection.execute("SELECT * FROM consent.crowd").fetchall() == state


def test_only_what_is_granted_is_counted(fair: Fair) -> None:
    """Another operation, purpose, recipient or time, a finer hour, a shared device: not counted."""
    fair.people(10, hours=3)
    fair.register("other")
    for name, terms in {
        "reads": {"operation": "read"},
        "sells": {"purpose": "dpv:Marketing"},
        "elsewhere": {"recipient": "other"},
        "coarse": {"resolution": "day"},
        "half": {"event_from": iso(DAY + HOUR / 2), "event_to": iso(DAY + 1.5 * HOUR)},
        "ended": {"valid_to": iso(DAY)},
    }.items():
        fair.person(name, **terms)
        for hour in range(3):
            fair.beat(name, hour + 0.6, 70.0)
    fair.device("shared", "p0", "guest")
    fair.allow("guest")
    fair.store(Row(("shared", "heart-rate"), DAY + HOUR / 2, 70.0))
    fair.person("minute", resolution="minute")
    fair.beat("minute", 0.6, 70.0)
    found = fair.released()
    assert {hour: n for (hour, cell), (n, _) in found.items() if cell is None} == {
        0: 11, 1: 10, 2: 10,
    }  # fmt: skip


def test_positions_are_counted_by_nested_squares(fair: Fair) -> None:
    """Everyone, a square of 10 km, squares of 1 km in it; two of those are hidden together."""
    fair.register(OFFICE)
    places = [(35.6812, 139.7671)] * 12 + [(35.6905, 139.7671)] * 11 + [(35.6700, 139.7671)] * 3
    for n, (latitude, longitude) in enumerate(places):
        fair.device(f"phone-{n}", f"w{n}", prop="position", unit="1")
        fair.allow(f"w{n}", category="pd:TravelHistory")
        fair.insert((f"phone-{n}", "position"), "position", "observation_position",
                    DAY + HOUR / 2, longitude, latitude, 1.0, 2.0)  # fmt: skip
    found = fair.released(property="position", bands=[])
    assert found == {(0, None): (26, None), (0, "533946"): (26, None), (0, "53394611"): (12, None)}


# -- 16 ------------------------------------------------------------------------------------------

NOISY = {"epsilon": "1", "steps_max": 2}


def test_property_16_debit_comes_first_and_stays(
    fair: Fair, monkeypatch: pytest.MonkeyPatch
) -> None:
    fair.people(12)
    release = fair.prepare(**NOISY)
    path = f"/v1/releases/{release}/evidence"

    def spent() -> tuple[str, str]:
        body = fair.operate("GET", path).json()
        return body["epsilon_spent"], body["state"]

    assert spent() == ("0", "evidence-complete")
    count = counting.count

    def fails(*_: Any) -> Any:
        row = fair.connection.execute("SELECT sum(epsilon) FROM release.spent").fetchone()
        debited.append(row[0] if row else None)
        raise RuntimeError("the machine burns")

    debited: list[Any] = []
    monkeypatch.setattr(counting, "count", fails)
    # Not by the common client: after a fault of its own the server ends the connection.
    with pytest.raises(httpx.HTTPStatusError, match="500"), httpx.Client() as client:
        client.put(
            f"{fair.served.url}/v1/releases/{release}/publication",
            headers=fair.headers(Role.OPERATOR, "office"), json=SAID,
        ).raise_for_status()  # fmt: skip
    assert [float(d) for d in debited] == [1.0], "it was committed before anything was counted"
    assert spent() == ("1", "evidence-complete"), "a release that fails has spent it"
    monkeypatch.setattr(counting, "count", count)
    assert fair.publish(release).status_code == 200
    assert spent() == ("2", "published")
    assert fair.publish(release).status_code == 200
    assert spent() == ("2", "published"), "the same table again costs nothing"
    assert fair.publish(fair.prepare(**{**NOISY, "epsilon": "1.001"})).status_code == 409
    assert spent() == ("2", "published")
    assert fair.publish(fair.prepare(**NOISY)).status_code == 200, "noisy tables may overlap"
    over = fair.publish(fair.prepare(**{**NOISY, "epsilon": "0.001"}))
    assert over.status_code == 409
    assert "epsilon" in over.json()["detail"]
    assert spent() == ("3", "published")


def test_property_16_one_person_is_in_so_many_cells_at_most(
    fair: Fair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise, the tables with and without Ai differ by what the noise is made for."""
    scales = []

    def no_noise(scale: Fraction) -> int:
        scales.append(scale)
        return 0

    monkeypatch.setattr(releases, "discrete_laplace", no_noise)
    fair.people(12, hours=2)
    terms = {**NOISY, "steps_max": 30, "mean": True, "clip": [60, 80], "epsilon": "0.6"}
    whole = {"event_to": iso(DAY + timedelta(days=1)), **terms}
    before = fair.released(**whole)
    assert before == {(h, "60/80"): (12, 70.0) for h in (0, 1)}
    fair.person("ai")
    for hour in range(24):
        fair.beat("ai", hour + 0.5, 340.0)
    assert fair.released(**whole) == before, "Ai is alone in the highest band"
    half = Fraction("0.3")
    assert set(scales) == {30 / half, 30 * 200 / half}, "half for counts, half for clipped tenths"
    plan = plan_of(whole)
    for steps_max in (1, 4, 24):
        with fair.served.app.state.gate.having(operator(), releases.SCOPE, "") as connection:
            counted = counting.count(connection, replace(plan, steps_max=steps_max), 1)
        leaves = [leaf for each in counted.leaves.values() for leaf in each]
        alone = [leaf for leaf in leaves if leaf.path == ("80/..",)]
        assert sum(leaf.persons for leaf in alone) == steps_max, "of Ai's 24 hours"
        assert all(leaf.total == 200 * leaf.persons for leaf in alone), "340 counts as 80"
        others = sum(leaf.persons for leaf in leaves) - steps_max
        assert others == 12 * min(steps_max, 2)


def operator() -> Any:
    from core.tokens import SCOPES, Principal

    return Principal(Role.OPERATOR, "office", None, None, SCOPES[Role.OPERATOR], 2**40)


def plan_of(terms: dict[str, Any]) -> counting.Plan:
    from consent.drafts import plan_of as plan

    full = {"k": 10, "mean": False, "clip": None, "squares": [], "epsilon": None,
            "steps_max": None, **TERMS, **terms}  # fmt: skip
    return plan(domains.sector("health"), full)


def test_property_16_noise_is_there_and_empty_cells_have_it_too(fair: Fair) -> None:
    fair.people(40, hours=3)
    release = fair.prepare(epsilon="3", steps_max=3)
    assert fair.publish(release).status_code == 200
    table = fair.table(release)
    assert all(abs(n - 40) < 40 for (_, cell), (n, _) in table.items() if cell == "60/80")
    assert all(n >= 10 for n, _ in table.values())
    assert None not in {cell for _, cell in table}, "everyone is the sum of what is told"


# -- the rest ------------------------------------------------------------------------------------


def test_a_published_table_is_open_and_cacheable(fair: Fair) -> None:
    fair.people(12, hours=3)
    release = fair.prepare()
    fair.publish(release)
    for end, kind in (("", "application/json"), ("?format=csv", "text/csv; charset=utf-8")):
        answer = fair.served.get(f"/v1/releases/{release}/cells{end}")
        assert answer.headers["content-type"] == kind
        assert answer.headers["cache-control"] == "public, no-cache"
        held = {"If-None-Match": answer.headers["etag"]}
        path = f"/v1/releases/{release}/cells{end}"
        assert fair.served.get(path, headers=held).status_code == 304
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert rows[0] == {"time": iso(DAY).replace("+00:00", "Z"), "cell": "", "persons": "12",
                       "mean": ""}  # fmt: skip
    assert len(rows) == 6
    other = fair.prepare(event_from=iso(DAY + 3 * HOUR), event_to=iso(DAY + 4 * HOUR))
    fair.publish(other)
    listed, path = [], "/v1/releases?limit=1"
    while path:
        page = fair.served.get(path).json()
        listed += [r["id"] for r in page["releases"]]
        path = page["next"]
    assert listed == [other, release]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("sector", {"sector": "ports"}),
        ("sector", {"sector": "nothing"}),
        ("property", {"property": "ecg", "bands": []}),
        ("property", {"property": "undeclared"}),
        ("recipient", {"recipient": "nobody"}),
        ("purpose", {"purpose": "dpv:Purpose"}),
        ("event_from", {"event_from": iso(DAY + HOUR / 2)}),
        ("event_from", {"resolution": "day", "event_from": iso(DAY + HOUR)}),
        ("event_to", {"event_to": iso(DAY)}),
        ("event_to", {"event_to": iso(DAY + 2000 * HOUR)}),
        ("event_to", {"event_to": iso(DAY + 900 * HOUR), "bands": list(range(20))}),
        ("bands", {"bands": [80, 60]}),
        ("bands", {"property": "position"}),
        ("squares", {"squares": ["53394611"]}),
        ("squares", {"property": "position", "bands": [], "squares": ["533946"]}),
        ("squares", {"property": "position", "bands": [], "epsilon": "1", "steps_max": 1}),
        ("mean", {"property": "activity", "bands": [], "mean": True}),
        ("clip", {"mean": True, "clip": [80, 60]}),
        ("clip", {"mean": True, "clip": [0, 400]}),
        ("epsilon", {"epsilon": "3.001", "steps_max": 1}),
        ("epsilon", {"epsilon": "0", "steps_max": 1}),
        ("steps_max", {"epsilon": "1"}),
        ("steps_max", {"steps_max": 1}),
        ("margins", {"margins": True}),
    ],
)
def test_what_a_draft_says_wrongly_is_named(
    fair: Fair, field: str, changes: dict[str, Any]
) -> None:
    answer = fair.operate("PUT", f"/v1/releases/{uuid4()}", {**TERMS, **changes})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["name"].startswith(field), answer.text


def test_a_draft_is_never_changed_and_only_operators_make_one(fair: Fair) -> None:
    release = fair.prepare()
    path = f"/v1/releases/{release}"
    assert fair.operate("PUT", path, TERMS).status_code == 200
    assert fair.operate("PUT", path, {**TERMS, "k": 11}).status_code == 409
    for role in (Role.CITIZEN, Role.RECIPIENT, Role.STAFF, Role.GATEWAY):
        for end, body in (
            ("", TERMS),
            ("/evidence/codes", {"method": "x"}),
            ("/publication", SAID),
        ):
            assert fair.send("PUT", path + end, role, "x", body).status_code == 403
    future = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + 2 * HOUR
    soon = fair.prepare(event_from=iso(future - 3 * HOUR), event_to=iso(future))
    assert fair.publish(soon).status_code == 409, "it is not over"
    other = {**SAID, "method": {"ja": "別", "en": "Otherwise"}}
    assert fair.publish(release).status_code == 200
    assert fair.operate("PUT", f"{path}/publication", other).status_code == 409
    for table in ("definition", "evidence", "publication", "cell", "spent"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            fair.connection.execute(f"TRUNCATE release.{table} CASCADE".encode())


def test_it_counts_on_either_kind_of_server(storage_url: str, tmp_path: Path) -> None:
    with (
        serving(Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)) as served,
        psycopg.connect(storage_url, autocommit=True) as connection,
    ):
        fair = Fair(served, connection)
        fair.register(OFFICE)
        fair.people(12, hours=2)
        found = fair.released(mean=True)
    assert found == {(h, c): (12, 70.0) for h in (0, 1) for c in (None, "60/80")}
