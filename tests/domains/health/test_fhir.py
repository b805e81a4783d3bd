"""FHIR by itself: every example read and written again, hostile JSON, times, Consent and grant."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import domains
from consent import areas
from consent.grants import Terms
from consent.levels import LEVELS, NUMBERS
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.sector import Context
from domains.health import consents, fhir, search, times
from domains.health.decode import decode
from domains.health.fhir import FhirError
from domains.health.observation import category_of
from ingest.check import check
from tests.consent.places import AREAS, geojson

NOW = 1_767_225_600_000_000
CONTEXT = Context("gw", NOW)
HEALTH = domains.sector("health")
LOINC = "http://loinc.org"


@pytest.fixture(scope="session")
def examples(shared_data: Path) -> dict[str, bytes]:
    folder = shared_data / "fhir" / "hl7-r4-examples"
    found = {path.stem: path.read_bytes() for path in sorted(folder.glob("*-*.json"))}
    if not found:
        pytest.skip(f"no FHIR examples at {folder}")
    return found


def test_every_example_is_read_checked_and_written_digit_by_digit(
    examples: dict[str, bytes],
) -> None:
    assert len(examples) == 46
    for name, raw in examples.items():
        resource = fhir.read(raw)
        fhir.check(resource)
        assert fhir.read(fhir.write(resource)) == resource, name
        assert json.loads(fhir.write(resource)) == json.loads(raw), name


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "structure"), (b"[]", "structure"), (b'{"a":1,"a":2}', "structure"),
        (b'{"a":NaN}', "structure"), (b'{"a":1e999}', "value"), (b'{"a":null}', "structure"),
        (b'{"a":"\\u0000"}', "structure"), (b'{"a":"\\ud800"}', "structure"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "too-costly"), (b'{"a":' + b"[" * 100_000, "structure"),
        (b'{"a":' + b"1" * 50 + b"}", "value"), (b'{"a":1.' + b"1" * 50 + b"}", "value"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(FhirError) as caught:
        fhir.read(raw)
    assert caught.value.issues[0].code == code


def observation(**changes: Any) -> dict[str, Any]:
    said = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "8867-4"}]},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2025-01-01T00:00:00Z",
        **changes,
    }
    return {name: each for name, each in said.items() if each is not None}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": "banana"}, "code-invalid"),
        ({"nonsense": 1}, "structure"),
        ({"code": None}, "required"),
        ({"effectiveDateTime": None}, "required"),
        ({"effectiveDateTime": "2025-01-01T00:00Z"}, "value"),
        ({"effectiveDateTime": "2025-13"}, "value"),
        ({"effectiveDateTime": "2999-01-01"}, "value"),
        ({"effectiveDateTime": "1969-01-01"}, "value"),
        ({"effectiveDateTime": None, "effectivePeriod": {"end": "2025-01-01"}}, "required"),
        ({"subject": None}, "required"),
        ({"subject": {"display": "Ai"}}, "required"),
        ({"subject": {"reference": "Group/1"}}, "not-supported"),
        ({"subject": {"reference": "#p"}}, "invariant"),
        ({"contained": [{"resourceType": "Nope", "id": "p"}]}, "not-supported"),
        ({"contained": [{"id": "p"}]}, "not-supported"),
        ({"modifierExtension": [{"url": "urn:x", "valueCode": "y"}]}, "extension"),
        ({"valueString": "x", "dataAbsentReason": {"text": "y"}}, "invariant"),
    ],
)
def test_what_a_model_would_let_pass(changes: dict[str, Any], code: str) -> None:
    """Each is a rejection that says what and where, and quotes nothing of it."""
    payload = json.dumps(observation(**changes)).encode()
    decoded = decode("fhir", payload, CONTEXT)
    assert [r.reason for r in decoded.rejected] == [code]
    assert decoded.observations == 0
    assert "banana" not in decoded.rejected[0].detail


def test_what_reads_a_value_and_what_does_not() -> None:
    """A unit in words, a comparator, another system: the document has it, no number is made up."""
    ucum = {"system": "http://unitsofmeasure.org", "code": "/min"}
    for quantity, numbers in (
        ({"value": 61, **ucum}, [61.0]),
        ({"value": 1, **ucum, "code": "/s"}, [60.0]),
        ({"value": 61, **ucum, "comparator": "<"}, None),
        ({"value": 61, "unit": "beats/minute"}, None),
        ({"value": 61, **ucum, "code": "kg"}, None),
        ({"value": 61, "system": "urn:x", "code": "/min"}, None),
    ):
        payload = json.dumps(observation(valueQuantity=quantity)).encode()
        decoded = check(HEALTH, decode("fhir", payload, CONTEXT), NOW, 60.0)
        assert not decoded.rejected
        found = None if decoded.numbers is None else decoded.numbers.result.tolist()
        assert found == (numbers if numbers is None else pytest.approx(numbers)), quantity
        assert decoded.documents is not None


def test_a_grant_for_one_vital_sign_reaches_no_other() -> None:
    def part(*codes: str) -> dict[str, Any]:
        return {"code": {"coding": [{"system": LOINC, "code": code} for code in codes]}}

    for resource, category in (
        (part("8867-4"), "chimata:HeartRate"),
        (part("2708-6", "59408-5"), "chimata:OxygenSaturation"),
        ({**part("85354-9"), "component": [part("8480-6"), part("8462-4")]},
         "chimata:BloodPressure"),
        ({**part("8867-4"), "component": [part("8480-6")]}, "pd:HealthRecord"),
        ({**part("8867-4"), "component": [part("15074-8")]}, "pd:HealthRecord"),
        (part("8867-4", "8310-5"), "pd:HealthRecord"),
        ({"code": {"text": "heart rate"}}, "pd:HealthRecord"),
    ):  # fmt: skip
        assert category_of(resource) == category


def test_times_are_spans() -> None:
    day = 86_400_000_000
    for text, length in (
        ("2024", 366 * day), ("2024-02", 29 * day), ("2023-12", 31 * day), ("2024-02-29", day),
        ("2024-02-29T10:11:12Z", 1_000_000), ("2024-02-29T10:11:12.120+09:00", 1_000),
        ("2024-02-29T10:11:12.1234567Z", 1),
    ):  # fmt: skip
        span = times.span(text, "x")
        assert span.until is not None
        assert span.until - span.start == length == span.precision
    assert times.span("2024-01-01", "x").start == times.span("2023-12-31T15:00:00Z", "x").start
    with pytest.raises(FhirError):
        times.span("9999-12", "x")


names = st.text(st.characters(codec="utf-8"), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names
    | st.sampled_from(["Patient/1", "Bundle", "collection", "final", "2025-01-01", "#x", LOINC]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        names | st.sampled_from(
            ["resourceType", "type", "entry", "resource", "fullUrl", "code", "coding", "subject",
             "reference", "identifier", "contained", "component", "valueQuantity", "period"]
        ), inner, max_size=4,
    ),
    max_leaves=15,
)  # fmt: skip
FIELDS = [*observation(), "effectivePeriod", "effectiveTiming", "issued", "component", "contained",
          "device", "hasMember", "valueQuantity", "identifier", "id", "meta", "text"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=3), st.sampled_from(
    ["alone", "collection", "batch", "transaction"]))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_nothing_makes_the_decoder_fail(changes: dict[str, Any], kind: str) -> None:
    """Each is stored or a rejection with its reason, and what is stored passes the check."""
    resource = {**observation(), **changes}
    if kind != "alone":
        entries = [{"fullUrl": "http://a/Observation/1", "resource": resource},
                   {"resource": {"resourceType": "Patient", **changes}}]  # fmt: skip
        resource = {"resourceType": "Bundle", "type": kind, "entry": entries}
    decoded = decode("fhir", json.dumps(resource).encode(), CONTEXT)
    for rejected in decoded.rejected:
        assert rejected.reason in fhir.CODES
        assert rejected.detail
    assert not check(HEALTH, decoded, NOW, 900.0).rejected[len(decoded.rejected) :]
    assert kind != "transaction" or not (decoded.rejected and decoded.observations)


@given(st.lists(st.tuples(st.sampled_from([*search.PARAMETERS, "x"]), names), max_size=4))
def test_nothing_makes_a_search_fail(parameters: list[tuple[str, str]]) -> None:
    try:
        search.parse([("_purpose", "dpv:ServiceManagement"), *parameters], "http://a")
    except FhirError as error:
        assert fhir.outcome(error.issues)["issue"]


moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
windows = st.tuples(moments, moments).filter(lambda pair: pair[0] < pair[1])
RECIPIENT = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


@given(
    grant=st.uuids(version=4),
    recipient=RECIPIENT,
    purpose=st.sampled_from(sorted(PURPOSES.terms)),
    category=st.sampled_from(sorted(CATEGORIES.terms)),
    operation=st.sampled_from(list(Operation)),
    event=windows,
    is_open=st.booleans(),
    valid=windows,
    level=st.sampled_from(sorted(NUMBERS.values())),
    countries=st.sets(st.sampled_from(["JP", "FR", "US"]), min_size=1),
    notice=st.binary(min_size=32, max_size=32),
    area=st.sampled_from([None, *(areas.canonical(geojson(each)) for each in AREAS.values())]),
)
@settings(deadline=None)
def test_a_grant_comes_back_from_its_consent(
    grant: UUID, recipient: str, purpose: str, category: str, operation: Operation,
    event: tuple[datetime, datetime], is_open: bool, valid: tuple[datetime, datetime], level: int,
    countries: set[str], notice: bytes, area: str | None,
) -> None:  # fmt: skip
    """Word by word, through JSON and the models; ended, it ends the same grant."""
    row = {
        "grant_id": grant, "recipient": recipient, "purpose": purpose, "category": category,
        "operation": operation.value, "event_from": event[0],
        "event_to": None if is_open else event[1], "valid_from": valid[0], "valid_to": valid[1],
        "level": level, "countries": sorted(countries), "notice": notice.hex(), "ended": None,
        "area": area,
    }  # fmt: skip
    resource = fhir.read(fhir.write(consents.resource_of(row, "ai")))
    fhir.check(resource)
    meant = consents.meaning_of(resource, "ai")
    assert meant.grants == ((grant, Terms(
        recipient, purpose, category, operation, valid[1], notice.hex(), valid[0], event[0],
        None if is_open else event[1], LEVELS[level].name, tuple(sorted(countries)), area,
    )),)  # fmt: skip
    assert meant.ends == (valid[1] <= datetime.now(UTC) + timedelta(seconds=1))
    assert consents.meaning_of({**resource, "status": "entered-in-error"}, "ai").ends
    with pytest.raises(FhirError):
        consents.meaning_of(resource, "ken")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("dateTime2",), 1), (("modifierExtension",), [{"url": "urn:x"}]), (("contained",), []),
        (("organization",), [{"reference": "Organization/1"}]),
        (("provision", "data"), []), (("provision", "securityLabel"), []),
        (("provision", "provision"), [{"type": "deny"}]), (("provision", "purpose"), []),
        (("provision", "code"), []), (("provision", "actor"), []),
        (("provision", "period"), {"start": "2026-01-01"}),
        (("provision", "modifierExtension"), [{"url": "urn:x", "valueCode": "y"}]),
        (("provision", "class"), [{"system": "urn:x", "code": "Patient"}]),
        (("provision", "action"), [{"coding": [{"system": consents.ACTION, "code": "correct"}]}]),
        (("provision", "purpose"), [{"system": "https://w3id.org/dpv#", "code": "Purpose"}]),
        (("extension",), [{"url": consents.NOTICE, "valueString": "short"}]),
        (("performer",), [{"reference": "Organization/bank"}]),
        (("scope",), {"coding": [{"code": "research"}]}),
    ],
)  # fmt: skip
def test_no_permit_is_wider_than_what_was_understood(path: tuple[str, ...], value: Any) -> None:
    """An element that we do not know may be a condition: then there is no grant at all."""
    row = {
        "grant_id": UUID(int=1), "recipient": "clinic", "purpose": "dpv:ServiceManagement",
        "category": "chimata:HeartRate", "operation": "read",
        "event_from": datetime(2026, 1, 1, tzinfo=UTC), "event_to": None,
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "valid_to": datetime(2100, 1, 1, tzinfo=UTC), "level": 0, "countries": ["JP"],
        "notice": "00" * 32, "ended": None, "area": None,
    }  # fmt: skip
    resource = consents.resource_of(row, "ai")
    assert consents.meaning_of(resource, "ai").grants
    part = resource if len(path) == 1 else resource["provision"]
    part[path[-1]] = value
    with pytest.raises(FhirError):
        consents.meaning_of(resource, "ai")
