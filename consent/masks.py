"""Names and cursors for one recipient, which mean nothing to another and tell nothing of others.

Two recipients cannot join what they got by name, and a cursor shows neither times nor numbers of
what lies between two pages (docs/consent.md).
"""

import base64
import hmac
import os
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import invalid

NAME_BYTES = 15
NONCE_BYTES = 12


class Mask:
    """The names of one recipient; `secret` is the platform's own."""

    def __init__(self, secret: bytes, recipient: str) -> None:
        key = hmac.digest(secret, b"recipient\n" + recipient.encode(), "sha256")
        self._names = hmac.digest(key, b"names", "sha256")
        self._cursors = AESGCM(hmac.digest(key, b"cursors", "sha256"))

    def name(self, *parts: str) -> str:
        """What stands for a person or a Thing, always the same."""
        text = "\n".join((str(len(parts)), *parts)).encode()
        digest = hmac.digest(self._names, text, "sha256")[:NAME_BYTES]
        return base64.b32encode(digest).decode().lower()

    def seal(self, place: tuple[int, int, datetime], question: str) -> str:
        """A cursor that goes on after a place, for the same question alone; all have one length."""
        datastream, level, event = place
        nonce = os.urandom(NONCE_BYTES)
        content = f"{datastream:010d}{level}{event.isoformat():>32}".encode()
        sealed = nonce + self._cursors.encrypt(nonce, content, question.encode())
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, cursor: str, question: str) -> tuple[int, int, datetime]:
        """What `seal` was given; CityError `invalid` for another question or recipient."""
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            content = self._cursors.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], question.encode()
            ).decode()
            event = datetime.fromisoformat(content[11:].strip())
            return int(content[:10]), int(content[10]), event
        except (ValueError, InvalidTag) as error:
            raise invalid("after", "take it from `next` of the same question") from error
