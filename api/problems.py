"""Errors as RFC 9457 problem+json; an unexpected one reveals only a trace id."""

import http
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from core.errors import KINDS, CityError, ErrorKind, FieldError

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "5"

log = logging.getLogger("chimata.api")

FHIR = "/v1/health/fhir"
"""Where errors are OperationOutcomes."""
FHIR_CODES = {
    401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported", 409: "conflict",
    413: "too-long", 422: "value", 500: "exception", 503: "timeout",
}  # fmt: skip
Handler = Callable[[Request, Exception], Response]
BY_STATUS = {kind.status: kind for kind in KINDS.values()}


class ProblemField(BaseModel):
    """What is wrong with one field."""

    name: str
    reason: str


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["/problems/invalid"])
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = []
    trace: str | None = Field(None, description="only for 500: quote it to the operator")


def documented(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of these kinds of error."""
    return {
        KINDS[slug].status: {
            "description": KINDS[slug].title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for slug in slugs
    }


def render(
    kind: ErrorKind,
    detail: str,
    fields: Sequence[FieldError] = (),
    *,
    headers: dict[str, str] | None = None,
    **extra: str,
) -> Response:
    """The problem as a response, with the headers that its status asks for."""
    body: dict[str, Any] = {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "errors": [{"name": f.name, "reason": f.reason} for f in fields],
        **extra,
    }
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if kind.status == http.HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", 'Bearer realm="chimata"')
    if kind.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        sent.setdefault("Retry-After", RETRY_SECONDS)
    return Response(orjson.dumps(body), kind.status, sent, MEDIA_TYPE)


def of_city_error(_request: Request, error: Exception) -> Response:
    """A deliberate error."""
    assert isinstance(error, CityError)  # noqa: S101 - registered for it alone
    headers = None
    if error.slug == "unauthenticated" and error.detail.startswith("the bearer token"):
        headers = {"WWW-Authenticate": 'Bearer realm="chimata", error="invalid_token"'}
    return render(error.kind, error.detail, error.fields, headers=headers)


def of_validation(_request: Request, error: Exception) -> Response:
    """A request that does not fit the declared types: names every bad field."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    fields = tuple(
        FieldError(".".join(str(part) for part in each["loc"][1:]) or "body", str(each["msg"]))
        for each in error.errors()
    )
    names = ", ".join(f.name for f in fields)
    return render(KINDS["invalid"], f"not valid: {names}", fields)


def of_http(_request: Request, error: Exception) -> Response:
    """What the framework itself answers: unknown path, wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    phrase = http.HTTPStatus(error.status_code).phrase
    if error.status_code == http.HTTPStatus.BAD_REQUEST:  # a body that is no JSON
        detail = str(error.detail)
        return render(KINDS["invalid"], f"body: {detail}", (FieldError("body", detail),))
    kind = BY_STATUS.get(error.status_code)
    if kind is None:
        slug = phrase.lower().replace(" ", "-")
        kind = ErrorKind(slug, phrase, error.status_code)
    detail = str(error.detail) if error.detail != phrase else kind.title
    return render(kind, detail, headers=dict(error.headers or {}))


def of_anything(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has everything under a trace id, the caller has the id."""
    trace = secrets.token_hex(8)
    log.error("%s %s: trace %s", request.method, request.url.path, trace, exc_info=error)
    kind = ErrorKind("internal", "Something went wrong here", 500)
    return render(kind, f"the operator finds it in the log under {trace}", trace=trace)


def install(app: FastAPI) -> None:
    """Make every error of the app a problem, and in FHIR an OperationOutcome."""
    app.add_exception_handler(CityError, _in_fhir(of_city_error))
    app.add_exception_handler(RequestValidationError, _in_fhir(of_validation))
    app.add_exception_handler(HTTPException, _in_fhir(of_http))
    app.add_exception_handler(Exception, _in_fhir(of_anything))


def _in_fhir(handler: Handler) -> Handler:
    """The same error in the words that a FHIR client reads."""

    def handle(request: Request, error: Exception) -> Response:
        problem = handler(request, error)
        if not request.url.path.startswith(FHIR):
            return problem
        from domains.health.fhir import MEDIA_TYPE as FHIR_TYPE
        from domains.health.fhir import Issue, outcome, write

        told = orjson.loads(problem.body)
        code = FHIR_CODES.get(problem.status_code, "processing")
        named = [Issue(code, each["reason"], each["name"]) for each in told["errors"]]
        headers = dict(problem.headers)
        headers.pop("content-length")
        headers["content-type"] = f"{FHIR_TYPE}; charset=utf-8"
        body = write(outcome(named or [Issue(code, told["detail"])]))
        return Response(body, problem.status_code, headers)

    return handle
