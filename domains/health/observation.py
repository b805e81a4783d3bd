"""A FHIR Observation as observations of ours, and as it leaves again; pure.

It is kept whole as a document, and its vital signs as numbers beside it. Whose it is follows from
the Thing that its subject names, by a binding: nothing that it says of itself decides that.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from core.clock import MICROSECONDS
from core.errors import CityError
from core.formats.checks import THING_CHARACTERS_MAX
from core.units import conversion
from domains.health import times
from domains.health.fhir import Resource, fault, has_modifiers
from domains.health.sector import SECTOR
from domains.health.times import Span
from domains.health.wire import DOCUMENTS, LOINC, PANELS, RECORD

LOINC_SYSTEM, UCUM_SYSTEM = "http://loinc.org", "http://unitsofmeasure.org"
NAME_SYSTEM = "urn:chimata:name"
"""Of an identifier that is a name made for one recipient."""
WITHDRAWN = frozenset({"entered-in-error", "cancelled"})
DAY = 24 * 3600 * MICROSECONDS
SUBJECTS = frozenset({"Patient", "Device"})
PEOPLE = frozenset({"Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person"})
_RESTFUL = re.compile(r"(https?://[^?#\s]+)/([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(/_history/.*)?")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(/_history/.*)?")
_PLAIN = re.compile(r"[0-9A-Za-z.-]{1,40}")
_NAMELESS = ("text", "identifier", "valueIdentifier", "valueHumanName", "valueContactPoint",
             "valueAddress", "authorString", "authorReference", "fhir_comments")  # fmt: skip
"""Elements that tell who somebody is: they do not leave."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a resource stood: the base of its own address, and what came with it by fullUrl."""

    gateway: str
    base: str = ""
    beside: Mapping[str, Resource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom or what a reference means: its type where that is known, and its name in full."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """One value of a vital sign."""

    property: str
    time: int
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What an Observation becomes."""

    thing: str
    numbers: list[Number]
    property: str
    time: int
    document: Resource
    withdrawn: bool


def base_of(full_url: str) -> str:
    """The base of a RESTful address; empty for any other."""
    match = _RESTFUL.fullmatch(full_url)
    return match[1] if match else ""


def observed(resource: Resource, sent: Sent, reported: Span | None = None) -> Observed:
    """What a valid Observation becomes; `reported`: when the report was made that lists it."""
    if has_modifiers(resource):
        raise fault("extension", "a modifierExtension that is not known", "Observation")
    dated = times.effective(resource)
    span = dated or _issued(resource) or reported
    if span is None:
        text = "is missing, and no issued: whose it is depends on its time"
        raise fault("required", text, "Observation.effective")
    category = category_of(resource)
    document: Resource = {"base": sent.base or sent.gateway, "until": span.until,
                          "resource": resource}  # fmt: skip
    if dated is not None:
        document["from"] = dated.start
    # Two of one day, or of one second, are two: each stands somewhere inside of what it says.
    apart = _apart(resource, sent)
    return Observed(
        _thing(resource, sent),
        list(_numbers(resource, span.start + (apart if span.precision >= DAY else 0))),
        f"{DOCUMENTS[category]}/{_instance(resource)}",
        span.start + apart % min(span.precision, MICROSECONDS),
        document,
        resource["status"] in WITHDRAWN,
    )


def _issued(resource: Resource) -> Span | None:
    text = resource.get("issued")
    return None if text is None else times.span(text, "Observation.issued")


def _apart(resource: Resource, sent: Sent) -> int:
    """A number below a million that stays the same for the same Observation, sent again."""
    own = resource.get("id") or next(iter(resource.get("identifier", ())), None)
    if own is None:
        return 0
    told = repr((sent.base or sent.gateway, own)).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest()) % MICROSECONDS


# --- what it is about -----------------------------------------------------------------------------


def category_of_code(system: str, code: str) -> str | None:
    """What a code tells of a person, if it is one of those that we know."""
    if system == LOINC_SYSTEM and code in LOINC:
        return SECTOR.by_name[LOINC[code]].category
    return PANELS.get(code) if system == LOINC_SYSTEM else None


def category_of(resource: Mapping[str, Any]) -> str:
    """The one category of all that it tells; RECORD where it tells of several, or of others."""
    found = set()
    for part in (resource, *resource.get("component", ())):
        known = {
            category_of_code(coding.get("system", ""), coding.get("code", ""))
            for coding in part.get("code", {}).get("coding", ())
        } - {None}
        found |= known or {RECORD}
    return str(found.pop()) if len(found) == 1 else RECORD


def _instance(resource: Resource) -> str:
    """Its code, where it is short and plain: each code of a Thing is a series of its own."""
    told = resource["code"]
    coded = [(c.get("system", ""), c.get("code", "")) for c in told.get("coding", ())]
    for system, code in coded:
        if system == LOINC_SYSTEM and _PLAIN.fullmatch(code):
            return str(code)
    return hashlib.blake2b(repr(coded or told.get("text")).encode(), digest_size=8).hexdigest()


def _numbers(resource: Resource, time: int) -> Iterator[Number]:
    for part in (resource, *resource.get("component", ())):
        names = {
            LOINC[coding["code"]]
            for coding in part.get("code", {}).get("coding", ())
            if coding.get("system") == LOINC_SYSTEM and coding.get("code") in LOINC
        }
        quantity = part.get("valueQuantity", {})
        value, unit = quantity.get("value"), quantity.get("code")
        if len(names) != 1 or value is None or "comparator" in quantity:
            continue
        declared = SECTOR.by_name[names.pop()]
        # A unit in words is not guessed at: the document has it.
        if quantity.get("system") == UCUM_SYSTEM and unit and _converts(unit, declared.unit):
            yield Number(declared.name, time, float(value), unit)


def _converts(unit: str, declared: str) -> bool:
    try:
        conversion(unit, declared)
    except CityError:
        return False
    return True


# --- whose it is ----------------------------------------------------------------------------------


def _thing(resource: Resource, sent: Sent) -> str:
    for name in ("subject", "device"):
        identity = identity_of(resource.get(name) or {}, resource, sent)
        if identity is None:
            continue
        if name == "subject" and identity.kind not in SUBJECTS | {""}:
            raise fault("not-supported", "only of a Patient or a Device", "Observation.subject")
        return thing_of(identity, sent)
    raise fault("required", "names nobody: no subject, and no device", "Observation.subject")


def thing_of(identity: Identity, sent: Sent) -> str:
    """The Thing that an identity names: a Device by its id, a Patient as its sender knows it.

    Two senders may have a Patient of one id, so that the sender's name is part of it.
    """
    own = f"{sent.gateway}/"
    if identity.name.startswith(own):
        parts = identity.name.removeprefix(own).split("/")
        return parts[-1] if identity.kind == "Device" else ":".join((sent.gateway, *parts))
    name = quote(identity.name, safe=":|")
    if len(name) <= THING_CHARACTERS_MAX:
        return name
    return "sha256:" + hashlib.sha256(identity.name.encode()).hexdigest()


def identity_of(
    reference: Mapping[str, Any], resource: Mapping[str, Any], sent: Sent
) -> Identity | None:
    """Whom a Reference means, by the rules of Bundles (FHIR R4, 3.1.16); None: it does not say.

    Versions of somebody are the same one. What has no address is known by its identifier.
    """
    literal, kind = str(reference.get("reference", "")), str(reference.get("type", ""))
    target: Mapping[str, Any] = {}
    if literal.startswith("#"):
        inside = resource.get("contained", ())
        target = next((each for each in inside if each.get("id") == literal[1:]), {})
    elif match := _RESTFUL.fullmatch(literal):
        return Identity(match[2], f"{match[1]}/{match[2]}/{match[3]}")
    elif match := _RELATIVE.fullmatch(literal):
        return Identity(match[1], f"{sent.base or sent.gateway}/{match[1]}/{match[2]}")
    elif literal.startswith("urn:"):
        target = sent.beside.get(literal, {})
    kind = str(target.get("resourceType", kind))
    for identifier in (*target.get("identifier", ()), reference.get("identifier") or {}):
        if identifier.get("system") and identifier.get("value"):
            return Identity(kind, f"{identifier['system']}|{identifier['value']}")
    return Identity(kind, literal) if literal.startswith("urn:") else None


# --- as it leaves ---------------------------------------------------------------------------------


def disclosed(document: Resource, persons: Sequence[str], name: Callable[[str], str]) -> Resource:
    """The resource of a document for one recipient, in names that were made for it alone.

    Its own id, references and identifiers of the sender would let two recipients join what they
    got, and displays and narratives may tell who somebody is.
    """
    resource, base = document["resource"], document["base"]
    sent = Sent(base, base)
    own = f"{base}/Observation/{resource['id']}" if "id" in resource else repr(document)
    kept = [each for each in resource.get("contained", ()) if each["resourceType"] not in PEOPLE]
    shown = _nameless({**resource, "contained": kept}, resource, sent, name)
    shown.pop("subject", None)
    shown["id"] = name(own)
    shown["subject"] = {"reference": f"Patient/{persons[0]}"}
    if len(persons) > 1:
        members = [{"entity": {"reference": f"Patient/{each}"}} for each in persons]
        group = {"resourceType": "Group", "id": "persons", "type": "person", "actual": True,
                 "member": members}  # fmt: skip
        shown["contained"] = [*kept, group]
        shown["subject"] = {"reference": "#persons"}
    return dict(sorted(shown.items(), key=lambda each: each[0] != "resourceType"))


def _nameless(value: Any, resource: Resource, sent: Sent, name: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_nameless(each, resource, sent, name) for each in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("reference"), str):
        return _renamed(value, resource, sent, name)
    shown = {}
    for key, each in value.items():
        # `text` is a narrative only where it is an object; elsewhere it is what was observed.
        if key in _NAMELESS and not (key == "text" and isinstance(each, str)):
            continue
        if key in ("subject", "performer", "encounter", "specimen", "device", "focus"):
            each = _referred(each)  # noqa: PLW2901
        if key == "meta":
            each = {k: v for k, v in each.items() if k in ("profile", "security", "tag")}  # noqa: PLW2901
        shown[key] = _nameless(each, resource, sent, name)
    return {key: each for key, each in shown.items() if each not in ({}, [])}


def _referred(value: Any) -> Any:
    """References without their displays: of people those are names."""
    if isinstance(value, list):
        return [_referred(each) for each in value]
    return {k: v for k, v in value.items() if k != "display"} if isinstance(value, dict) else value


def _renamed(
    reference: Mapping[str, Any], resource: Resource, sent: Sent, name: Callable[[str], str]
) -> Resource:
    identity = identity_of(reference, resource, sent)
    literal = reference["reference"]
    if literal.startswith("#"):
        inside = {each.get("id"): each for each in resource.get("contained", ())}
        if inside.get(literal[1:], {}).get("resourceType") not in PEOPLE | {None}:
            return {"reference": literal}
    kind = identity.kind if identity else str(reference.get("type", ""))
    told = name(identity.name if identity else literal)
    if kind:
        return {"reference": f"{kind}/{told}"}
    return {"identifier": {"system": NAME_SYSTEM, "value": told}}
