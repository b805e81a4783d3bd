"""Fetching a feed again and again: only what changed, bounded, and without telling its key."""

import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx

from core.errors import CityError, invalid

TIMEOUT_SECONDS = 30.0
SECONDS_MAX = 300.0
"""For all of an answer: who sends a byte now and then holds up nothing for long."""
REDIRECTS_MAX = 5
KEY = "{key}"
"""Stands in a URL where the publisher wants a key."""
SECRETS = ("key", "token", "secret", "password", "passwd", "pwd", "credential", "auth")


@dataclass(frozen=True, slots=True)
class Validators:
    """What the publisher said of the answer before (RFC 9110, clause 8.8)."""

    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Polled:
    """A new body, or None where nothing changed."""

    body: bytes | None
    validators: Validators


def check_url(url: str, field: str = "--url") -> None:
    """CityError `invalid-content` naming `field` for what is no http(s) URL or shows a secret."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise invalid(field, "must be an http:// or https:// URL")
    if parts.username or parts.password:
        raise invalid(field, "a password in a URL would be shown: write {key} and give --key")
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if value != KEY and any(word in name.lower() for word in SECRETS):
            raise invalid(field, f"{name} would be shown: write {name}={KEY} and give --key")


def fetch(
    client: httpx.Client, url: str, validators: Validators, bytes_max: int, key: str = ""
) -> Polled:
    """GET what changed since `validators`; CityError `unavailable` saying why not, without the key.

    The key goes where the URL says it and nowhere else: a redirect carries what its sender put in.
    """
    headers = {
        name: value
        for name, value in (
            ("If-None-Match", validators.etag),
            ("If-Modified-Since", validators.last_modified),
        )
        if value
    }
    try:
        for _ in range(REDIRECTS_MAX + 1):
            with client.stream("GET", url.replace(KEY, key), headers=headers) as answer:
                if not answer.has_redirect_location:
                    return _read(answer, validators, bytes_max)
                url = _next(url, answer.headers["Location"], key)
    except httpx.HTTPError as error:
        # Its text may hold the URL, and that the key.
        raise CityError("unavailable", f"{_shown(url)}: {type(error).__name__}") from None
    raise CityError("unavailable", f"{_shown(url)}: more than {REDIRECTS_MAX} redirects")


def _next(url: str, location: str, key: str) -> str:
    target = urljoin(url.replace(KEY, key), location)
    if urlsplit(target).scheme not in ("http", "https"):
        raise CityError("unavailable", f"{_shown(url)}: redirects to what is not http")
    return target


def _read(answer: httpx.Response, before: Validators, bytes_max: int) -> Polled:
    where = _shown(str(answer.url))
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        return Polled(None, before)
    if not answer.is_success:
        raise CityError("unavailable", f"{where}: HTTP {answer.status_code}")
    body, until = bytearray(), time.monotonic() + SECONDS_MAX
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > bytes_max:
            raise CityError("unavailable", f"{where}: more than {bytes_max:,} bytes")
        if time.monotonic() > until:
            raise CityError("unavailable", f"{where}: takes over {SECONDS_MAX:.0f} s")
    said = Validators(answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
    return Polled(bytes(body), said)


def _shown(url: str) -> str:
    """A URL without its query, where keys are."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def client() -> httpx.Client:
    """For `fetch`: no cookies are kept and no redirect is followed by itself."""
    return httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False)
