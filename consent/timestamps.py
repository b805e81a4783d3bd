"""When a checkpoint was there, as a timestamping authority says (RFC 3161)."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography.x509 import Certificate, load_pem_x509_certificates

from core.errors import CityError, brief, invalid

ATTEMPT_SECONDS_MAX = 10.0
ANSWER_BYTES_MAX = 64 * 1024
CLOCK = timedelta(minutes=5)
"""An authority whose clock is further off than this is not believed."""
MEDIA_TYPE = "application/timestamp-query"


def load_certificates(path: Path) -> list[Certificate]:
    """The certificates of a PEM file; CityError `invalid` where there are none."""
    try:
        return load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise invalid("certificates", f"{path}: {brief(error)}") from error


def check(
    token: bytes, note: str, certificates: Sequence[Certificate], nonce: int | None = None
) -> datetime:
    """When an authority under these certificates saw the checkpoint; CityError `invalid` if none.

    They must hold at that time, not now. Those that sign themselves are believed, and no others.
    """
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    try:
        answer = decode_timestamp_response(token)
        if answer.status != 0:
            raise invalid("timestamp", f"was refused: {answer.status_string}")
        roots = [each for each in certificates if each.issuer == each.subject]
        others = [each for each in certificates if each.issuer != each.subject]
        verifier = VerifierBuilder(roots=roots, intermediates=others, nonce=nonce).build()
        verifier.verify_message(answer, note.encode())
        at: datetime = answer.tst_info.gen_time
    except (ValueError, VerificationError) as error:
        raise invalid("timestamp", f"does not hold: {brief(error)}") from error
    return at.astimezone(UTC)


class Authority:
    """A timestamping authority, by its URL and the certificates above its own."""

    def __init__(self, url: str, certificates: Sequence[Certificate]) -> None:
        self._url, self._certificates = url, certificates

    def stamp(self, note: str) -> tuple[datetime, bytes]:
        """When it saw a checkpoint, and its token; CityError where it gives none that holds."""
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

        builder = TimestampRequestBuilder().data(note.encode())
        request = builder.hash_algorithm(HashAlgorithm.SHA256).build()
        token = self._ask(request.as_bytes())
        at = check(token, note, self._certificates, request.nonce)
        if abs(datetime.now(UTC) - at) > CLOCK:
            raise invalid("timestamp", f"says {at.isoformat()}, which is not now")
        return at, token

    def _ask(self, request: bytes) -> bytes:
        headers = {"content-type": MEDIA_TYPE}
        token, ends_at = b"", time.monotonic() + 2 * ATTEMPT_SECONDS_MAX
        try:
            with httpx.stream(
                "POST", self._url, content=request, headers=headers, timeout=ATTEMPT_SECONDS_MAX
            ) as answer:
                answer.raise_for_status()
                for part in answer.iter_bytes():
                    token += part
                    if len(token) > ANSWER_BYTES_MAX or time.monotonic() > ends_at:
                        raise invalid("timestamp", "is longer, or takes longer, than any token")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            name = type(error).__name__
            raise CityError("unavailable", f"no answer: {name}: {brief(error)}") from error
        return token
