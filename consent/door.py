"""What a route needs of the gate: read as the caller, and answer with pre-encoded JSON.

    @router.get("/nodes")
    def read_nodes(request: Request) -> Response:
        with door.reading(request, SECTOR) as connection:
            nodes = queries.select_nodes(connection)
        return door.current({"nodes": nodes})

Build the answer inside the block, return it after: never a byte before the transaction ended.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Request, Response

from consent import standing
from consent.decide import READ_OWN, WRITE_OWN
from consent.gate import Gate, PermittedConnection
from consent.log import Written
from consent.subject_keys import SubjectKeys
from core.sector import Sector
from core.storage.pool import Session
from core.tokens import Principal, load_secret, signing_key

ENCODING = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
JSON = "application/json"
WriteConnection = Session
"""What `having` opens: for a sector's own tables, which its gate has no statement for."""


def gate_of(request: Request) -> Gate:
    """The process's gate."""
    gate: Gate = request.app.state.gate
    return gate


def principal_of(request: Request) -> Principal:
    """Who is asking, as api.auth established before the route ran."""
    principal: Principal = request.state.principal
    return principal


def reading(request: Request, sector: Sector) -> AbstractContextManager[PermittedConnection]:
    """Gate.reading for the caller of this request; same errors."""
    return gate_of(request).reading(principal_of(request), sector)


def rejections(request: Request) -> AbstractContextManager[PermittedConnection]:
    """Gate.rejections for the caller of this request; same errors."""
    return gate_of(request).rejections(principal_of(request))


@contextmanager
def own(request: Request, scope: str = READ_OWN) -> Iterator[Session]:
    """Gate.own for the caller of this request; same errors.

    From then on `principal_of` is the person whom `?subject=` names, if the caller may act for it.
    """
    caller = principal_of(request)
    with gate_of(request).own(caller, scope) as connection:
        if scope == READ_OWN:
            request.state.principal = standing.acting_for(connection, caller, _subject(request))
        yield connection


def published(request: Request) -> AbstractContextManager[Session]:
    """Gate.published: no token is asked for."""
    return gate_of(request).published()


def having(
    request: Request, scope: str, what: str, *, writes: bool = False
) -> AbstractContextManager[WriteConnection]:
    """Gate.having for the caller of this request; same errors."""
    return gate_of(request).having(principal_of(request), scope, what, writes=writes)


def act_for(request: Request) -> Principal:
    """The caller, or whom `?subject=` names if it may act for it; `principal_of` from then on."""
    with own(request):
        return principal_of(request)


@contextmanager
def reading_own(request: Request, sector: str | None = None) -> Iterator[Session]:
    """Gate.reading_own for the caller, or for whom it acts; same errors."""
    with gate_of(request).reading_own(act_for(request), sector) as connection:
        yield connection


def act(request: Request, scope: str, write: Callable[[Session, Principal], Written]) -> Written:
    """Gate.act as the caller of this request, or as the person whom `?subject=` names; same errors.

    Another's guardian acts in that person's place, and no two acts about one go on at once.
    """
    caller = principal_of(request)

    def written(connection: Session) -> Written:
        if scope != WRITE_OWN:
            return write(connection, caller)
        person = standing.acting_for(connection, caller, _subject(request))
        standing.in_turn(connection, person)
        return write(connection, person)

    return gate_of(request).act(caller, scope, written)


def _subject(request: Request) -> str | None:
    return request.query_params.get("subject")


def secret_of(request: Request) -> bytes:
    """What names and cursors of personal data are made with; CityError without the keys."""
    return load_secret(request.app.state.settings)


def subject_keys_of(request: Request) -> SubjectKeys:
    """The keys of persons, on the machine that has them."""
    return SubjectKeys.of(request.app.state.settings)


def signing_key_of(request: Request) -> Ed25519PrivateKey:
    """What checkpoints are signed with; CityError without the keys."""
    return signing_key(request.app.state.settings)


def encode(body: Any) -> bytes:
    """JSON bytes: aware datetimes in UTC with Z, NaN as null."""
    return orjson.dumps(body, option=ENCODING)


def current(body: Any, media_type: str = JSON) -> Response:
    """Current state: never stored by a cache (a light that was green is not green)."""
    return current_parts((encode(body),), media_type)


def current_parts(parts: Iterable[bytes], media_type: str = JSON) -> Response:
    """Current state, from parts of its JSON."""
    headers = {"Cache-Control": "no-store"}
    return Response(b"".join(parts), media_type=media_type, headers=headers)


def cacheable(request: Request, body: Any, media_type: str = JSON) -> Response:
    """An answer with an ETag; 304 without a body when the caller holds the same one.

    Revalidated each time, and private where a token widened what is seen.
    """
    return cacheable_bytes(request, encode(body), media_type)


def cacheable_bytes(
    request: Request, encoded: bytes, media_type: str, tag: str | None = None
) -> Response:
    """The same for what is encoded already, and has an ETag where it was made for many."""
    tag = tag or f'"{hashlib.blake2b(encoded, digest_size=16).hexdigest()}"'
    scope = "private" if principal_of(request).role else "public"
    headers = {"ETag": tag, "Cache-Control": f"{scope}, no-cache", "Vary": "Authorization"}
    held = request.headers.get("if-none-match", "")
    if held.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in held.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(encoded, media_type=media_type, headers=headers)
