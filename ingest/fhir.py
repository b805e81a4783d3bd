"""FHIR over HTTP: `POST /v1/health/fhir` takes the health sector's `fhir`, and answers in FHIR.

A gateway sends Observations, through the same pipeline as every message. A person sends Consents,
each of which is an act of that person.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response

from consent import door
from consent.gate import Gate
from consent.subject_keys import SubjectKeys
from core.errors import CityError
from core.sensorthings import Rejected
from core.storage.message import Outcome
from core.tokens import Principal
from domains.health import consents, fhir
from domains.health.fhir import FhirError, Issue, Resource, fault
from ingest.raw import Raw

Take = Callable[[Request, str, str, str | None], Awaitable[tuple[Raw, Outcome]]]
WhoEver = Callable[[Request, str], Awaitable[Principal]]

CREATED, OK, BAD = HTTPStatus.CREATED, HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY
BODY = {"schema": {"type": "object", "required": ["resourceType"]}}
UNREADABLE = frozenset({"structure"})
"""Issues of what cannot be read at all: 400, not 422."""


def router(take: Take, whoever: WhoEver) -> APIRouter:
    """The route; `take` hands a message to the pipeline and waits for what becomes of it."""
    routes = APIRouter(tags=["health"])

    @routes.post(
        "/v1/health/fhir",
        summary="Send a FHIR R4 Observation, Consent or Bundle",
        response_class=Response,
        responses={200: {"description": "an OperationOutcome, or a Bundle of responses",
                         "content": {fhir.MEDIA_TYPE: BODY}}},
        openapi_extra={
            "requestBody": {"content": {fhir.MEDIA_TYPE: BODY}, "required": True},
            "security": [{"HTTPBearer": []}],
        },
    )  # fmt: skip
    async def post(
        request: Request,
        chimata_batch: Annotated[
            str | None, Header(description="boot/seq: makes a repeat a no-op", examples=["a1/0"])
        ] = None,
    ) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("", fhir.MEDIA_TYPE, "application/json"):
            issue = Issue("not-supported", f"send {fhir.MEDIA_TYPE}", "Content-Type")
            return _answer(fhir.outcome([issue]), HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        principal = await whoever(request, "FHIR needs a bearer token: of a gateway or a person")
        if "write:own" in principal.scopes:
            person = Person(door.gate_of(request), principal, door.subject_keys_of(request))
            return await to_thread.run_sync(_consented, person, await request.body())
        raw, outcome = await take(request, "health", "fhir", chimata_batch)
        return _answer(*_told(raw.payload, outcome))

    return routes


def _answer(resource: Resource, status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(fhir.write(resource), status, headers, f"{fhir.MEDIA_TYPE}; charset=utf-8")


# --- Observations ---------------------------------------------------------------------------------


def _told(payload: bytes, outcome: Outcome) -> tuple[Resource, int]:
    """What became of a message, in the words of FHIR."""
    if outcome.reason == "batch-conflict":
        issue = Issue("conflict", str(outcome.detail))
        return fhir.outcome([issue]), HTTPStatus.CONFLICT
    try:
        resource = fhir.read(payload)
    except FhirError as error:
        return fhir.outcome(error.issues), HTTPStatus.BAD_REQUEST
    faults = {each.item: _issue(each) for each in outcome.rejected}
    done = CREATED if outcome.counts.stored else OK
    kind = str(resource.get("type")) if resource.get("resourceType") == "Bundle" else ""
    entries = resource.get("entry")
    count = len(entries) if isinstance(entries, list) else 0
    whole = outcome.counts.messages == 1 and (kind not in ("batch", "collection") or count != 1)
    if faults and whole:
        return fhir.outcome(list(faults.values())), _status(faults.values())
    if kind in ("batch", "transaction"):
        return _responses(kind, [_response(faults.get(n), done) for n in range(count)]), OK
    issues = [
        Issue(each.code, each.text, f"Bundle.entry[{number}]") for number, each in faults.items()
    ]
    kept = outcome.counts.stored or outcome.counts.duplicate or not faults
    return fhir.outcome(issues), done if kept else _status(issues)


def _issue(rejected: Rejected) -> Issue:
    """A rejection by the decoder is an issue already; one by the check after it becomes one."""
    where, _, text = rejected.detail.partition(": ")
    if rejected.reason not in fhir.CODES:
        return Issue("processing", rejected.detail)
    return Issue(rejected.reason, text or where, where if text else "")


def _status(issues: Iterable[Issue]) -> int:
    codes = {each.code for each in issues}
    return HTTPStatus.BAD_REQUEST if codes and codes <= UNREADABLE else BAD


def _response(issue: Issue | None, done: HTTPStatus) -> Resource:
    if issue is None:
        return {"response": {"status": f"{done.value} {done.phrase}"}}
    status = HTTPStatus(_status([issue]))
    said = f"{status.value} {status.phrase}"
    return {"response": {"status": said, "outcome": fhir.outcome([issue])}}


def _responses(kind: str, entries: Sequence[Resource]) -> Resource:
    bundle: Resource = {"resourceType": "Bundle", "type": f"{kind}-response"}
    return {**bundle, "entry": list(entries)} if entries else bundle


@dataclass(frozen=True, slots=True)
class Person:
    """Who sends Consents, through which gate, and the keys under which they are kept."""

    gate: Gate
    principal: Principal
    keys: SubjectKeys


# --- Consents -------------------------------------------------------------------------------------


def _consented(person: Person, payload: bytes) -> Response:
    """A person's own Consents: one, or a Bundle of them."""
    try:
        return _answer(*_acted(person, fhir.read(payload)))
    except FhirError as error:
        return _answer(fhir.outcome(error.issues), _status(error.issues))


def _acted(person: Person, resource: Resource) -> tuple[Resource, int]:
    if resource.get("resourceType") != "Bundle":
        return fhir.outcome(_act(person, [resource])), CREATED
    fhir.check_bundle(resource)
    kind = resource["type"]
    if kind not in fhir.BUNDLES:
        raise fault("not-supported", "a transaction, a batch or a collection", "Bundle.type")
    resources = [entry.get("resource") for entry in resource.get("entry", [])]
    if kind == "transaction":
        _act(person, resources)
        return _responses(kind, [_told_of([])] * len(resources)), OK
    issues = [_alone(person, each) for each in resources]
    if kind == "batch":
        return _responses(kind, [_told_of(each) for each in issues]), OK
    said = [issue for each in issues for issue in each]
    failed = said and all(issue.severity == "error" for issue in said)
    return fhir.outcome(said), BAD if failed else CREATED


def _alone(person: Person, resource: Any) -> list[Issue]:
    try:
        return _act(person, [resource])
    except FhirError as error:
        return list(error.issues)
    except CityError as error:
        if error.slug == "unavailable":
            raise
        return [Issue(_CODES.get(error.slug, "business-rule"), error.detail)]


_CODES: Mapping[str, str] = {"conflict": "conflict", "not-found": "not-found"}


def _told_of(issues: Sequence[Issue]) -> Resource:
    bad = any(issue.severity == "error" for issue in issues)
    status = BAD if bad else CREATED
    said = f"{status.value} {status.phrase}"
    return {"response": {"status": said, "outcome": fhir.outcome(issues)}}


def _act(person: Person, resources: Sequence[Any]) -> list[Issue]:
    """All of these Consents in one transaction; what to say of them."""
    for each in resources:
        if not isinstance(each, dict) or each.get("resourceType") != "Consent":
            text = "only Consents are taken of a person; Observations come from a gateway"
            raise fault("not-supported", text, "resourceType")
        fhir.check(each)
    who = person.principal
    issues = [i for each in resources for i in consents.issues_of(each, str(who.subject))]
    if resources:
        person.gate.act(
            who, "write:own", lambda c: consents.take_all(c, who, person.keys, resources)
        )
    return issues
