"""FHIR Consents as grants, and grants as Consents.

Only `provision.type = permit` grants anything, and only where each element is one that we know: any
other may be a condition. What is no permit is kept as it was sent, and has no effect.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid5

from consent import areas, grants, kept
from consent.grants import Terms
from consent.levels import LEVELS, NUMBERS
from consent.log import Session, Written, unchanged
from consent.subject_keys import SubjectKeys
from consent.vocabulary import CATEGORIES, PREFIXES, PURPOSES, Operation, Tree
from core.clock import to_datetime
from core.errors import CityError, brief
from core.tokens import Principal
from domains.health import fhir, times
from domains.health.fhir import Issue, Resource, fault
from domains.health.observation import LOINC_SYSTEM, category_of_code

GRANT, RECIPIENT, PERSON = "urn:chimata:grant", "urn:chimata:recipient", "urn:chimata:person"
POLICY = "urn:chimata:policy:default-deny"
RESOLUTION, COUNTRY, AREA, NOTICE = (
    f"urn:chimata:fhir:{name}" for name in ("resolution", "country", "area", "notice")
)
SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ROLE = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
TYPES = "http://hl7.org/fhir/resource-types"
GRANTS_MAX = 32
"""That one Consent may make."""
NAMESPACE = UUID("5c0b8a52-4a0e-5d3a-9a56-6d1c0f7e6a11")
TOP = frozenset({
    "resourceType", "id", "meta", "language", "text", "identifier", "status", "scope", "category",
    "patient", "dateTime", "performer", "policy", "policyRule", "provision", "extension",
    "sourceAttachment", "sourceReference",
})  # fmt: skip
PROVISION = frozenset({
    "type", "period", "actor", "action", "purpose", "class", "code", "dataPeriod",
    "modifierExtension",
})  # fmt: skip
ACTIONS = {"access": "read", "use": "derive", "disclose": "reshare"}
REASONS = {
    "TREAT": "health:ServiceProvision",
    "ETREAT": "health:EmergencyCareManagement",
    "HRESCH": "dpv:ScientificResearch",
    "PUBHLTH": "health:PublicHealthSurveillance",
    "HPAYMT": "dpv:PaymentManagement",
    "HMARKT": "dpv:Marketing",
}
"""Purposes of use (HL7 v3) that have one of ours; none is mapped to a wider one."""
ENDED = frozenset({"inactive", "entered-in-error"})
SYSTEMS = {iri: prefix for prefix, iri in PREFIXES.items()}


@dataclass(frozen=True, slots=True)
class Meant:
    """What a Consent says to do: grant these, or revoke them; none: it is kept."""

    grants: tuple[tuple[UUID, Terms], ...] = ()
    ends: bool = False


# --- in -------------------------------------------------------------------------------------------


def take_all(
    connection: Session, who: Principal, keys: SubjectKeys, resources: Sequence[Resource]
) -> Written:
    """Do what valid Consents of the person say; CityError and FhirError where that cannot be."""
    done = [unchanged(connection)]
    for resource in resources:
        meant = meaning_of(resource, str(who.subject))
        if not meant.grants:
            kept.keep(connection, who, keys, fhir.write(resource))
        for name, terms in meant.grants:
            if meant.ends:
                done.append(grants.revoke(connection, who, name))
            else:
                done.append(grants.put_grant(connection, who, name, terms))
    less = {recipient for each in done for recipient in each.less}
    return Written(done[-1].sigma, done[-1].at, tuple(sorted(less)))


def issues_of(resource: Resource, person: str) -> list[Issue]:
    """What to tell of a Consent that was taken."""
    meant = meaning_of(resource, person)
    if not meant.grants:
        text = "kept, grants nothing: only provision.type permit of an active Consent does"
        return [Issue("business-rule", text, "Consent", "warning")]
    said = "revoked" if meant.ends else "granted"
    names = [str(name) for name, _ in meant.grants]
    return [Issue("informational", f"{said}: {name}", "", "information") for name in names]


def meaning_of(resource: Resource, person: str) -> Meant:
    """What it says; FhirError for a permit that is not understood wholly, or of someone else."""
    _check_person(resource, person)
    provision = resource.get("provision") or {}
    status = resource["status"]
    if provision.get("type") != "permit" or status not in ENDED | {"active"}:
        return Meant()
    for element, known, where in (
        (resource, TOP, "Consent"), (provision, PROVISION, "Consent.provision"),
    ):  # fmt: skip
        for name in element:
            if name not in known:
                raise fault("not-supported", "is not known, and may be a condition",
                            f"{where}.{name}"[:100])  # fmt: skip
    if "patient-privacy" not in {code for _, code in _coded([resource["scope"]])}:
        raise fault("not-supported", "only patient-privacy", "Consent.scope")
    terms = list(_terms(resource, provision))
    return Meant(tuple(_named(resource, person, terms)), status in ENDED)


def _check_person(resource: Resource, person: str) -> None:
    """It is the person's own: of no other, and given by no other."""
    said = [resource.get("patient") or {}, *resource.get("performer", ())]
    for number, each in enumerate(said):
        identifier = each.get("identifier") or {}
        own = each.get("reference") == f"Patient/{person}" or (
            identifier.get("system") == PERSON and identifier.get("value") == person
        )
        if not own:
            where = "Consent.performer" if number else "Consent.patient"
            raise fault("business-rule", "must be the person whose token it is", where)


def _terms(resource: Resource, provision: Resource) -> Iterator[Terms]:
    valid_from, valid_to = _window(provision.get("period") or {}, "Consent.provision.period")
    if valid_to is None:
        raise fault("required", "until when may it be read?", "Consent.provision.period.end")
    event_from: datetime | None = None
    event_to: datetime | None = valid_to
    if "dataPeriod" in provision:
        event_from, event_to = _window(provision["dataPeriod"], "Consent.provision.dataPeriod")
    resolution, countries, area = _conditions(provision)
    notice = _notice(resource)
    several = (
        _recipients(provision), _purposes(provision), _categories(provision), _operations(provision)
    )  # fmt: skip
    for name, found in zip(("actor", "purpose", "code"), several, strict=False):
        if not found:
            raise fault("required", "none is not all", f"Consent.provision.{name}")
    combined = sorted(product(*map(sorted, several)))
    if len(combined) > GRANTS_MAX:
        raise fault("too-costly", f"says more than {GRANTS_MAX} grants", "Consent.provision")
    for recipient, purpose, category, operation in combined:
        yield Terms(
            recipient, purpose, category, Operation(operation), valid_to, notice,
            valid_from, event_from, event_to, resolution, countries, area,
        )  # fmt: skip


def _named(resource: Resource, person: str, terms: list[Terms]) -> Iterator[tuple[UUID, Terms]]:
    """Each grant with its id: sent again, the same Consent is the same grants."""
    identifiers = resource.get("identifier", ())
    own = [each.get("value") for each in identifiers if each.get("system") == GRANT]
    if own:
        if len(own) > 1 or len(terms) > 1:
            raise fault("not-supported", "an id of ours is of one grant", "Consent.identifier")
        try:
            yield UUID(own[0]), terms[0]
        except (ValueError, AttributeError, TypeError) as error:
            raise fault("value", "must be a UUID", "Consent.identifier.value") from error
        return
    told = [f"{each.get('system')}|{each.get('value')}" for each in identifiers[:1]]
    key = told[0] if told else _digest(resource)
    for each in terms:
        parts = (person, key, each.recipient, each.purpose, each.category, each.operation.value)
        yield uuid5(NAMESPACE, "\n".join(parts)), each


def _digest(resource: Resource) -> str:
    """Of what it says of the grants themselves, whatever became of it since."""
    said = {key: each for key, each in resource.items() if key in ("patient", "provision")}
    return hashlib.sha256(fhir.write(said)).hexdigest()


def _window(said: Mapping[str, Any], where: str) -> tuple[datetime | None, datetime | None]:
    """[from, to) of a Period, to whose end its last moment belongs."""
    start = times.span(said["start"], f"{where}.start").start if "start" in said else None
    until = times.span(said["end"], f"{where}.end").until if "end" in said else None
    try:
        return (
            None if start is None else to_datetime(start),
            None if until is None else to_datetime(until),
        )
    except OverflowError as error:
        raise fault("value", "is after the year 9999", where) from error


def _coded(concepts: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for concept in concepts:
        for coding in concept.get("coding", ()):
            yield coding.get("system", ""), coding.get("code", "")


def _term(tree: Tree, system: str, code: str) -> str | None:
    curie = f"{SYSTEMS[system]}:{code}" if system in SYSTEMS else ""
    return curie if curie in tree else None


def _purposes(provision: Resource) -> set[str]:
    found = set()
    for coding in provision.get("purpose", ()):
        system, code = coding.get("system", ""), coding.get("code", "")
        term = REASONS.get(code) if system == REASON else _term(PURPOSES, system, code)
        if term is None:
            raise fault("code-invalid", "is no purpose of ours", "Consent.provision.purpose")
        found.add(term)
    return found


def _categories(provision: Resource) -> set[str]:
    for coding in provision.get("class", ()):
        if (coding.get("system"), coding.get("code")) != (TYPES, "Observation"):
            raise fault("not-supported", "only Observation", "Consent.provision.class")
    found = set()
    for concept in provision.get("code", ()):
        known = [
            _term(CATEGORIES, system, code) or category_of_code(system, code)
            for system, code in _coded([concept])
        ]
        terms = {term for term in known if term}
        if len(terms) != 1:
            raise fault("code-invalid", "is no category of ours", "Consent.provision.code")
        found |= terms
    return found


def _operations(provision: Resource) -> set[str]:
    """Reading where it does not say: the least."""
    found = set()
    for system, code in _coded(provision.get("action", ())):
        said = ACTIONS.get(code) if system == ACTION else None
        if system == PREFIXES["chimata"] and code == Operation.ANONYMISE.value:
            said = code
        if said is None:
            raise fault("not-supported", "access, use or disclose", "Consent.provision.action")
        found.add(said)
    if not found and provision.get("action"):
        raise fault("not-supported", "only of codes", "Consent.provision.action")
    return found or {Operation.READ.value}


def _recipients(provision: Resource) -> set[str]:
    found = set()
    for actor in provision.get("actor", ()):
        roles = set(_coded([actor["role"]]))
        if not roles & {(ROLE, "IRCP"), (ROLE, "PRCP")}:
            raise fault("not-supported", "only IRCP, who receives", "Consent.provision.actor.role")
        reference = actor["reference"]
        identifier = reference.get("identifier") or {}
        key = str(reference.get("reference", "")).removeprefix("Organization/")
        if identifier.get("system") == RECIPIENT:
            key = str(identifier.get("value", ""))
        if not key or "/" in key:
            text = "must name a recipient: Organization/KEY"
            raise fault("value", text, "Consent.provision.actor.reference")
        found.add(key)
    return found


def _conditions(provision: Resource) -> tuple[str, tuple[str, ...], str | None]:
    """How exactly, in which countries, of where; an extension that we do not know is refused."""
    resolution, countries, area = "exact", [], None
    for each in provision.get("modifierExtension", ()):
        code = each.get("valueCode", "")
        if each.get("url") == RESOLUTION and code in NUMBERS:
            resolution = code
        elif each.get("url") == COUNTRY and len(code) == 2 and code.isupper() and code.isascii():  # noqa: PLR2004
            countries.append(code)
        elif each.get("url") == AREA and area is None:
            area = _area(str(each.get("valueString", "")))
        else:
            text = "a modifierExtension that is not known"
            raise fault("extension", text, "Consent.provision.modifierExtension")
    return resolution, tuple(sorted(set(countries))) or ("JP",), area


def _area(text: str) -> str:
    """GeoJSON in a text, as a grant has it."""
    try:
        return areas.canonical(json.loads(text))
    except (ValueError, RecursionError, CityError) as error:
        where = "Consent.provision.modifierExtension"
        raise fault("value", f"no area: {brief(error)}", where) from error


def _notice(resource: Resource) -> str:
    said = [e.get("valueString") for e in resource.get("extension", ()) if e.get("url") == NOTICE]
    digits = str(said[0]) if len(said) == 1 else ""
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):  # noqa: PLR2004
        raise fault("required", f"the SHA-256 of the notice that was read, as {NOTICE}",
                    "Consent.extension")  # fmt: skip
    if any(each.get("url") != NOTICE for each in resource["extension"]):
        raise fault("extension", "is not known, and may be a condition", "Consent.extension")
    return digits


# --- out ------------------------------------------------------------------------------------------


def resource_of(row: Mapping[str, Any], person: str) -> Resource:
    """A grant as it is now, for the person whose it is: no display, no narrative, no version."""
    now = datetime.now(UTC)
    ended = row["ended"] is not None or row["valid_to"] <= now
    operation = Operation(row["operation"])
    action = {"system": PREFIXES["chimata"], "code": operation.value}
    for code, said in ACTIONS.items():
        if said == operation:
            action = {"system": ACTION, "code": code}
    conditions = [{"url": RESOLUTION, "valueCode": LEVELS[row["level"]].name}]
    conditions += [{"url": COUNTRY, "valueCode": each} for each in sorted(row["countries"])]
    if row["area"] is not None:
        conditions.append({"url": AREA, "valueString": row["area"]})
    scope = {"system": SCOPE, "code": "patient-privacy"}
    return {
        "resourceType": "Consent",
        "id": str(row["grant_id"]),
        "extension": [{"url": NOTICE, "valueString": row["notice"]}],
        "identifier": [{"system": GRANT, "value": str(row["grant_id"])}],
        "status": "inactive" if ended else "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [{"system": LOINC_SYSTEM, "code": "59284-0"}]}],
        "patient": {"identifier": {"system": PERSON, "value": person}},
        "policy": [{"uri": POLICY}],
        "provision": {
            "modifierExtension": conditions,
            "type": "permit",
            "period": _period(row["valid_from"], row["valid_to"]),
            "actor": [
                {
                    "role": {"coding": [{"system": ROLE, "code": "IRCP"}]},
                    "reference": {"identifier": {"system": RECIPIENT, "value": row["recipient"]}},
                }
            ],
            "action": [{"coding": [action]}],
            "purpose": [_coding(row["purpose"])],
            "code": [{"coding": [_coding(row["category"])]}],
            "dataPeriod": _period(row["event_from"], row["event_to"]),
        },
    }


def _coding(curie: str) -> dict[str, str]:
    prefix, _, code = curie.partition(":")
    return {"system": PREFIXES[prefix], "code": code}


def _period(lower: datetime | None, upper: datetime | None) -> dict[str, str]:
    """[lower, upper) as FHIR has it: the end is the last moment that belongs to it."""
    last = None if upper is None else upper - timedelta(microseconds=1)
    ends = {"start": lower, "end": last}
    return {
        name: moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        for name, moment in ends.items()
        if moment is not None
    }
