"""FHIR Observations and Bundles of them to observations; pure, and never an exception."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.clock import MICROSECONDS
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, Quality
from domains.health import fhir, times
from domains.health.fhir import FhirError, Resource, fault
from domains.health.observation import Observed, Sent, base_of, identity_of, observed
from domains.health.times import Span

AHEAD_SECONDS_MAX = 300
"""Nobody observes what is to come; less than what any clock of ours lets through."""
LOOKED_UP = frozenset({"Patient", "Device", "DiagnosticReport"})
"""Entries that say more of the Observations beside them; they are not kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a Bundle, or a resource by itself (then without an address and a request)."""

    number: int
    resource: Any
    sent: Sent
    full_url: str = ""
    request: Resource | None = None
    asked: bool = False
    """Whether its Bundle is one of requests."""
    reported: Span | None = None

    def own(self) -> bytes:
        """What can be sent again by itself."""
        if not self.full_url:
            return fhir.write(self.resource)
        entry = {"fullUrl": self.full_url, "resource": self.resource}
        return fhir.write({"resourceType": "Bundle", "type": "collection", "entry": [entry]})


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode `fhir`: an Observation, or a Bundle whose entries are a message each.

    A transaction is taken whole or not at all. A rejection's reason is the code of its issue.
    """
    builder = ObservationsBuilder()
    builder.messages = 1
    if format != "fhir":
        builder.reject("unsupported-format", f"format: health takes no {format!r}", payload)
        return builder.build()
    try:
        resource = fhir.read(payload)
        entries = entries_of(resource, context.gateway)
        if resource.get("type") == "transaction":
            taken = [take(entry, context) for entry in entries]
    except FhirError as error:
        builder.reject(error.issues[0].code, str(error), payload)
        return builder.build()
    builder.messages = max(len(entries), 1)
    if resource.get("type") != "transaction":
        taken = [_taken(builder, entry, context) for entry in entries]
    builder.unchanged = builder.messages - len([each for each in taken if each is not None])
    builder.unchanged -= builder.sizes()[4]
    return _built(builder, [each for each in taken if each is not None])


def _taken(builder: ObservationsBuilder, entry: Entry, context: Context) -> Observed | None:
    try:
        return take(entry, context)
    except FhirError as error:
        # What it meant may be lost without the others beside it.
        form = None if entry.sent.beside else ""
        builder.reject(error.issues[0].code, str(error), entry.own(), entry.number, form)
        return None


def take(entry: Entry, context: Context) -> Observed | None:
    """What an entry becomes; None: it says more of others; FhirError says where it is wrong."""
    if not isinstance(entry.resource, dict):
        raise fault("required", "is missing", f"Bundle.entry[{entry.number}].resource")
    if entry.asked:
        _check_request(entry.request or {}, f"Bundle.entry[{entry.number}].request")
    kind = str(entry.resource.get("resourceType"))
    if kind == "Consent":
        raise fault("business-rule", "a consent is sent with the person's own token", "Consent")
    if kind != "Observation" and not (entry.full_url and kind in LOOKED_UP):
        raise fault("not-supported", "only Observations are taken here", "resourceType")
    fhir.check(entry.resource)
    if kind != "Observation":
        return None
    found = observed(entry.resource, entry.sent, entry.reported)
    if found.time > context.received_at + AHEAD_SECONDS_MAX * MICROSECONDS:
        raise fault("value", "is in the future", "Observation.effective")
    if found.time < 0:
        raise fault("value", "is before 1970", "Observation.effective")
    return found


def _check_request(request: Resource, where: str) -> None:
    if request.get("method") not in fhir.METHODS:
        raise fault("not-supported", "POST and PUT alone; reads have their own address", where)
    conditions = {name for name in request if name.startswith("if")}
    same = str(request.get("ifNoneExist", "identifier=")).startswith("identifier=")
    if conditions - {"ifNoneExist"} or not same:
        raise fault("not-supported", "no condition but ifNoneExist by identifier", where)


def entries_of(resource: Resource, gateway: str) -> list[Entry]:
    """Each entry with its base and what lies beside it; FhirError for what ails the Bundle."""
    if resource.get("resourceType") != "Bundle":
        return [Entry(0, resource, Sent(gateway))]
    fhir.check_bundle(resource)
    if resource["type"] not in fhir.BUNDLES:
        text = f"one of {', '.join(sorted(fhir.BUNDLES))}"
        raise fault("not-supported", text, "Bundle.type")
    parts = resource.get("entry", [])
    beside = {
        part["fullUrl"]: part["resource"]
        for part in parts
        if part.get("fullUrl") and _is_looked_up(part.get("resource"))
    }
    reported = dict(_reports(beside, gateway))
    asked = resource["type"] in ("transaction", "batch")
    found = []
    for number, part in enumerate(parts):
        url = part.get("fullUrl", "")
        sent = Sent(gateway, base_of(url), beside)
        own = _names(url, part.get("resource"), sent)
        when = next((reported[name] for name in own if name in reported), None)
        found.append(
            Entry(number, part.get("resource"), sent, url, part.get("request"), asked, when)
        )
    return found


def _is_looked_up(resource: Any) -> bool:
    if not isinstance(resource, dict) or str(resource.get("resourceType")) not in LOOKED_UP:
        return False
    try:
        fhir.check(resource)
    except FhirError:
        return False
    return True


def _names(url: str, resource: Any, sent: Sent) -> tuple[str, ...]:
    """By which names a report may list it."""
    number = resource.get("id") if isinstance(resource, dict) else None
    return url, f"{sent.base or sent.gateway}/Observation/{number}"


def _reports(beside: dict[str, Resource], gateway: str) -> Iterator[tuple[str, Span]]:
    """When the Observations of a DiagnosticReport were reported, by their names."""
    for url, report in beside.items():
        if report["resourceType"] != "DiagnosticReport":
            continue
        try:
            when = times.effective(report)
            if when is None and "issued" in report:
                when = times.span(report["issued"], "DiagnosticReport.issued")
        except FhirError:
            continue
        for reference in report.get("result", ()):
            identity = identity_of(reference, report, Sent(gateway, base_of(url)))
            if when is not None and identity is not None:
                yield identity.name, when


def _built(builder: ObservationsBuilder, taken: list[Observed]) -> Decoded:
    marks = []
    for each in taken:
        builder.hear(each.thing, each.time)
        builder.add(each.thing, each.property, each.time, each.document)
        for number in each.numbers:
            builder.add(each.thing, number.property, number.time, number.value, number.unit)
            marks.append(Quality.SUSPECT if each.withdrawn else Quality.GOOD)
    decoded = builder.build()
    if decoded.numbers is None or not any(marks):
        return decoded
    return replace(decoded, numbers=replace(decoded.numbers, quality=np.array(marks, np.int16)))
