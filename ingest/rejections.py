"""Acting on rejections over HTTP: replay, fix and discard; each answers after its commit."""

from typing import Annotated, Any

import orjson
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from core.settings import Settings
from core.storage.mending import WHY_CHARACTERS_MAX
from core.tokens import Role
from ingest.http import signed_in
from ingest.mending import Mender, Result

SCOPE, WHAT = "write:rejections", "act on rejections"
ID_MAX = 2**63 - 1
PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    401: {"description": "A valid bearer token is needed", **PROBLEM},
    403: {"description": "This token does not allow that, or it is sealed", **PROBLEM},
    404: {"description": "There is no such rejection", **PROBLEM},
    409: {
        "description": "It is not open, has no payload, or is still rejected",
        **PROBLEM,
    },
    413: {"description": "The body is over the limit", **PROBLEM},
    422: {"description": "A field is not valid", **PROBLEM},
    503: {"description": "The database does not answer now", **PROBLEM},
}
SECURITY: dict[str, Any] = {"security": [{"HTTPBearer": []}]}

RejectionId = Annotated[int, Path(ge=1, le=ID_MAX, description="its id in /v1/rejections")]
Reason = Annotated[
    str,
    Query(
        min_length=1,
        max_length=WHY_CHARACTERS_MAX,
        pattern=r"\S",
        description="why, for the history",
    ),
]


class Done(BaseModel):
    """What came of it, in observations."""

    id: int
    act: str
    state: str
    stored: int
    duplicate: int
    rejected: int


def router(settings: Settings) -> APIRouter:
    """The routes, and the one thread that acts for them."""
    mender = Mender(settings)
    one_at_a_time = CapacityLimiter(1)
    routes = APIRouter(tags=["rejections"])

    async def act(request: Request, act: Any, rejection: int, *arguments: Any) -> Response:
        principal = await signed_in(request, Role.OPERATOR, SCOPE, WHAT)
        who = f"{Role.OPERATOR.value} {principal.name}"
        result = await to_thread.run_sync(act, rejection, who, *arguments, limiter=one_at_a_time)
        return _answer(result)

    @routes.post(
        "/v1/rejections/{rejection}/replay",
        response_model=Done,
        responses=ANSWERS,
        openapi_extra=SECURITY,
    )
    async def replay(request: Request, rejection: RejectionId) -> Response:
        """Decode the payload anew and store what it holds: once, whoever asks how often."""
        return await act(request, mender.replay, rejection)

    @routes.post(
        "/v1/rejections/{rejection}/fix",
        response_model=Done,
        responses=ANSWERS,
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": {}}, "required": True},
            **SECURITY,
        },
    )
    async def fix(
        request: Request,
        rejection: RejectionId,
        reason: Reason,
        form: Annotated[
            str | None,
            Query(alias="format", max_length=100, description="of the body, if it is another"),
        ] = None,
    ) -> Response:
        """Store what the body, a corrected payload, holds; it is kept beside the original."""
        await signed_in(request, Role.OPERATOR, SCOPE, WHAT)
        return await act(request, mender.fix, rejection, reason, await request.body(), form)

    @routes.post(
        "/v1/rejections/{rejection}/discard",
        response_model=Done,
        responses=ANSWERS,
        openapi_extra=SECURITY,
    )
    async def discard(request: Request, rejection: RejectionId, reason: Reason) -> Response:
        """Give it up: the payload is let go, the hash, the count and the reasons stay."""
        return await act(request, mender.discard, rejection, reason)

    return routes


def _answer(result: Result) -> Response:
    body = {name: getattr(result, name) for name in Done.model_fields}
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(body), media_type="application/json", headers=headers)
