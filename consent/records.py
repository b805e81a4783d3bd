"""Records of consent in the shape of ISO/IEC TS 27560:2023, as JSON-LD of W3C DPV; pure.

A document carries its own context, so nothing is fetched to read it, and a signed note over the
SHA-256 of its canonical JSON (RFC 8785), so that anyone checks it without JSON-LD. It holds the
names that its reader was told, and no number of ours.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent.levels import LEVELS
from consent.receipts import ORIGIN, Signer, open_note
from consent.results import Row
from consent.vocabulary import (
    CATEGORIES,
    PREFIXES,
    PROCESSING,
    PURPOSES,
    VERSION,
    Operation,
    Tree,
)
from core.errors import brief, invalid

ABOUT = "chimata/records"
"""The first line of what is signed: no checkpoint begins so."""
SIGNATURE = "chimata:signature"
MEDIA_TYPE = "application/ld+json"
SHAPE = "https://w3id.org/dpv/schema/dpv-27560#"
HOME = "JP"
CONTROLLER = "urn:chimata:party:controller"
LAW = "legal-jp:law-APPI"
ACTIONS = {"GRANT", "NARROW", "REVOKE"}
"""What a reader is told of an act; of any other, that it ended the grant."""
RIGHTS = (
    ("chimata:RightToWithdraw", "同意の撤回", "/v1/consent/grants/{grant}"),
    ("chimata:RightToObject", "利用への異議", "/v1/consent/objections/{objection}"),
    ("chimata:RightToProvisionRecords", "第三者提供記録の開示", "/v1/me/disclosures"),
)

_IRI, _TIME = {"@type": "@id"}, {"@type": "xsd:dateTime"}
CONTEXT: Mapping[str, Any] = {
    **PREFIXES,
    "loc": "https://w3id.org/dpv/loc#",
    "legal-jp": "https://w3id.org/dpv/legal/jp#",
    "dct": "http://purl.org/dc/terms/",
    "dcat": "http://www.w3.org/ns/dcat#",
    "geo": "http://www.opengis.net/ont/geosparql#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    **dict.fromkeys(
        (
            "dct:conformsTo", "dct:publisher", "dct:audience", "skos:broader",
            "dpv:hasDataSubject", "dpv:hasDataController", "dpv:hasRecipient", "dpv:isIndicatedBy",
            "dpv:isRepresentativeFor", "dpv:hasJurisdiction", "dpv:hasApplicableLaw",
            "dpv:hasLocation", "dpv:hasLegalBasis", "dpv:hasPurpose", "dpv:hasProcessing",
        ),
        _IRI,
    ),
    **dict.fromkeys(
        (
            "dct:created", "dct:modified", "dcat:startDate", "dcat:endDate",
            "dpv:isIndicatedAtTime", "chimata:objectedAt",
        ),
        _TIME,
    ),
}  # fmt: skip
"""In every document: DPV publishes none."""


@dataclass(frozen=True, slots=True)
class Reader:
    """For whom a document is: their names for the person and for themselves."""

    subject: str
    name: str
    is_person: bool


@dataclass(frozen=True, slots=True)
class Controller:
    """Who runs the city, as CHIMATA_CONTROLLER says: name;address;contact."""

    name: str = ""
    address: str = ""
    contact: str = ""


def controller_of(setting: str) -> Controller:
    """CHIMATA_CONTROLLER; CityError `invalid` for one of another form."""
    parts = [part.strip() for part in setting.split(";")] if setting else []
    if len(parts) not in (0, 3):
        raise invalid("CHIMATA_CONTROLLER", "must be name;address;contact")
    return Controller(*parts)


def record_of(
    grant: UUID,
    forms: Sequence[Row],
    objections: Sequence[datetime],
    reader: Reader,
    controller: Controller,
    now: datetime,
) -> dict[str, Any]:
    """The record of one grant, of all its forms in their order (consent.grant_records)."""
    last = forms[-1]
    subject = f"urn:chimata:subject:{reader.subject}"
    events = list(_events(forms, subject, now, is_person=reader.is_person))
    return {
        "@id": grant.urn,
        "@type": "dpv:ConsentRecord",
        "dct:identifier": str(grant),
        "dpv:hasIdentifier": str(grant),
        "dct:conformsTo": SHAPE + "record",
        "chimata:vocabularyVersion": VERSION,
        "dct:created": _time(forms[0]["began_at"]),
        "dct:modified": events[-1]["dpv:isIndicatedAtTime"],
        "dpv:hasDataSubject": {"@id": subject, "@type": "dpv:DataSubject"},
        "dpv:hasJurisdiction": f"loc:{HOME}",
        "dpv:hasApplicableLaw": LAW,
        "dpv:hasNotice": {
            "@type": "dpv:ConsentNotice", "dct:language": "ja", "chimata:sha256": last["notice"]
        },
        "dpv:hasProcess": [_placed(_kept(_terms(last), last["profile"]), last["places"])],
        "dpv:hasConsentControl": {
            "@type": ["dpv:ManageConsent", "dpv:WithdrawConsent"],
            "dpv:isExercisedAt": f"/v1/consent/grants/{grant}",
        },
        "dpv:hasRight": [
            {
                "@type": ["dpv:DataSubjectRight", right],
                "dct:title": {"@value": title, "@language": "ja"},
                "dpv:isExercisedAt": path,
            }
            for right, title, path in RIGHTS
        ],
        "dpv:hasEntity": [_controller(controller), _recipient(last)],
        "dpv:hasConsentStatus": events,
        **({"chimata:objectedAt": [_time(at) for at in objections]} if objections else {}),
    }  # fmt: skip


def receipt_of(
    identifier: UUID, record: dict[str, Any], name: str, now: datetime
) -> dict[str, Any]:
    """A receipt to its reader, which holds a record whole."""
    return {
        "@id": identifier.urn,
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": str(identifier),
        "dpv:hasIdentifier": str(identifier),
        "dct:conformsTo": SHAPE + "receipt",
        "dct:created": _time(now),
        "dct:publisher": CONTROLLER,
        "dct:audience": name,
        "dpv:hasRecordOfActivity": [record],
    }


def signed(document: dict[str, Any], signer: Signer) -> dict[str, Any]:
    """A document with its context and signature."""
    whole = {"@context": dict(CONTEXT), **document}
    return {**whole, SIGNATURE: signer.note(_signed_text(whole))}


def check(document: dict[str, Any], key: Ed25519PublicKey) -> str:
    """What a document is that this key signed; CityError `invalid` for any other."""
    bare = {name: value for name, value in document.items() if name != SIGNATURE}
    text = open_note(str(document.get(SIGNATURE, "")), key, ORIGIN)
    try:
        wanted = _signed_text(bare)
    except ValueError as error:
        raise invalid("record", brief(error)) from error
    if text != wanted:
        raise invalid("record", "it is not what was signed")
    return f"holds: {document.get('@type')} {document.get('@id')}"


def canonical(document: Any) -> bytes:
    """Its JSON by RFC 8785, which for texts, whole numbers and ASCII names is this."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _signed_text(document: dict[str, Any]) -> str:
    digest = hashlib.sha256(canonical(document)).digest()
    return f"{ABOUT}\n{base64.b64encode(digest).decode()}\n"


def _terms(form: Row) -> dict[str, Any]:
    """What a form of a grant says, and nothing that may change after it: its hash is kept.

    Areas are told by their commitments: where a fence is may tell more than what is shown in it.
    """
    operation = Operation(form["operation"])
    special = CATEGORIES.is_special(form["category"])
    explicit = special or operation is Operation.RESHARE or form["countries"] != [HOME]
    return {
        "@type": "dpv:Process",
        "dpv:hasPurpose": {"@id": form["purpose"], "dct:title": _titles(PURPOSES, form["purpose"])},
        "dpv:hasPersonalData": [
            {
                "@type": "dpv:SpecialCategoryPersonalData" if special else "dpv:PersonalData",
                "skos:broader": form["category"],
                "dct:title": _titles(CATEGORIES, form["category"]),
                "dct:temporal": _period(form["event_from"], form["event_to"]),
            }
        ],
        "dpv:hasProcessing": list(PROCESSING[operation]),
        "dpv:hasDataSource": {"@type": "dpv:DataSubjectDataSource"},
        "dpv:hasLegalBasis": (
            "dpv:ExplicitlyExpressedConsent" if explicit else "dpv:ExpressedConsent"
        ),
        "dpv:hasDataController": CONTROLLER,
        "dpv:hasRecipient": [_party(form)],
        "dpv:hasStorageCondition": [
            {
                "@type": "dpv:StorageLocation",
                "dpv:hasLocation": [f"loc:{country}" for country in sorted(form["countries"])],
            }
        ],
        "chimata:validity": _period(form["valid_from"], form["valid_to"]),
        "chimata:resolution": LEVELS[form["level"]].name,
        **({"chimata:areas": form["areas"]} if form["areas"] else {}),
    }


def _kept(terms: dict[str, Any], profile: Row | None) -> dict[str, Any]:
    """The terms, with how long the recipient says that it keeps what it gets."""
    if profile is None:
        return terms
    kept = {
        "@type": "dpv:StorageDuration",
        "dpv:hasDuration": {
            "@type": "dpv:TemporalDuration",
            "rdf:value": {"@value": f"P{profile['retention_days']}D", "@type": "xsd:duration"},
        },
    }
    return {**terms, "dpv:hasStorageCondition": [*terms["dpv:hasStorageCondition"], kept]}


def _placed(terms: dict[str, Any], places: Sequence[Row] | None) -> dict[str, Any]:
    """The terms, with what the areas' commitments are to, for the person: all of them must hold.

    A commitment is the SHA-256 of salt and GeoJSON, as bytes one after the other.
    """
    told = [
        {
            "@type": "dct:Location",
            "chimata:commitment": place["id"],
            "chimata:salt": place["salt"],
            "geo:asGeoJSON": {"@value": place["said"], "@type": "geo:geoJSONLiteral"},
        }
        for place in places or ()
    ]
    return {**terms, "dct:spatial": told} if told else terms


def _events(
    forms: Sequence[Row], subject: str, now: datetime, *, is_person: bool
) -> Iterator[dict[str, Any]]:
    """What was indicated, when and by whom, in its order; the last one says what holds."""
    for form in forms:
        until = {
            "@type": "dpv:UntilTimeDuration",
            "rdf:value": {"@value": _time(form["valid_to"]), "@type": "xsd:dateTime"},
        }
        by = _indicator(form["began_kind"], subject, is_person=is_person)
        yield _event("dpv:ConsentGiven", form["began_at"], by, until, form["began_by"], form)
    last = forms[-1]
    endless = {"@type": "dpv:EndlessDuration"}
    if last["ended_at"] is not None:
        by = _indicator(last["ended_kind"], subject, is_person=is_person)
        status = "dpv:ConsentRevoked" if by == CONTROLLER else "dpv:ConsentWithdrawn"
        yield _event(status, last["ended_at"], by, endless, last["ended_by"], last)
    elif last["valid_to"] <= now:
        yield _event("dpv:ConsentExpired", last["valid_to"], CONTROLLER, endless, "EXPIRE", last)


def _event(
    status: str, at: datetime, by: Any, duration: dict[str, Any], act: str, form: Row
) -> dict[str, Any]:
    terms = hashlib.sha256(canonical(_terms(form))).hexdigest()
    return {
        "@type": [status, "dpv:ExpressedConsent"],
        "dpv:isIndicatedAtTime": _time(at),
        "dpv:hasDuration": duration,
        "dpv:isIndicatedBy": by,
        "chimata:action": act if act in ACTIONS else "END",
        "chimata:termsHash": terms,
    }


def _indicator(kind: str, subject: str, *, is_person: bool) -> Any:
    """Who did an act; to a recipient whoever acts for the person is the person."""
    if kind in ("operator", "platform", "recipient"):
        return CONTROLLER
    stands = {"guardian": "dpv:GuardianOfDataSubject", "delegate": "dpv:LegalAgent"}.get(kind)
    if stands is None or not is_person:
        return subject
    return {"@type": stands, "dpv:isRepresentativeFor": subject}


def _controller(controller: Controller) -> dict[str, Any]:
    told = {
        "dpv:hasName": controller.name,
        "dpv:hasAddress": controller.address,
        "dpv:hasContact": controller.contact,
    }
    return {
        "@id": CONTROLLER,
        "@type": "dpv:DataController",
        "dpv:hasIdentifier": CONTROLLER,
        **{name: value for name, value in told.items() if value},
    }


def _recipient(form: Row) -> dict[str, Any]:
    """The recipient as it is registered, with what it has to say of itself."""
    party, profile = _party(form), form["profile"]
    told = {
        "@id": party,
        "@type": ["dpv:ThirdParty"],
        "dpv:hasIdentifier": [party],
        "dpv:hasName": [
            {"@value": form["title_ja"], "@language": "ja"},
            {"@value": form["title_en"], "@language": "en"},
        ],
        "dpv:hasLocation": f"loc:{form['country']}",
    }
    if profile is None:
        return told
    number = profile["identifier"]
    return {
        **told,
        "@type": ["dpv:ThirdParty", profile["kind"]],
        "dpv:hasIdentifier": [party, f"{number['scheme']}:{number['value']}"],
        "dpv:hasContact": profile["contact"],
    }


def _party(form: Row) -> str:
    return f"urn:chimata:party:{form['recipient']}"


def _titles(tree: Tree, code: str) -> list[dict[str, str]]:
    term = tree.terms[code]
    return [{"@value": term.ja, "@language": "ja"}, {"@value": term.en, "@language": "en"}]


def _period(begin: datetime | None, end: datetime | None) -> dict[str, Any]:
    """A half-open span of time."""
    bounds = {"dcat:startDate": begin, "dcat:endDate": end}
    told = {name: _time(moment) for name, moment in bounds.items() if moment is not None}
    return {"@type": "dct:PeriodOfTime", **told}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
