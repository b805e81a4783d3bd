"""Who is asking: a bearer token becomes a Principal; a bad one is a 401, never anonymous."""

from typing import Annotated, Any

import httpx
import orjson
from anyio import to_thread
from fastapi import Request, Security
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from core.errors import CityError
from core.settings import Settings
from core.tokens import ANONYMOUS, Verifier, load_keys

TOKEN_BYTES_MAX = 8192
JWKS_BYTES_MAX = 1024 * 1024
JWKS_SECONDS_MAX = 5.0

_documented = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    description="`chimata token issue --role operator`, or a token of the configured OIDC issuer",
)
Declared = Annotated[HTTPAuthorizationCredentials | None, Security(_documented)]


def verifier(settings: Settings) -> Verifier:
    """Checks this machine's own tokens and, where one is set, the outside issuer's."""
    try:
        own = load_keys(settings.data / "keys").signing
    except CityError:
        own = None  # only the outside issuer's tokens are valid here
    return Verifier(
        own,
        audience=settings.audience,
        outside_issuer=settings.oidc_issuer,
        fetch=(lambda: fetch_jwks(settings.oidc_jwks_url)) if settings.oidc_jwks_url else None,
    )


def fetch_jwks(url: str) -> dict[str, Any]:
    """The issuer's key set; CityError `unavailable` when it does not give one."""
    try:
        with httpx.stream("GET", url, timeout=JWKS_SECONDS_MAX) as answer:
            answer.raise_for_status()
            body = b""
            for part in answer.iter_bytes():
                body += part[: JWKS_BYTES_MAX - len(body)]  # cut off, so that it does not parse
        keys: dict[str, Any] = orjson.loads(body)
    except (httpx.HTTPError, ValueError) as error:
        raise CityError("unavailable", "the token issuer's keys cannot be fetched now") from error
    return keys


async def identify(request: Request, _declared: Declared = None) -> None:
    """Set `request.state.principal`; CityError `unauthenticated` for a header that is not valid."""
    header = request.headers.get("authorization")
    if header is None:
        request.state.principal = ANONYMOUS
        return
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_BYTES_MAX:
        raise CityError("unauthenticated", "the bearer token is not valid: send `Bearer TOKEN`")
    # In a thread: an unknown key id fetches the issuer's keys over the network.
    checked = request.app.state.verifier
    request.state.principal = await to_thread.run_sync(checked.verify, token)
