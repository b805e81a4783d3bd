"""Bearer tokens (JWT, RFC 7519), of this machine or any OIDC issuer, and batch signatures."""

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey
from joserfc.jws import extract_compact

from core import seal
from core.errors import CityError, invalid
from core.settings import Settings

ISSUER = "chimata"
ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "RS256"]
LIFETIME_SECONDS = 365 * 24 * 3600
OVERRIDE_SECONDS_MAX = 24 * 3600
LEEWAY_SECONDS = 30
SIGNATURE = re.compile(r"v1\.([0-9a-f]{1,64})\.([0-9]{1,16})\.([0-9a-f]{64})")
SECRET_BYTES_MIN = 16
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Gateway ids and boots: no broker wildcard or space, since those would widen permissions."""


class Role(StrEnum):
    """Who a token speaks for."""

    GATEWAY = "gateway"
    OPERATOR = "operator"
    STAFF = "staff"
    RECIPIENT = "recipient"
    CITIZEN = "citizen"
    BANK = "bank"
    BOARD = "board"
    RESPONDER = "responder"


SCOPES = {
    Role.GATEWAY: frozenset({"publish"}),
    Role.OPERATOR: frozenset(
        {
            "read:shared",
            "read:account",
            "read:rejections",
            "write:rejections",
            "subscribe",
            "write:bindings",
            "write:recipients",
            "write:claims",
            "write:releases",
            "read:bank",
            "write:bank",
            "write:benefits",
            "write:guardians",
            "write:overrides",
            "write:transfers",
            "write:edge",
        }
    ),
    Role.STAFF: frozenset({"read:shared"}),
    Role.RECIPIENT: frozenset({"read:personal", "write:requests", "write:benefits"}),
    Role.CITIZEN: frozenset({"read:own", "write:own"}),
    Role.BANK: frozenset({"write:delegated"}),
    Role.BOARD: frozenset({"read:bank", "write:votes"}),
    Role.RESPONDER: frozenset({"read:emergency"}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, as a verified token says. `gateway`, `subject`, `override` as the role needs.

    `guardianship`: by which it acts for `subject`, another person; no token says it
    (consent.standing).
    """

    role: Role | None
    name: str
    gateway: str | None
    subject: str | None
    scopes: frozenset[str]
    expires_at: int
    override: UUID | None = None
    guardianship: UUID | None = None


ANONYMOUS = Principal(None, "anonymous", None, None, frozenset(), 0)


@dataclass(frozen=True, slots=True)
class Keys:
    """One machine's own issuer: its signing key, and the secret behind the batch keys."""

    signing: OKPKey
    secret: bytes


def check_name(field: str, name: str) -> str:
    """The name itself if it may be a gateway id or boot; CityError `invalid` otherwise."""
    if not NAME.fullmatch(name):
        raise invalid(field, f"{name!r} must match {NAME.pattern}")
    return name


def load_keys(folder: Path, *, create: bool = False) -> Keys:
    """The keys kept in `folder` (0700), made on first use when `create`; files are 0600."""
    signing_file, secret_file = folder / "signing.jwk", folder / "ingest.secret"
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = OKPKey.generate_key("Ed25519", {"use": "sig", "kid": secrets.token_hex(8)})
        _write_once(signing_file, orjson.dumps(key.as_dict(private=True)))
        _write_once(secret_file, base64.b64encode(secrets.token_bytes(32)))
        _write_once(folder / seal.FILE, seal.new_private_key())
    try:
        return Keys(
            OKPKey.import_key(orjson.loads(signing_file.read_bytes())),
            _secret(secret_file.read_bytes()),
        )
    except (OSError, ValueError, TypeError, JoseError) as error:
        raise CityError(
            "unavailable",
            f"no usable keys in {folder} ({type(error).__name__}); `chimata up` makes them",
        ) from error


def load_secret(settings: Settings) -> bytes:
    """The secret behind the batch keys: CHIMATA_INGEST_SECRET, or the one in the data folder."""
    if settings.ingest_secret:
        try:
            return _secret(settings.ingest_secret)
        except ValueError as error:
            raise invalid("CHIMATA_INGEST_SECRET", str(error)) from error
    return load_keys(settings.data / "keys").secret


def signing_key(settings: Settings) -> Ed25519PrivateKey:
    """The private key of this machine's issuer; CityError `unavailable` where there is none."""
    key = load_keys(settings.data / "keys").signing.private_key
    if not isinstance(key, Ed25519PrivateKey):
        raise CityError("unavailable", f"the key in {settings.data / 'keys'} is no Ed25519 key")
    return key


def _secret(text: str | bytes) -> bytes:
    """The secret behind its base64; ValueError for one that could be guessed (a cut-off file)."""
    secret = base64.b64decode(text, validate=True)
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"must be base64 of at least {SECRET_BYTES_MIN} bytes")
    return secret


def _write_once(path: Path, content: bytes) -> None:
    """Create the file whole or leave the one that is there: two starts may race."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def batch_key(secret: bytes, gateway: str, token_id: str, expires_at: int) -> bytes:
    """The HMAC key of one gateway token: derived, so that no table of keys is needed."""
    label = f"{gateway}\n{token_id}\n{expires_at}".encode()
    return hmac.digest(secret, b"gateway\n" + label, "sha256")


def issue(
    keys: Keys,
    role: Role,
    *,
    gateway: str | None = None,
    subject: str | None = None,
    override: UUID | None = None,
    lifetime_seconds: int = LIFETIME_SECONDS,
    audience: str = "chimata",
) -> str:
    """A signed token; a gateway's also carries the key that signs its Kafka batches.

    A responder's is of one recipient for one emergency override, and lasts no longer than one can.
    """
    issued_at = int(time.time())
    token_id, expires_at = secrets.token_hex(8), issued_at + lifetime_seconds
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": audience,
        "iat": issued_at,
        "exp": expires_at,
        "jti": token_id,
        "role": role.value,
        "scope": " ".join(sorted(SCOPES[role])),
    }
    if role is Role.GATEWAY:
        if gateway is None:
            raise invalid("gateway", "a gateway's token needs its id")
        claims["sub"] = claims["gateway"] = check_name("gateway", gateway)
        key = batch_key(keys.secret, gateway, token_id, expires_at)
        claims["batch_key"] = base64.urlsafe_b64encode(key).decode()
    else:
        if role is Role.CITIZEN and not subject:
            raise invalid("subject", "a citizen's token needs the subject it stands for")
        claims["sub"] = subject or role.value
    if role is Role.RESPONDER:
        if override is None or not subject:
            raise invalid("override", "a responder's token needs its override and its recipient")
        claims["override"] = str(override)
        claims["exp"] = min(expires_at, issued_at + OVERRIDE_SECONDS_MAX)
    header = {"alg": "Ed25519", "kid": keys.signing.kid}
    return jwt.encode(header, claims, keys.signing, algorithms=["Ed25519"])


class Verifier:
    """Checks tokens of this machine's issuer and, where one is set, of an outside OIDC issuer.

    The outside key set is fetched by `fetch` when an unknown key id appears, at most once a minute,
    and once an hour, so that a key which the issuer withdrew is not believed for ever.
    """

    REFETCH_SECONDS_MIN = 60.0
    KEYS_SECONDS_MAX = 3600.0

    def __init__(
        self,
        own: OKPKey | None,
        *,
        audience: str = "chimata",
        outside_issuer: str = "",
        fetch: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self._own = own
        self._audience = audience
        self._outside_issuer = outside_issuer
        self._fetch = fetch
        self._outside: KeySet | None = None
        self._fetched_at = float("-inf")
        self._fetching = threading.Lock()

    def verify(self, token: str) -> Principal:
        """Who the token speaks for; CityError `unauthenticated` that says why not."""
        try:
            claims = self._claims(token)
        except (JoseError, ValueError) as error:
            raise CityError(
                "unauthenticated", f"the bearer token is not valid: {type(error).__name__}"
            ) from error
        return _principal(claims)

    def _claims(self, token: str) -> dict[str, Any]:
        issuer, keys = self._keys_for(token)
        claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
        registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
        )
        registry.validate(claims)
        return claims

    def _keys_for(self, token: str) -> tuple[str, Any]:
        """The issuer that the token names, and that issuer's keys: never another's."""
        unverified = extract_compact(token.encode())
        claims = orjson.loads(unverified.payload)
        named = claims.get("iss") if isinstance(claims, dict) else None
        if named == ISSUER and self._own is not None:
            return ISSUER, self._own
        if named and named == self._outside_issuer:
            return named, self._outside_keys(str(unverified.headers().get("kid")))
        raise ValueError("unknown issuer")

    def _outside_keys(self, key_id: str) -> KeySet:
        with self._fetching:  # others wait for the first fetch: their tokens are as good
            age = time.monotonic() - self._fetched_at
            known = self._outside is not None and any(k.kid == key_id for k in self._outside.keys)
            wanted = not known or age > self.KEYS_SECONDS_MAX
            if wanted and age > self.REFETCH_SECONDS_MIN and self._fetch is not None:
                self._fetched_at = time.monotonic()
                try:
                    self._outside = KeySet.import_key_set(self._fetch())  # type: ignore[arg-type]
                except (CityError, JoseError, ValueError):
                    if not known:
                        raise
            if self._outside is None:
                raise ValueError("the issuer's keys are not available")
            return self._outside


def _principal(claims: dict[str, Any]) -> Principal:
    try:
        role = Role(claims.get("role", ""))
    except ValueError as error:
        raise CityError("unauthenticated", "the bearer token names no known role") from error
    gateway = claims.get("gateway")
    if role is Role.GATEWAY and not (isinstance(gateway, str) and NAME.fullmatch(gateway)):
        raise CityError("unauthenticated", "the gateway's token names no valid gateway")
    override = _uuid(claims.get("override"))
    if role is Role.RESPONDER and override is None:
        raise CityError("unauthenticated", "the responder's token names no override")
    granted = frozenset(str(claims.get("scope", "")).split())
    subject = str(claims.get("sub", ""))
    return Principal(
        role,
        subject or role.value,
        gateway if role is Role.GATEWAY else None,
        subject if role is Role.CITIZEN else None,
        granted & SCOPES[role],
        int(claims["exp"]),
        override if role is Role.RESPONDER else None,
    )


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _mac(key: bytes, topic: str, gateway: str, boot: str, seq: int, payload: bytes) -> str:
    digest = hashlib.sha256(payload).hexdigest()
    message = "\n".join((topic, gateway, boot, str(seq), digest))
    return hmac.new(key, message.encode(), "sha256").hexdigest()


def sign_batch(token: str, topic: str, boot: str, seq: int, payload: bytes) -> str:
    """The `chimata-signature` of a batch on Kafka, where a bearer token would lie in the log."""
    claims = orjson.loads(extract_compact(token.encode()).payload)
    key = base64.urlsafe_b64decode(claims["batch_key"])
    mac = _mac(key, topic, claims["gateway"], boot, seq, payload)
    return f"v1.{claims['jti']}.{claims['exp']}.{mac}"


def check_batch_signature(
    secret: bytes, topic: str, gateway: str, boot: str, seq: int, payload: bytes, header: str
) -> None:
    """Accept what `sign_batch` made with a live token of this gateway; CityError otherwise."""
    found = SIGNATURE.fullmatch(header)
    if found is None:
        raise CityError("unauthenticated", "chimata-signature: not of the form v1.jti.exp.mac")
    token_id, expires_at, mac = found[1], int(found[2]), found[3]
    if expires_at < time.time() - LEEWAY_SECONDS:
        raise CityError("unauthenticated", "chimata-signature: the gateway's token has expired")
    key = batch_key(secret, gateway, token_id, expires_at)
    if not hmac.compare_digest(_mac(key, topic, gateway, boot, seq, payload), mac):
        raise CityError("unauthenticated", "chimata-signature: does not match the batch")
