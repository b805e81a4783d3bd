"""FHIR R4 of the health sector: Observations by live grants, one's own Consents, metadata."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

import domains
from api.personal_handover import HandedOver, leased
from api.problems import FHIR as BASE
from consent import door, grants, kept
from consent.documents import matching
from consent.gate import Lease
from consent.masks import Mask
from consent.personal import Chunk, Question, span_of
from consent.vocabulary import Operation
from domains.health import consents, fhir, search
from domains.health.fhir import FhirError
from domains.health.observation import disclosed

MEDIA_TYPE = fhir.MEDIA_TYPE
router = APIRouter(tags=["health"])


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses`: a resource, and an OperationOutcome of each of these."""
    answer = {fhir.MEDIA_TYPE: {"schema": {"type": "object", "required": ["resourceType"]}}}
    told = dict.fromkeys(statuses, "an OperationOutcome that says why not")
    return {
        status: {"description": text, "content": answer}
        for status, text in {200: "a FHIR resource", **told}.items()
    }


def answer(resource: Any, status: int = 200) -> Response:
    """A resource: never stored by a cache, without a tag that would tell of others."""
    headers = {"Cache-Control": "no-store"}
    media = f"{fhir.MEDIA_TYPE}; charset=utf-8"
    return Response(fhir.write(resource), status, headers, media)


def refused(error: FhirError, status: int = 400) -> Response:
    """Why it was not taken."""
    return answer(fhir.outcome(error.issues), status)


_PARAMETERS = [
    {"name": name, "in": "query", "required": name == "_purpose", "description": text,
     "schema": {"type": "string"}}
    for name, text in {
        "_purpose": "what for: a code of /v1/consent/vocabulary",
        "patient": "`Patient/…`, the id that an answer gave you",
        "code": "of Observation.code: `code`, `system|code`; a comma is or",
        "date": "when observed: `2026-01-01`, `ge2026-01-01T00:00:00Z`, …",
        "_count": "how many at most",
        "_cursor": "opaque: taken from the link `next`",
        "_format": "json",
    }.items()
]  # fmt: skip


@router.get(
    f"{BASE}/Observation",
    responses=documented(400, 401, 403, 422, 503),
    openapi_extra={"parameters": _PARAMETERS},
    response_class=Response,
)
def search_observations(request: Request) -> Response:
    """Observations that live grants permit, whole: scope `read:personal`, a recipient's token.

    A searchset without a total: what is not permitted does not exist. A document is shown exactly
    or not at all. Names of persons, devices and records are made for the caller alone.
    """
    base = str(request.base_url).rstrip("/") + BASE
    try:
        asked = search.parse(request.query_params.multi_items(), base)
    except FhirError as error:
        return refused(error)
    principal, gate = door.principal_of(request), door.gate_of(request)
    mask = Mask(door.secret_of(request), principal.name)
    rows_max: int = request.app.state.settings.page_rows_max
    question = Question(
        domains.sector("health"),
        asked.purpose,
        asked.category,
        Operation.READ,
        span_of("", ""),
        min(asked.count or search.COUNT_DEFAULT, rows_max),
        mask.open(asked.cursor, asked.text) if asked.cursor else None,
        mask.person_of(asked.patient) if asked.patient else None,
        asked.properties,
    )
    own = [each for each in request.query_params.multi_items() if each[0] != "_cursor"]

    def bundle(chunk: Chunk) -> bytes:
        links = {"self": own}
        if chunk.more:
            links["next"] = [*own, ("_cursor", mask.seal(chunk.more, asked.text))]
        resources = [_shown(row, mask) for row in chunk.rows]
        entries = [
            {"fullUrl": f"{base}/Observation/{each['id']}", "resource": each,
             "search": {"mode": "match"}}
            for each in resources
        ]  # fmt: skip
        return fhir.write({
            "resourceType": "Bundle",
            "id": str(chunk.decision),
            "type": "searchset",
            "link": [
                {"relation": name, "url": f"{base}/Observation?{urlencode(pairs)}"}
                for name, pairs in links.items()
            ],
            **({"entry": entries} if entries else {}),
        })  # fmt: skip

    def read() -> tuple[bytes, Lease]:
        body, _, lease = leased(gate, principal, question, bundle, matching(asked.path))
        return body, lease

    return HandedOver(read, f"{fhir.MEDIA_TYPE}; charset=utf-8")


def _shown(row: Mapping[str, Any], mask: Mask) -> fhir.Resource:
    persons = [mask.person(person) for person in row["persons"]]
    return disclosed(fhir.stored(row["result"]), persons, mask.thing)


@router.get(f"{BASE}/Consent", responses=documented(401, 403, 503), response_class=Response)
def read_consents(request: Request) -> Response:
    """The caller's own grants as FHIR Consents, and the Consents that were kept: `read:own`."""
    person = door.principal_of(request)
    with door.own(request) as connection:
        granted = grants.select_grants(connection, person)
        others = kept.select_kept(connection, person, door.subject_keys_of(request))
    base = str(request.base_url).rstrip("/") + BASE
    resources = [
        *(consents.resource_of(row, str(person.subject)) for row in granted),
        *map(fhir.stored, others),
    ]
    entries = [
        {**({"fullUrl": f"{base}/Consent/{each['id']}"} if "id" in each else {}),
         "resource": each, "search": {"mode": "match"}}
        for each in resources
    ]  # fmt: skip
    link = [{"relation": "self", "url": f"{base}/Consent"}]
    body = {"resourceType": "Bundle", "type": "searchset", "link": link}
    return answer({**body, **({"entry": entries} if entries else {})})


@router.get(f"{BASE}/metadata", responses=documented(401, 503), response_class=Response)
def read_metadata(request: Request) -> Response:
    """What this server does of FHIR (CapabilityStatement); it tells of no person."""
    del request
    return answer(METADATA)


METADATA: fhir.Resource = {
    "resourceType": "CapabilityStatement",
    "status": "active",
    "date": "2026-11-23",
    "kind": "instance",
    "implementation": {"description": "Chimata: observations that persons granted to read"},
    "fhirVersion": fhir.VERSION,
    "format": ["json"],
    "rest": [
        {
            "mode": "server",
            "security": {"description": "bearer tokens; every answer by live grants alone"},
            "interaction": [{"code": "transaction"}, {"code": "batch"}],
            "resource": [
                {
                    "type": "Observation",
                    "interaction": [{"code": "create"}, {"code": "search-type"}],
                    "conditionalCreate": True,
                    "searchParam": [
                        {"name": "patient", "type": "reference"},
                        {"name": "code", "type": "token"},
                        {"name": "date", "type": "date"},
                        {"name": "_purpose", "type": "string"},
                    ],
                },
                {
                    "type": "Consent",
                    "interaction": [{"code": "create"}, {"code": "search-type"}],
                    "conditionalCreate": True,
                },
            ],
        }
    ],
}
