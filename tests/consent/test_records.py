"""Records of consent: JSON-LD that any reader of RDF understands, whose terms are DPV's, signed."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rdflib import Graph, Literal, URIRef
from rdflib.namespace import DCTERMS, RDF, Namespace

from consent import checks, receipts, records
from consent.receipts import Signer
from consent.vocabulary import CATEGORIES, PURPOSES
from core.errors import CityError
from core.settings import Settings
from core.tokens import Role
from tests.api.conftest import serving
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import Row
from tests.platform import CHIMATA

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib")

DPV = Namespace("https://w3id.org/dpv#")
OURS = Namespace("urn:chimata:ns#")
GRANT = "00000000-0000-4000-8000-0000000000aa"
# The terms of DPV 2.3 that our documents use: one that is not here is a slip of the pen.
TERMS = set(
    re.findall(
        r"\w+",
        """
    Access Aggregate Anonymise ConsentExpired ConsentGiven ConsentNotice ConsentReceipt
    ConsentRecord ConsentRevoked ConsentWithdrawn DataController DataSubject DataSubjectDataSource
    DataSubjectRight Derive EndlessDuration ExplicitlyExpressedConsent ExpressedConsent
    GuardianOfDataSubject LegalAgent ManageConsent PersonalData Process Query Retrieve Share
    SpecialCategoryPersonalData StorageLocation ThirdParty UntilTimeDuration WithdrawConsent
    hasAddress hasApplicableLaw hasConsentControl hasConsentStatus hasContact hasDataController
    hasDataSource hasDataSubject hasDuration hasEntity hasIdentifier hasJurisdiction hasLegalBasis
    hasLocation hasName hasNotice hasPersonalData hasProcess hasProcessing hasPurpose hasRecipient
    hasRecordOfActivity hasRight hasStorageCondition isExercisedAt isIndicatedAtTime isIndicatedBy
    isRepresentativeFor
    """,
    )
)


@pytest.fixture
def town(database_url: str, tmp_path: Path) -> Iterator[Town]:
    settings = Settings(
        database_url=database_url,
        data=tmp_path,
        controller="見本市;東京都見本市1-1;mailto:privacy@city.example",
    )
    with serving(settings) as served, psycopg.connect(database_url, autocommit=True) as connection:
        town = Town(served, connection)
        for recipient in ("clinic", "gym"):
            town.register(recipient)
        town.bind("band", ["ai"], (DAY, None))
        town.store(Row(("band", "heart-rate"), DAY, 1.0))
        assert town.grant("ai", GRANT).status_code == 200
        yield town


def read(
    town: Town, role: Role = Role.CITIZEN, who: str = "ai", kind: str = "record"
) -> dict[str, Any]:
    answer = town.send("GET", f"/v1/consent/grants/{GRANT}/{kind}", role, who)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/ld+json"
    assert answer.headers["cache-control"] == "no-store"
    told: dict[str, Any] = answer.json()
    return told


def graph_of(document: dict[str, Any]) -> Graph:
    """As RDF; the context is inside, so nothing is fetched."""
    return Graph().parse(data=orjson.dumps(document), format="json-ld")


def key_of(town: Town) -> str:
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    return str(told["key"])


def statuses(document: dict[str, Any]) -> list[str]:
    return [each["@type"][0] for each in document["dpv:hasConsentStatus"]]


def test_a_record_is_rdf_with_what_the_standard_asks(town: Town) -> None:
    """Each mandatory field of TS 27560 that the platform knows, at its place in DPV."""
    graph = graph_of(read(town))
    record = URIRef(f"urn:uuid:{GRANT}")
    assert (record, RDF.type, DPV.ConsentRecord) in graph
    shape = URIRef("https://w3id.org/dpv/schema/dpv-27560#record")
    assert (record, DCTERMS.conformsTo, shape) in graph
    for name in (
        "hasIdentifier", "hasDataSubject", "hasNotice", "hasProcess", "hasJurisdiction",
        "hasConsentControl", "hasRight", "hasEntity", "hasConsentStatus",
    ):  # fmt: skip
        assert list(graph.objects(record, DPV[name])), name
    (process,) = graph.objects(record, DPV.hasProcess)
    term = PURPOSES.terms["dpv:ServiceManagement"]
    assert list(graph.objects(process, DPV.hasPurpose)) == [URIRef(term.iri)]
    for name in ("hasLegalBasis", "hasDataController", "hasRecipient", "hasProcessing"):
        found = list(graph.objects(process, DPV[name]))
        assert found, name
        assert all(isinstance(each, URIRef) for each in found), f"{name} must be IRIs"
    (data,) = graph.objects(process, DPV.hasPersonalData)
    assert (data, RDF.type, DPV.SpecialCategoryPersonalData) in graph
    broader = URIRef("http://www.w3.org/2004/02/skos/core#broader")
    assert list(graph.objects(data, broader)) == [URIRef(CATEGORIES.terms["pd:MedicalHealth"].iri)]
    (status,) = graph.objects(record, DPV.hasConsentStatus)
    assert (status, RDF.type, DPV.ConsentGiven) in graph
    (at,) = graph.objects(status, DPV.isIndicatedAtTime)
    assert isinstance(at, Literal)
    assert at.toPython().tzinfo is not None
    (notice,) = graph.objects(record, DPV.hasNotice)
    assert list(graph.objects(notice, OURS.sha256)) == [Literal("00" * 32)]


@pytest.mark.parametrize("kind", ["record", "receipt"])
def test_every_name_is_whole_and_every_term_is_dpvs(town: Town, kind: str) -> None:
    town.grant("ai", GRANT, resolution="day")
    town.revoke("ai", GRANT)
    for role, who in ((Role.CITIZEN, "ai"), (Role.RECIPIENT, "clinic")):
        document = read(town, role, who, kind)
        graph = graph_of(document)
        assert len(graph) > 60
        for triple in graph:
            for each in triple:
                if isinstance(each, URIRef):
                    assert re.match(r"(https?://|urn:)\S+$", each), each
        used = {
            str(each).removeprefix(DPV)
            for triple in graph
            for each in triple
            if isinstance(each, URIRef) and each.startswith(DPV)
        }
        coded = {code.partition(":")[2] for code in PURPOSES.terms if code.startswith("dpv:")}
        assert used - TERMS - coded == set()
        # What is said outside of the vocabulary alone.
        assert not re.search(r'"(sigma|version|subject)"', orjson.dumps(document).decode())


def test_a_record_tells_all_that_became_of_a_grant(town: Town) -> None:
    first = read(town)
    town.grant("ai", GRANT, resolution="hour")
    path = f"/v1/consent/objections/{uuid4()}"
    assert town.send("PUT", path, Role.CITIZEN, "ai", {}).status_code == 200
    town.revoke("ai", GRANT)
    last = read(town)
    assert statuses(first) == ["dpv:ConsentGiven"]
    assert statuses(last) == ["dpv:ConsentGiven", "dpv:ConsentGiven", "dpv:ConsentWithdrawn"]
    events = last["dpv:hasConsentStatus"]
    assert events[0] == first["dpv:hasConsentStatus"][0], "what was agreed once stays as it was"
    assert [each["chimata:action"] for each in events] == ["GRANT", "NARROW", "REVOKE"]
    assert events[0]["chimata:termsHash"] != events[1]["chimata:termsHash"]
    times = [each["dpv:isIndicatedAtTime"] for each in events]
    assert times == sorted(times)
    assert times[1] < last["chimata:objectedAt"][0] < times[2]
    assert last["dpv:hasProcess"][0]["chimata:resolution"] == "hour"
    assert last["dct:modified"] == times[-1]


def test_a_recipient_is_told_as_it_says_of_itself(town: Town) -> None:
    """How long it keeps data is no term of the grant: the hash of what was agreed stays."""
    before = read(town)["dpv:hasConsentStatus"]
    body = {
        "title_ja": "診療所", "title_en": "Clinic", "country": "JP",
        "profile": {
            "kind": "dpv:HealthcareOrganisation", "contact": "privacy@clinic.example",
            "identifier": {"scheme": "houjin-bangou", "value": "7123456789012"},
            "representative": "院長", "purposes": ["health:ServiceProvision"],
            "retention_days": 90, "security": {
                "certificates": [{"scheme": "isms", "number": "IS 1", "until": "2027-03-31"}],
                "measures": {"ja": "暗号化", "en": "Encrypted"},
            },
            "benefit": {"ja": "診療", "en": "Care"},
        },
    }  # fmt: skip
    answer = town.send("PUT", "/v1/recipients/clinic", Role.OPERATOR, "office", body)
    assert answer.status_code == 200, answer.text
    document = read(town)
    assert document["dpv:hasConsentStatus"] == before
    (_, recipient) = document["dpv:hasEntity"]
    assert recipient["@type"] == ["dpv:ThirdParty", "dpv:HealthcareOrganisation"]
    assert recipient["dpv:hasContact"] == "privacy@clinic.example"
    assert "houjin-bangou:7123456789012" in recipient["dpv:hasIdentifier"]
    graph = graph_of(document)
    (kept,) = graph.subjects(RDF.type, DPV.StorageDuration)
    (duration,) = graph.objects(kept, DPV.hasDuration)
    assert [str(each) for each in graph.objects(duration, RDF.value)] == ["P90D"]


def test_a_grant_that_ran_out_says_so(town: Town) -> None:
    soon = town.connection.execute("SELECT clock_timestamp() + interval '1 second'").fetchone()
    assert soon is not None
    town.grant("ai", GRANT, valid_to=iso(soon[0]))
    town.connection.execute("SELECT pg_sleep(1.1)")
    ended = read(town)["dpv:hasConsentStatus"][-1]
    assert ended["@type"][0] == "dpv:ConsentExpired"
    assert ended["dpv:isIndicatedBy"] == records.CONTROLLER


def test_each_reader_has_names_of_its_own(town: Town) -> None:
    (row,) = town.ask("clinic")
    own, theirs = read(town), read(town, Role.RECIPIENT, "clinic")
    subject = theirs["dpv:hasDataSubject"]["@id"]
    assert subject == f"urn:chimata:subject:{row['persons'][0]}"
    assert own["dpv:hasDataSubject"]["@id"] != subject
    receipt = read(town, kind="receipt")
    assert receipt["dct:audience"] == own["dpv:hasDataSubject"]["@id"]
    assert receipt["dpv:hasRecordOfActivity"][0]["dct:identifier"] == GRANT
    assert read(town, Role.RECIPIENT, "clinic", "receipt")["dct:audience"] == (
        "urn:chimata:party:clinic"
    )
    for document in (own, theirs):
        assert '"ai"' not in orjson.dumps(document).decode()
    path = f"/v1/consent/grants/{GRANT}/record"
    for role, who, status in (
        (Role.CITIZEN, "ken", 404),
        (Role.RECIPIENT, "gym", 404),
        (Role.RECIPIENT, "ai", 404),
        (Role.CITIZEN, "clinic", 404),
        (Role.OPERATOR, "office", 403),
        (Role.STAFF, "staff", 403),
    ):
        assert town.send("GET", path, role, who).status_code == status, (role, who)
    unknown = f"/v1/consent/grants/{uuid4()}/record"
    texts = [town.send("GET", p, Role.RECIPIENT, "gym").json()["detail"] for p in (path, unknown)]
    assert texts[0].replace(GRANT, "") == re.sub(r"[0-9a-f-]{36}", "", texts[1])


@pytest.mark.parametrize("kind", ["record", "receipt"])
def test_it_is_signed_and_nothing_forged_is(town: Town, kind: str, tmp_path: Path) -> None:
    document = read(town, kind=kind)
    text = key_of(town)
    key = receipts.public_key(text)
    (held,) = checks.check(orjson.dumps(document), checks.Known(key))
    assert held == f"holds: {document['@type']} {document['@id']}"
    again = dict(reversed(document.items()))
    assert list(checks.check(orjson.dumps(again), checks.Known(key))) == [held], "in any order"
    checkpoint = Signer(Ed25519PrivateKey.generate()).sign(1, bytes(32))
    for change in (
        {"dct:created": "2020-01-01T00:00:00.000000Z"},
        {"@context": {**document["@context"], "dpv": "https://example.org/#"}},
        {"more": 1},
        {"chimata:signature": ""},
        {"chimata:signature": checkpoint},
        {"chimata:signature": None},
        {"@id": None},
    ):
        with pytest.raises(CityError):
            list(checks.check(orjson.dumps({**document, **change}), checks.Known(key)))
    with pytest.raises(CityError):
        other = checks.Known(Ed25519PrivateKey.generate().public_key())
        list(checks.check(orjson.dumps(document), other))
    file = tmp_path / "record.jsonld"
    for content, code in ((document, 0), ({**document, "more": 1}, 1)):
        file.write_bytes(orjson.dumps(content))
        done = subprocess.run(
            [str(CHIMATA), "verify", str(file), "--key", text],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


def test_a_checkpoint_is_no_record_and_a_record_no_checkpoint(town: Town) -> None:
    """One key signs both: the first line tells them apart."""
    document = read(town)
    with pytest.raises(CityError):
        receipts.open_checkpoint(document["chimata:signature"], receipts.public_key(key_of(town)))


def test_the_controller_is_told_as_it_is_set() -> None:
    told = records.controller_of("見本市; 東京都見本市1-1 ;mailto:privacy@city.example")
    assert told == records.Controller("見本市", "東京都見本市1-1", "mailto:privacy@city.example")
    assert records.controller_of("") == records.Controller()
    with pytest.raises(CityError):
        records.controller_of("見本市")


@pytest.mark.parametrize(
    ("kind", "mine", "theirs"),
    [
        ("self", None, None),
        ("guardian", "dpv:GuardianOfDataSubject", None),
        ("delegate", "dpv:LegalAgent", None),
    ],
)
def test_who_acts_for_a_person_is_told_to_the_person_alone(
    kind: str, mine: str | None, theirs: str | None
) -> None:
    for is_person, wanted in ((True, mine), (False, theirs)):
        by = records._indicator(kind, "urn:x", is_person=is_person)
        assert (by["@type"] if isinstance(by, dict) else None) == wanted
    assert records._indicator("operator", "urn:x", is_person=False) == records.CONTROLLER


def test_canonical_json_is_that_of_rfc_8785() -> None:
    told = {"b": [1, True, None], "a": 'é\u2028"\\\n', "あ": {}}
    assert records.canonical(told) == '{"a":"é\u2028\\"\\\\\\n","b":[1,true,null],"あ":{}}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.canonical({"a": float("nan")})
