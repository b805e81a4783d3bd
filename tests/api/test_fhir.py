"""FHIR over the real server: sent, stored, read by grants, and the same in meaning as sent."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from fhir.resources.R4B.observation import Observation

from core.settings import Settings
from core.tokens import Role, issue
from domains.health import fhir
from domains.health.decode import entries_of
from ingest import http
from tests.api.conftest import served_with
from tests.api.town import NOTICE, Town, iso
from tests.consent.places import AREAS, PLACES, geojson

BASE = "/v1/health/fhir"
EXAMPLES = "fhir/hl7-r4-examples"
TREAT = {"_purpose": "dpv:ServiceManagement"}


@pytest.fixture
def town(database_url: str, tmp_path: Path) -> Iterator[Town]:
    settings = Settings(database_url=database_url, data=tmp_path)
    with (
        served_with(settings, http.router(settings)) as served,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        made = Town(served, connection)
        made.register("clinic")
        yield made


@pytest.fixture(scope="session")
def examples(shared_data: Path) -> dict[str, bytes]:
    folder = shared_data / EXAMPLES
    found = {path.stem: path.read_bytes() for path in sorted(folder.glob("*-*.json"))}
    if not found:
        pytest.skip(f"no FHIR examples at {folder}")
    return found


def post(
    town: Town, body: Any, role: Role = Role.GATEWAY, subject: str = "hospital"
) -> httpx.Response:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    token = issue(town.keys, role, gateway=subject, subject=subject)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": fhir.MEDIA_TYPE}
    answer = town.served.client.post(town.served.url + BASE, headers=headers, content=payload)
    assert answer.headers["content-type"] == f"{fhir.MEDIA_TYPE}; charset=utf-8"
    fhir.check(fhir.read(answer.content))
    return answer


def get(town: Town, what: str, role: Role, subject: str, query: Any = None) -> httpx.Response:
    url = f"{town.served.url}{BASE}/{what}"
    headers = town.headers(role, subject)
    answer = town.served.client.get(url, headers=headers, params=query)
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    return answer


def search(town: Town, recipient: str = "clinic", **query: Any) -> list[fhir.Resource]:
    """Every page; each is a searchset that is valid FHIR."""
    found: list[fhir.Resource] = []
    answer = get(town, "Observation", Role.RECIPIENT, recipient, {**TREAT, **query})
    while True:
        assert answer.status_code == 200, answer.text
        bundle = fhir.read(answer.content)
        fhir.check(bundle)
        assert bundle["type"] == "searchset"
        assert "total" not in bundle
        found += [entry["resource"] for entry in bundle.get("entry", [])]
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        if "next" not in links:
            return found
        assert bundle.get("entry"), "a page is filled after filtering"
        headers = town.headers(Role.RECIPIENT, recipient)
        answer = town.served.client.get(links["next"], headers=headers)


def bind(town: Town, thing: str, person: str) -> None:
    body = {"persons": [person], "event_from": iso(datetime(1970, 1, 1, tzinfo=UTC))}
    path = f"/v1/consent/bindings/health/{thing.replace('%', '%25')}/{uuid4()}"
    answer = town.send("PUT", path, Role.OPERATOR, "office", body)
    assert answer.status_code == 200, answer.text


def heart_rate(**changes: Any) -> fhir.Resource:
    """A vital sign; a change to None leaves the element out."""
    said = {
        "resourceType": "Observation",
        "id": "hr-1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": "Patient/ai", "display": "Ai Hanako"},
        "effectiveDateTime": "2026-01-01T09:00:00+09:00",
        "valueQuantity": {
            "value": 61, "unit": "beats", "system": "http://unitsofmeasure.org", "code": "/min",
        },
        **changes,
    }  # fmt: skip
    return {name: each for name, each in said.items() if each is not None}


REFERRED = ("subject", "performer", "encounter", "specimen", "device")


def meaning(value: Any) -> Any:
    """A resource but for who is meant, in any order of names."""
    if isinstance(value, list):
        return [meaning(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, each in sorted(value.items()):
        narrative = name == "text" and isinstance(each, dict)
        narrative |= name == "display" and "reference" in value
        if name in ("id", "reference", "identifier", "meta", *REFERRED) or narrative:
            continue
        kept[name] = meaning(each)
    return kept


def test_every_example_comes_out_as_it_went_in(town: Town, examples: dict[str, bytes]) -> None:
    """Each Observation that says its time: the same in meaning, digit by digit, found by its code.

    Those that cannot be kept are refused by name; nothing else is lost.
    """
    refused, sent = {}, []
    for name, payload in examples.items():
        if not name.startswith(("Observation", "Bundle")):
            continue
        answer = post(town, payload)
        resource = fhir.read(payload)
        if answer.status_code not in (200, 201):
            refused[name] = answer.json()["issue"][0]["code"]
            continue
        for entry in entries_of(resource, "hospital"):
            if entry.resource["resourceType"] == "Observation":
                sent.append(entry)
    assert refused == {
        "Bundle-b0a5e4277-83c4-4adb-87e2-e3efe3369b6f": "not-supported",  # nothing observed
        "Bundle-bundle-example": "not-supported",  # a searchset, and below another's answer
        "Bundle-bundle-response": "not-supported",
        "Bundle-bundle-transaction": "not-supported",  # reads and deletes
        "Bundle-father": "not-supported",  # a document
        "Bundle-bundle-references": "required",  # no times
        "Bundle-f001": "not-supported",  # no Observation in it
    }
    assert len(sent) == 11 + 17 + 4
    things = {
        row[0] for row in town.connection.execute("SELECT key FROM thing WHERE sector = 'health'")
    }
    assert len(things) == 4
    for thing in things:
        bind(town, thing, thing.rpartition(":")[2].rpartition("%2F")[2])
    for person in ("example", "f001", "f201", "pat2"):
        assert town.grant(person).status_code == 200
    found = search(town, _count="7")
    expected = sorted(fhir.write(meaning(entry.resource)) for entry in sent)
    assert sorted(fhir.write(meaning(each)) for each in found) == expected
    for name in REFERRED:
        said = [name in each for each in found]
        assert sum(said) <= sum(name in entry.resource for entry in sent)
    assert all("subject" in each for each in found)
    assert sum("hasMember" in each for each in found) == 1
    assert b"66.899999999999991" in fhir.write(found)
    told = json.dumps(found, default=str)
    for secret in ("van de Heuvel", "Roel", "pat2", "Langeveld", "<div", "Patient/example"):
        assert secret not in told, secret


def test_a_heart_rate_is_read_both_ways(town: Town) -> None:
    """As a number by /personal/observations, whole by the search; once however often sent."""
    bind(town, "hospital:Patient:ai", "ai")
    sent = heart_rate(valueQuantity={**heart_rate()["valueQuantity"], "value": 61.50})
    raw = json.dumps(sent).replace("61.5", "61.50").encode()
    assert post(town, raw).status_code == 201
    assert post(town, raw).status_code == 200
    assert search(town) == []
    name = str(uuid4())
    town.grant("ai", name, category="chimata:HeartRate")
    rows = town.ask("clinic", category="chimata:HeartRate")
    assert [(row["property"], row["result"], row["phenomenon_time"]) for row in rows] == [
        ("heart-rate", 61.5, "2026-01-01T00:00:00Z")
    ]
    (found,) = search(town, code="http://loinc.org|8867-4")
    assert b"61.50" in fhir.write(found)
    assert "Ai Hanako" not in json.dumps(found, default=str)
    assert found["subject"] == {"reference": f"Patient/{rows[0]['persons'][0]}"}
    assert search(town, patient=found["subject"]["reference"]) == [found]
    town.register("other")
    town.grant("ai", recipient="other")
    (theirs,) = search(town, "other")
    assert theirs["id"] != found["id"]
    assert theirs["subject"] != found["subject"]
    town.revoke("ai", name)
    assert search(town) == []


def test_property_2_whose_it_is_says_the_binding_never_the_document(
    town: Town, examples: dict[str, bytes]
) -> None:
    """References as HL7's own test of them has it: the same id elsewhere is somebody else."""
    bundle = json.loads(examples["Bundle-bundle-references"])
    for number, entry in enumerate(bundle["entry"]):
        if entry["resource"]["resourceType"] == "Observation":
            entry["resource"]["effectiveDateTime"] = f"2026-01-01T09:00:{number:02d}+09:00"
    answer = post(town, bundle)
    assert answer.status_code == 201, answer.text
    things = [
        row[0]
        for row in town.connection.execute(
            "SELECT t.key FROM thing t JOIN datastream d ON d.thing_id = t.id ORDER BY 1"
        )
    ]
    base = "http:%2F%2Fexample.org%2F"
    assert set(things) == {
        f"{base}fhir%2FPatient%2F23", f"{base}fhir-2%2FPatient%2F1", f"{base}fhir-2%2FPatient%2F23",
        f"{base}fhir%2FPatient%2F45", "http:%2F%2Fexample.org%2Fids|1234567",
        "urn:uuid:04121321-4af5-424c-a0e1-ed3aab1c349d",
    }  # fmt: skip
    bind(town, f"{base}fhir%2FPatient%2F23", "ai")
    town.grant("ai")
    town.grant("ken")
    assert len(search(town)) == 2


def test_the_same_id_of_two_senders_is_two_patients(town: Town) -> None:
    bind(town, "hospital:Patient:ai", "ai")
    town.grant("ai")
    post(town, heart_rate())
    post(town, heart_rate(), subject="other")
    assert len(search(town)) == 1


def test_property_3_a_span_is_permitted_whole_or_not_at_all(town: Town) -> None:
    """A day is in the window from its first to its last moment; what has no end, for ever."""
    bind(town, "hospital:Patient:ai", "ai")
    post(town, heart_rate(effectiveDateTime="2026-01-02"))
    midnight = "2026-01-03T00:00:00+09:00"
    for event_to, seen in (("2026-01-02T23:59:59+09:00", 0), (midnight, 1)):
        name = str(uuid4())
        town.grant("ai", name, event_from="2026-01-02T00:00:00+09:00", event_to=event_to)
        assert len(search(town)) == seen
        town.revoke("ai", name)
    post(town, heart_rate(id="2", effectiveDateTime=None, effectivePeriod={"start": "2026-01-05"}))
    town.grant("ai", event_from=midnight, event_to="2029-01-01T00:00:00Z")
    assert search(town) == []
    town.grant("ai", event_from=midnight)
    assert [each["effectivePeriod"] for each in search(town)] == [{"start": "2026-01-05"}]


def test_a_document_is_within_an_area_for_all_of_its_time(town: Town) -> None:
    """Wherever its patient's record is, or was seen; and the Consent says so."""
    bind(town, "hospital:Patient:ai", "ai")
    post(town, heart_rate(effectiveDateTime="2026-01-02"))
    name = str(uuid4())
    assert town.grant("ai", name, area=geojson(AREAS["town"])).status_code == 200
    assert search(town) == []
    town.stand("hospital:Patient:ai", PLACES["town"])
    assert len(search(town)) == 1
    morning = datetime(2026, 1, 1, 15, tzinfo=UTC)
    for minute in range(0, 1440, 5):
        town.see("hospital:Patient:ai", morning + minute * timedelta(minutes=1), PLACES["town"])
    assert len(search(town)) == 1
    town.see("hospital:Patient:ai", morning + 700.5 * timedelta(minutes=1), PLACES["abroad"])
    assert search(town) == [], "for half a minute it was not"
    answer = town.send("GET", "/v1/health/fhir/Consent", Role.CITIZEN, "ai")
    told = next(e["resource"] for e in answer.json()["entry"] if e["resource"]["id"] == name)
    conditions = {each["url"]: each for each in told["provision"]["modifierExtension"]}
    assert json.loads(conditions["urn:chimata:fhir:area"]["valueString"])["type"] == "Polygon"


def test_two_of_one_day_are_two(town: Town) -> None:
    bind(town, "hospital:Patient:ai", "ai")
    town.grant("ai")
    for name in ("a", "b"):
        post(town, heart_rate(id=name, effectiveDateTime="2026-01-02"))
    assert len(search(town)) == 2
    assert len(town.ask("clinic")) == 2
    corrected = heart_rate(id="a", effectiveDateTime="2026-01-02", status="entered-in-error")
    post(town, corrected)
    assert sorted(each["status"] for each in search(town)) == ["entered-in-error", "final"]


def test_search(town: Town) -> None:
    """By code and time as FHIR says; what is not known is refused: it would widen the answer."""
    bind(town, "hospital:Patient:ai", "ai")
    town.grant("ai")
    other = {"coding": [{"code": "x,|y"}, {"system": "urn:s", "code": "z"}]}
    for number, (code, when) in enumerate(
        [(None, "2026-01-01T09:00:00+09:00"), (other, "2026-01-02"), (other, "2026-02")]
    ):
        changes = {"code": code} if code else {}
        assert post(town, heart_rate(id=f"o{number}", effectiveDateTime=when, **changes)).is_success

    def found(*query: tuple[str, str]) -> list[str]:
        answer = get(town, "Observation", Role.RECIPIENT, "clinic", [*TREAT.items(), *query])
        assert answer.status_code == 200, answer.text
        entries = answer.json().get("entry", [])
        return sorted(each["resource"]["effectiveDateTime"][:10] for each in entries)

    first, second, third = "2026-01-01", "2026-01-02", "2026-02"
    for query, expected in (
        ([("code", "8867-4")], [first]),
        ([("code", "http://loinc.org|8867-4")], [first]),
        ([("code", "http://loinc.org|")], [first]),
        ([("code", "urn:s|8867-4")], []),
        ([("code", r"x\,\|y")], [second, third]),
        ([("code", r"|x\,\|y")], [second, third]),
        ([("code", "|8867-4")], []),
        ([("code", "8867-4,z")], [first, second, third]),
        ([("code", "8867-4"), ("code", "z")], []),
        ([("date", "2026-01-01")], [first]),
        ([("date", "2026")], [first, second, third]),
        ([("date", "ge2026-01-02"), ("date", "lt2026-02")], [second]),
        ([("date", "gt2026-01-02")], [third]),
        ([("date", "le2026-01-02")], [first, second]),
        ([("date", "ne2026-01-02")], [first, third]),
        ([("date", "sa2026-01-01")], [second, third]),
        ([("date", "eb2026-01-02T00:00")], [first]),
        ([("date", "eq2026-01-01,eq2026-02")], [first, third]),
    ):
        assert found(*query) == expected, query
    for bad in (
        {"status": "final"}, {"_include": "*"}, {"code:text": "x"}, {"date": "ap2026"},
        {"date": "2026-13"}, {"date": "2026-01-01T00:00:00 09:00"}, {"_count": "0"},
        {"_format": "xml"}, {"code": ""}, {"patient": "Group/x"}, {"_sort": "-date"},
        {"code": "a|b|c"}, {"date": "é\u0007"},
    ):  # fmt: skip
        answer = get(town, "Observation", Role.RECIPIENT, "clinic", {**TREAT, **bad})
        assert answer.status_code == 400, bad
        assert answer.json()["resourceType"] == "OperationOutcome"
    for worse in ({"patient": "abcdefg"}, {"_cursor": "x"}, {"_purpose": "nothing"}):
        answer = get(town, "Observation", Role.RECIPIENT, "clinic", {**TREAT, **worse})
        assert (answer.status_code, answer.json()["resourceType"]) == (422, "OperationOutcome")


def test_who_may_not_is_told_in_fhir(town: Town) -> None:
    assert post(town, heart_rate(), Role.OPERATOR, "office").status_code == 403
    for role in (Role.OPERATOR, Role.CITIZEN, Role.GATEWAY):
        answer = get(town, "Observation", role, "g", TREAT)
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (403, "forbidden")
    url = town.served.url + BASE
    assert town.served.client.post(url, content=b"{}").json()["issue"][0]["code"] == "login"
    assert get(town, "Consent", Role.RECIPIENT, "clinic").status_code == 403
    metadata = get(town, "metadata", Role.RECIPIENT, "clinic").json()
    fhir.check(metadata)
    assert metadata["fhirVersion"] == "4.0.1"


def test_bundles(town: Town) -> None:
    """A transaction whole or not at all, a batch entry by entry, in their order."""
    bind(town, "hospital:Patient:ai", "ai")
    town.grant("ai")
    post_it = {"method": "POST", "url": "Observation"}

    def bundle(kind: str, *resources: Any, request: Any = post_it) -> fhir.Resource:
        entries = [{"resource": each, "request": request} for each in resources]
        return {"resourceType": "Bundle", "type": kind, "entry": entries}

    good, bad = heart_rate(id="g"), heart_rate(id="b", status="banana")
    answer = post(town, bundle("transaction", good, bad))
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (422, "code-invalid")
    assert search(town) == []
    answer = post(town, bundle("batch", bad, good))
    assert answer.json()["type"] == "batch-response"
    assert [each["response"]["status"][:3] for each in answer.json()["entry"]] == ["422", "201"]
    assert len(search(town)) == 1
    assert post(town, bundle("transaction", good)).json()["type"] == "transaction-response"
    reading = bundle("batch", good, request={"method": "GET", "url": "Observation"})
    (refused,) = post(town, reading).json()["entry"]
    assert refused["response"]["outcome"]["issue"][0]["code"] == "not-supported"
    mine = post(town, bundle("collection", {"resourceType": "Consent"}, request=None))
    assert mine.json()["issue"][0]["code"] in ("business-rule", "structure", "value")
    assert post(town, b"{").status_code == 400
    assert post(town, {"resourceType": "Nope"}).status_code == 422


def consent(person: str = "ai", **changes: Any) -> fhir.Resource:
    coded = {"system": "urn:chimata:ns#", "code": "HeartRate"}
    return {
        "resourceType": "Consent",
        "extension": [{"url": "urn:chimata:fhir:notice", "valueString": NOTICE}],
        "identifier": [{"system": "urn:s", "value": "1"}],
        "status": "active",
        "scope": {"coding": [{"code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": f"Patient/{person}"},
        "policy": [{"uri": "urn:any"}],
        "provision": {
            "type": "permit",
            "period": {"start": "2020-01-01", "end": "2029-12-31"},
            "dataPeriod": {"start": "2026-01-01", "end": "2026-01-01"},
            "actor": [{
                "role": {"coding": [{
                    "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
                    "code": "IRCP"}]},
                "reference": {"reference": "Organization/clinic"}}],
            "purpose": [{"system": "https://w3id.org/dpv#", "code": "ServiceManagement"}],
            "code": [{"coding": [coded]}],
        },
        **changes,
    }  # fmt: skip


def test_a_consent_is_a_grant_until_it_is_inactive(town: Town) -> None:
    """Its last day belongs to it; sent again it is the same grant; another's person is refused."""
    bind(town, "hospital:Patient:ai", "ai")
    post(town, heart_rate(id="1", effectiveDateTime="2026-01-01T23:59:59+09:00"))
    post(town, heart_rate(id="2", effectiveDateTime="2026-01-02T00:00:00+09:00"))
    assert post(town, consent(), Role.CITIZEN, "ken").status_code == 422
    for _ in range(2):
        answer = post(town, consent(), Role.CITIZEN, "ai")
        assert answer.status_code == 201, answer.text
        assert answer.json()["issue"][0]["code"] == "informational"
    (found,) = search(town)
    assert found["effectiveDateTime"] == "2026-01-01T23:59:59+09:00"
    shown = get(town, "Consent", Role.CITIZEN, "ai").json()["entry"]
    assert [entry["resource"]["status"] for entry in shown] == ["active"]
    assert post(town, shown[0]["resource"], Role.CITIZEN, "ai").status_code == 201
    assert len(get(town, "Consent", Role.CITIZEN, "ai").json()["entry"]) == 1
    assert "entry" not in get(town, "Consent", Role.CITIZEN, "ken").json()
    assert post(town, consent(status="inactive"), Role.CITIZEN, "ai").status_code == 201
    assert search(town) == []
    assert post(town, consent(), Role.CITIZEN, "ai").status_code == 409
    (entry,) = get(town, "Consent", Role.CITIZEN, "ai").json()["entry"]
    assert entry["resource"]["status"] == "inactive"


def test_what_is_no_permit_is_kept_as_it_was_sent(town: Town, examples: dict[str, bytes]) -> None:
    """Each example of HL7 comes back word by word to its person, grants nothing, and says so."""
    sent = [fhir.read(raw) for name, raw in examples.items() if name.startswith("Consent")]
    assert len(sent) == 7
    for person in {str(each["patient"]["reference"]).partition("/")[2] for each in sent}:
        own = [each for each in sent if each["patient"]["reference"] == f"Patient/{person}"]
        for each in own:
            answer = post(town, fhir.write(each), Role.CITIZEN, person)
            assert answer.status_code == 201, answer.text
            (told,) = answer.json()["issue"]
            assert (told["severity"], told["code"]) == ("warning", "business-rule")
        shown = fhir.read(get(town, "Consent", Role.CITIZEN, person).content)["entry"]
        assert sorted(fhir.write(entry["resource"]) for entry in shown) == sorted(
            map(fhir.write, own)
        )
    assert town.city.one("SELECT count(*) FROM consent.granted") == 0


def test_a_person_takes_their_resources_along(town: Town) -> None:
    """As the sender gave them, and what came as plain values as Observations of FHIR R4."""
    bind(town, "hospital:Patient:ai", "ai")
    sent = heart_rate(effectiveDateTime="2026-01-02")
    assert post(town, sent).status_code == 201
    answer = town.send("GET", "/v1/me/download?format=fhir", Role.CITIZEN, "ai")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        lines = archive.read("observations.ndjson").splitlines()
    assert sent in [json.loads(line) for line in lines]
    for line in lines:
        Observation.model_validate_json(line)
