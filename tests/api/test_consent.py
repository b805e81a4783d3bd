"""Consent over the real server: a test for each property of docs/consent.md, named after it."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

import domains
from consent import personal
from consent.levels import LEVELS
from consent.personal import LEASE_SECONDS, Question, span_of
from consent.vocabulary import Operation
from core.tokens import SCOPES, Principal, Role
from tests.api.conftest import Served
from tests.api.town import DAY, NOTICE, PATH, Town, iso
from tests.consent.oracle import EVER, Row

FIRST = "00000000-0000-4000-8000-000000000001"
CLINIC = Principal(Role.RECIPIENT, "clinic", None, None, SCOPES[Role.RECIPIENT], 2**40)
ASKED = Question(
    domains.sector("health"), "dpv:ServiceManagement", "pd:MedicalHealth", Operation.READ,
    span_of("", ""), 50,
)  # fmt: skip


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        yield Town(served, connection)


def rows_of(count: int, stream: tuple[str, str] = ("band", "heart-rate")) -> list[Row]:
    """A reading every 20 s from DAY on."""
    return [Row(stream, DAY + timedelta(seconds=20 * n), float(n)) for n in range(count)]


@pytest.fixture
def granted(town: Town) -> Town:
    """Ai wears the band, and lets the clinic read it."""
    town.register("clinic")
    assert town.bind("band", ["ai"], (DAY, None))
    for row in rows_of(6):
        town.store(row)
    assert town.grant("ai", "00000000-0000-4000-8000-000000000001").status_code == 200
    assert len(town.ask("clinic")) == 6
    return town


def test_a_time_may_be_said_with_any_offset(town: Town) -> None:
    """RFC 3339 allows offsets that PostgreSQL does not; and some fall out of our years."""
    path = "/v1/consent/bindings/health/band/{}"
    for said, status in (("+19:17", 200), ("-23:59", 200), ("+24:00", 422)):
        body = {"persons": ["ai"], "event_from": f"2026-01-0{1 + status % 7}T00:00:00{said}",
                "event_to": f"2026-01-0{1 + status % 7}T00:00:01{said}"}  # fmt: skip
        answer = town.send("PUT", path.format(uuid4()), Role.OPERATOR, "office", body)
        assert answer.status_code == status, answer.text
    body = {"persons": ["ai"], "event_from": "0001-01-01T00:00:00+19:17"}
    answer = town.send("PUT", path.format(uuid4()), Role.OPERATOR, "office", body)
    assert answer.status_code == 422
    assert "event_from" in answer.text


def test_property_1_default_deny(town: Town) -> None:
    """Nobody bound, nobody granted, an unknown category, no recipient: nothing."""
    town.register("clinic")
    for row in rows_of(3):
        town.store(row)
    assert town.ask("clinic") == []
    town.grant("ai")
    assert town.ask("clinic") == [], "the band is nobody's"
    town.bind("band", ["ai"], (DAY, None))
    assert len(town.ask("clinic")) == 3
    town.store(Row(("band", "undeclared"), DAY, 1.0))
    assert len(town.ask("clinic")) == 3, "an undeclared property has no category"
    for role in Role:
        answer = town.send("GET", f"{PATH}?purpose=dpv:Marketing&category=pd:Age", role, "gym")
        assert answer.status_code == 403, role
    asked = f"{PATH}?purpose=dpv:Marketing&category=pd:Age"
    assert town.send("GET", asked, Role.RECIPIENT, "clinic").status_code == 200
    town.send("DELETE", "/v1/recipients/clinic", Role.OPERATOR, "office")
    assert town.send("GET", asked, Role.RECIPIENT, "clinic").status_code == 403, "suspended"
    path = f"{PATH}?purpose=dpv:Nothing&category=pd:Age"
    answer = town.send("GET", path, Role.RECIPIENT, "clinic")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["name"] == "purpose"


def test_property_2_the_binding_at_event_time_decides(granted: Town) -> None:
    """A device that changes hands: what came before stays whose it was, however late it arrives."""
    binding = granted.bind("scale", ["ai"], (DAY, None))
    granted.store(Row(("scale", "body-weight"), DAY, 1.0))
    ended = granted.send(
        "DELETE", f"/v1/consent/bindings/health/scale/{binding}", Role.OPERATOR, "office"
    )
    assert ended.status_code == 200
    now = datetime.fromisoformat(ended.json()["at"])
    assert granted.bind("scale", ["ken"], (now, None))
    assert not granted.bind("scale", ["ken"], (DAY, now)), "the past is said once"
    granted.store(Row(("scale", "body-weight"), DAY + timedelta(hours=1), 2.0))
    granted.store(Row(("scale", "body-weight"), now, 3.0))
    shown = [r["result"] for r in granted.ask("clinic") if r["property"] == "body-weight"]
    assert shown == [1.0, 2.0]


def test_property_3_windows_are_half_open(town: Town) -> None:
    town.register("clinic")
    town.bind("band", ["ai"], (DAY, None))
    for row in rows_of(4):
        town.store(row)
    begin, end = DAY + timedelta(seconds=20), DAY + timedelta(seconds=60)
    town.grant("ai", event_from=iso(begin), event_to=iso(end))
    assert [r["result"] for r in town.ask("clinic")] == [1.0, 2.0]


def test_property_4_taking_back_shows_no_more_and_a_grant_reaches_downward_alone(
    town: Town,
) -> None:
    """Two grants of one person; each act that takes back is followed by every question."""
    asked = [
        {"purpose": purpose, "category": category}
        for purpose in ("dpv:ServiceManagement", "dpv:ServicePersonalisation", "dpv:Marketing")
        for category in ("pd:MedicalHealth", "chimata:VitalSign", "chimata:HeartRate")
    ]

    def answers() -> list[set[float]]:
        return [{r["result"] for r in town.ask("clinic", **each)} for each in asked]

    town.register("clinic")
    town.bind("band", ["ai"], (DAY, None))
    for row in rows_of(30):
        town.store(row)
    names = [str(uuid4()), str(uuid4())]
    terms: dict[str, Any] = {"purpose": "dpv:ServicePersonalisation"}
    town.grant("ai", names[0], category="chimata:VitalSign", resolution="minute", **terms)
    town.grant("ai", names[1], category="chimata:HeartRate", **terms)
    seen = answers()
    assert [bool(each) for each in seen] == [False] * 3 + [True] * 3 + [False] * 3, "not upward"
    cut = {"event_from": iso(DAY + timedelta(seconds=90)), "category": "chimata:HeartRate"}
    wider = town.grant("ai", names[0], category="chimata:VitalSign", resolution="exact", **terms)
    assert wider.status_code == 409, "a grant is narrowed alone"
    for take_back in (
        lambda: town.grant("ai", names[1], **terms, **cut),
        lambda: town.revoke("ai", names[1]),
        lambda: town.send(
            "PUT", f"/v1/consent/objections/{uuid4()}", Role.CITIZEN, "ai",
            {"purpose": "dpv:ServicePersonalisation"},
        ),
    ):  # fmt: skip
        assert take_back().status_code == 200
        now = answers()
        assert all(later <= before for later, before in zip(now, seen, strict=True))
        assert now != seen
        seen = now


def test_property_5_two_worlds(granted: Town) -> None:
    """What is not permitted changes nothing of an answer: not its pages, not their number."""

    def answers(town: Town) -> list[Any]:
        found = []
        for limit in (1, 4, 50):
            path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth&limit={limit}"
            while path:
                answer = town.send("GET", path, Role.RECIPIENT, "clinic")
                body = answer.json()
                kept = {k: v for k, v in answer.headers.items() if k != "date"}
                path = body.pop("next")
                body.pop("disclosure")
                found.append((answer.status_code, kept, body, path and len(path)))
        return found

    before = answers(granted)
    granted.bind("scale", ["ken"], (DAY, None))
    for row in rows_of(9, ("scale", "body-weight")) + rows_of(9, ("band", "undeclared")):
        granted.store(row)
    granted.grant("ken", recipient="clinic", purpose="dpv:Marketing")
    granted.bind("other", ["ai", "ken"], (DAY, None))
    for row in rows_of(9, ("other", "heart-rate")):
        granted.store(row)
    assert answers(granted) == before


def test_property_5_names_and_cursors_are_one_recipients(granted: Town) -> None:
    granted.register("gym")
    granted.grant("ai", recipient="gym")
    ours, theirs = granted.ask("clinic"), granted.ask("gym")
    assert [r["result"] for r in ours] == [r["result"] for r in theirs]
    assert not {*ours[0]["persons"], ours[0]["thing"]} & {*theirs[0]["persons"], theirs[0]["thing"]}
    assert "ai" not in ours[0]["persons"]
    path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth&limit=2"
    more = granted.send("GET", path, Role.RECIPIENT, "clinic").json()["next"]
    assert granted.send("GET", more, Role.RECIPIENT, "clinic").status_code == 200
    assert granted.send("GET", more, Role.RECIPIENT, "gym").status_code == 422
    other = more.replace("MedicalHealth", "PhysicalHealth")
    assert granted.send("GET", other, Role.RECIPIENT, "clinic").status_code == 422
    for spoilt in (more[:-2] + "AA", more + "A", more + "é"):
        assert granted.send("GET", spoilt, Role.RECIPIENT, "clinic").status_code == 422


def test_property_6_nothing_leaves_once_a_revocation_has_answered(granted: Town) -> None:
    """Readers as fast as they can, one revoke after the other."""
    rounds, readers = 40, 4
    shut: list[int | None] = [None]
    """The round in which nothing may be seen, while it lasts."""
    stop = threading.Event()
    leaks: list[str] = []
    reads = [0]

    def read() -> None:
        path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth"
        with httpx.Client(timeout=30) as client:
            headers = granted.headers(Role.RECIPIENT, "clinic")
            while not stop.is_set():
                before = shut[0]
                answer = client.get(granted.served.url + path, headers=headers)
                assert answer.status_code in (200, 503), answer.text  # 503: a machine too slow
                reads[0] += 1
                rows = answer.json().get("observations")
                if rows and before is not None and shut[0] == before:
                    leaks.append(answer.text)

    threads = [threading.Thread(target=read) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        name = FIRST
        for number in range(rounds):
            assert granted.revoke("ai", name).status_code == 200
            shut[0] = number
            assert granted.ask("clinic") == []
            shut[0], name = None, str(uuid4())
            assert granted.grant("ai", name).status_code == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert leaks == []
    assert reads[0] > rounds


def test_property_6_a_chunk_read_before_is_not_handed_over_after(granted: Town) -> None:
    """The gap that a snapshot leaves: read, revoked and answered, then handed over."""
    gate = granted.served.app.state.gate
    chunk = gate.disclose(CLINIC, ASKED)
    assert len(chunk.rows) == 6
    assert granted.revoke("ai", FIRST).status_code == 200
    assert gate.lease(chunk) is None
    assert gate.disclose(CLINIC, ASKED).rows == []


def test_property_6_a_revocation_waits_for_what_is_being_handed_over(granted: Town) -> None:
    """And for no longer than a lease lasts, should its holder have died."""
    gate = granted.served.app.state.gate
    lease = gate.lease(gate.disclose(CLINIC, ASKED))
    answered = threading.Event()

    def revoke() -> None:
        granted.revoke("ai", FIRST)
        answered.set()

    thread = threading.Thread(target=revoke)
    thread.start()
    assert not answered.wait(LEASE_SECONDS / 2), "it did not wait for the lease"
    assert answered.wait(10), "a lease that nobody gave back held it up for ever"
    assert lease.seconds_left() <= 0
    lease.release()
    thread.join()


def test_property_8_a_new_grant_opens_no_gap(granted: Town) -> None:
    """What was observed between a revoke and a new grant stays shut, unless it is named."""
    granted.revoke("ai", FIRST)
    granted.grant("ai", event_from=None, valid_from=None)
    assert granted.ask("clinic") == []
    granted.store(Row(("band", "heart-rate"), datetime.now(UTC), 9.0))
    assert [r["result"] for r in granted.ask("clinic")] == [9.0]


def test_property_9_revoking_is_as_short_as_granting(granted: Town) -> None:
    """One request each, and each again is the same act."""
    name = str(uuid4())
    first = granted.grant("ai", name, category="pd:Age")
    again = granted.grant("ai", name, category="pd:Age")
    assert first.json()["sigma"] == again.json()["sigma"]
    ended = granted.revoke("ai", name)
    assert granted.revoke("ai", name).json()["sigma"] == ended.json()["sigma"]
    assert granted.revoke("ken", name).status_code == 404
    assert granted.grant("ken", name, category="pd:Age").status_code == 409


def test_property_21_each_row_is_in_one_provision_record(granted: Town) -> None:
    """Which names the person, the grant and the log's number at which it was live."""
    granted.bind("scale", ["ai"], (DAY, None))
    for row in rows_of(5, ("scale", "body-weight")):
        granted.store(row)
    rows = granted.ask("clinic", limit=4)
    assert len(rows) == 11
    provided = granted.connection.execute(
        "SELECT d.sigma, d.recipient, p.subjects, p.grants, p.rows, p.sector, s.key "
        "FROM audit.provision p JOIN audit.decision d ON d.id = p.decision "
        "JOIN consent.subject s ON s.id = ANY(p.subjects) "
        "ORDER BY d.at"
    ).fetchall()[1:]  # the first is the fixture's
    assert sum(row[4] for row in provided) == 11
    for sigma, recipient, _, grants, _, sector, person in provided:
        assert (recipient, sector, person) == ("clinic", "health", "ai")
        assert [str(g) for g in grants] == [FIRST]
        live = granted.connection.execute(
            "SELECT sigma <= %s AND ended IS NULL FROM consent.granted WHERE grant_id = %s",
            (sigma, FIRST),
        ).fetchone()
        assert live == (True,)


def test_no_record_means_no_rows(granted: Town) -> None:
    granted.connection.execute("REVOKE INSERT ON audit.provision FROM chimata_gate")
    path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth"
    answer = granted.send("GET", path, Role.RECIPIENT, "clinic")
    assert answer.status_code == 500
    assert "observations" not in answer.text


def test_a_record_that_is_not_committed_means_no_rows(granted: Town) -> None:
    """The rows are made while the server commits; they leave once it has, or not at all."""
    granted.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the disc is full' USING ERRCODE = 'disk_full'; END $$"
    )
    granted.connection.execute(
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON audit.provision "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    count = "SELECT count(*) FROM audit.decision"
    before = granted.connection.execute(count).fetchone()
    path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth"
    answer = granted.send("GET", path, Role.RECIPIENT, "clinic")
    assert answer.status_code == 503
    assert "observations" not in answer.text
    assert granted.connection.execute(count).fetchone() == before
    granted.connection.execute("DROP FUNCTION refuse CASCADE")
    assert len(granted.ask("clinic")) == 6, "the session goes on"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE consent.log SET body = '{}'",
        "DELETE FROM consent.log",
        "TRUNCATE consent.log",
        "UPDATE audit.provision SET rows = 0",
        "DELETE FROM audit.provision",
    ],
)
def test_the_logs_are_append_only(granted: Town, change: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        granted.connection.execute(change.encode())


def test_only_the_log_changes_the_state(granted: Town) -> None:
    """The gate's own role can write no table of consent."""
    tables = granted.connection.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'consent' AND table_type = 'BASE TABLE'"
    ).fetchall()
    assert len(tables) > 8
    granted.connection.execute("SET ROLE chimata_gate")
    for (table,) in tables:
        for change in ("DELETE FROM", "TRUNCATE"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                granted.connection.execute(f"{change} consent.{table}".encode())


def test_grants_are_listed_for_their_person_alone(granted: Town) -> None:
    listed = granted.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    assert [(g["id"], g["live"], g["recipient"]) for g in listed] == [(FIRST, True, "clinic")]
    assert listed[0]["category_title"] == {"ja": "医療・健康情報", "en": "Medical and health data"}
    granted.revoke("ai", FIRST)
    listed = granted.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    assert [(g["id"], g["live"]) for g in listed] == [(FIRST, False)]
    assert granted.send("GET", "/v1/consent/grants", Role.CITIZEN, "ken").json()["grants"] == []


@pytest.mark.parametrize(
    ("role", "method", "path", "body"),
    [
        (Role.OPERATOR, "PUT", f"/v1/consent/grants/{FIRST}", "grant"),
        (Role.RECIPIENT, "DELETE", f"/v1/consent/grants/{FIRST}", None),
        (Role.CITIZEN, "DELETE", "/v1/recipients/clinic", None),
        (Role.STAFF, "GET", "/v1/consent/grants", None),
    ],
)
def test_each_act_needs_its_scope(
    granted: Town, role: Role, method: str, path: str, body: str | None
) -> None:
    filled = {"recipient": "clinic", "purpose": "dpv:Marketing", "category": "pd:Age",
              "valid_to": iso(EVER[1]), "notice": NOTICE} if body else None  # fmt: skip
    assert granted.send(method, path, role, "x", filled).status_code == 403
    anonymous = granted.served.client.request(method, granted.served.url + path, json=filled)
    assert anonymous.status_code == 401


def test_what_a_grant_says_wrongly_is_named(granted: Town) -> None:
    for field, value in (
        ("recipient", "nobody"),
        ("purpose", "dpv:Purpose"),
        ("category", "pd:Nothing"),
        ("notice", "abc"),
        ("valid_to", "2026-01-01T00:00:00"),
        ("resolution", "year"),
        ("countries", ["japan"]),
        ("min_k", 5),
        ("event_to", iso(EVER[0])),
    ):
        answer = granted.grant("ai", **{field: value})
        assert answer.status_code == 422, field
        assert answer.json()["errors"][0]["name"].startswith(field), answer.text


def test_levels_are_the_same_in_both_languages(town: Town) -> None:
    rows = town.connection.execute(
        "SELECT name, extract(epoch FROM step)::int, latitude, longitude FROM consent.level "
        "ORDER BY number"
    ).fetchall()
    for row, level in zip(rows, LEVELS, strict=True):
        assert row[:2] == (level.name, level.seconds)
        assert row[2:] == pytest.approx((level.latitude_degrees, level.longitude_degrees))


def test_one_person_alone_is_read_by_the_name_that_the_recipient_knows(granted: Town) -> None:
    granted.bind("watch", ["ken"], (DAY, None))
    granted.bind("scale", ["ai", "ken"], (DAY, None))
    granted.grant("ken")
    granted.store(Row(("watch", "heart-rate"), DAY, 7.0))
    granted.store(Row(("scale", "body-weight"), DAY, 8.0))
    everyone = granted.ask("clinic")
    assert len(everyone) == 8
    by_name = {tuple(row["persons"]) for row in everyone}
    assert sorted(map(len, by_name)) == [1, 1, 2]
    for name in {name for names in by_name for name in names}:
        alone = granted.ask("clinic", person=name)
        assert alone == [row for row in everyone if name in row["persons"]]
        assert granted.ask("clinic", limit=1, person=name) == alone
    path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth&person="
    granted.register("gym")
    for who, name in (("gym", everyone[0]["persons"][0]), ("clinic", "ai"), ("clinic", "a" * 39)):
        answer = granted.send("GET", path + name, Role.RECIPIENT, who)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["name"] == "person"


def test_the_whole_steps_of_times_are_all_of_them_where_there_are_no_steps(town: Town) -> None:
    times = (
        "{(,2026-01-01 00:00:30+00),[2026-01-02 00:00:30+00,2026-01-02 00:02:10+00),[2027-01-01,)}"
    )
    for step, wanted in (
        ("0", times),
        ("1 minute", "{(,2026-01-01 00:00:00+00),[2026-01-02 00:01:00+00,2026-01-02 00:02:00+00),"
                     "[2027-01-01,)}"),
        ("1 hour", "{(,2026-01-01 00:00:00+00),[2027-01-01,)}"),
    ):  # fmt: skip
        found = town.connection.execute(
            "SELECT consent.inward(%s, %s) = %s::tstzmultirange, consent.inward(NULL, %s) = '{}'",
            (times, step, wanted, step),
        ).fetchone()
        assert found == (True, True), step


def test_pages_go_on_over_any_number_of_parties(town: Town, monkeypatch: Any) -> None:
    """Several statements a page, and a page that ends within one."""
    monkeypatch.setattr(personal, "PARTIES", (1, 2))
    town.register("clinic")
    for n in range(7):
        town.bind(f"band-{n}", [f"person-{n}"], (DAY, None))
        if n % 3:
            town.grant(f"person-{n}")
        for k in range(3):
            time = DAY + timedelta(seconds=k)
            town.store(Row((f"band-{n}", "heart-rate"), time, float(10 * n + k)))
    wanted = [float(10 * n + k) for n in range(7) if n % 3 for k in range(3)]
    for limit in (1, 2, 3, 5, 50):
        assert [row["result"] for row in town.ask("clinic", limit)] == wanted


def test_every_shape_is_reduced(town: Town) -> None:
    """Positions become the centre of their grid square; a document is shown exact or not at all."""
    town.register("clinic")
    town.bind("band", ["ai"], (DAY, None))
    walk = town.city.one("INSERT INTO category (text) VALUES ('walking') RETURNING code")
    for n in range(3):
        time = DAY + timedelta(seconds=20 * n)
        place = (139.70001 + n / 10_000, 35.66001, 1.5, 90.0)
        town.insert(("band", "activity"), "category", "observation", time, walk)
        town.insert(("band", "position"), "position", "observation_position", time, *place)
        town.insert(("band", "ecg"), "document", "observation_document", time, Jsonb({"n": n}))
    everything = {"category": "pd:MedicalHealth"}, {"category": "pd:Location"}
    exact, minute = str(uuid4()), str(uuid4())
    for name, resolution in ((exact, "exact"), (minute, "minute")):
        assert town.grant("ai", name, resolution=resolution).status_code == 200
        place_name = name[:-1] + ("0" if name[-1] != "0" else "1")
        granted = town.grant("ai", place_name, category="pd:TravelHistory", resolution=resolution)
        assert granted.status_code == 200
        if resolution == "exact":
            shown = [row for each in everything for row in town.ask("clinic", **each)]
            assert len(shown) == 9
            assert {row["property"]: row["result"] for row in shown} == {
                "activity": "walking",
                "ecg": {"n": 2},
                "position": {
                    "longitude": 139.70021, "latitude": 35.66001, "speed": 1.5, "course": 90.0,
                },
            }  # fmt: skip
            assert town.revoke("ai", name).status_code == 200
            assert town.revoke("ai", place_name).status_code == 200
    shown = [row for each in everything for row in town.ask("clinic", **each)]
    assert sorted(row["property"] for row in shown) == ["activity", "position"]
    cell = next(row["result"] for row in shown if row["property"] == "position")
    assert (cell["speed"], cell["course"]) == (None, None)
    # The square of 3" x 4.5" that holds the last place of the minute.
    assert cell["latitude"] == pytest.approx((int(35.66001 * 1200) + 0.5) / 1200)
    assert cell["longitude"] == pytest.approx((int(139.70021 * 800) + 0.5) / 800)
    assert all(row["phenomenon_time"] == iso_z(DAY) for row in shown)


def iso_z(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
