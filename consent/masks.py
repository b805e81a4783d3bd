"""Names and cursors for one recipient, which mean nothing to another and tell nothing of others.

Two recipients cannot join what they got by name, and a cursor shows neither times nor numbers of
what lies between two pages (docs/consent.md).
"""

import base64
import hmac
import os
from collections.abc import Callable
from datetime import datetime
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

from core.errors import invalid

Place = tuple[int, int, int, datetime]
"""A row's place in the order of an answer: its party, its Datastream, its level, its time."""

NAME_BYTES = 15
NONCE_BYTES = 12


class Mask:
    """The names of one recipient; `secret` is the platform's own."""

    def __init__(self, secret: bytes, recipient: str) -> None:
        key = hmac.digest(secret, b"recipient\n" + recipient.encode(), "sha256")
        self._names = hmac.digest(key, b"names", "sha256")
        self._persons = AESSIV(hmac.digest(key, b"persons", "sha512"))
        self._cursors = AESGCM(hmac.digest(key, b"cursors", "sha256"))
        # A mask lives as long as one answer, whose rows repeat few names.
        self.thing: Callable[[str], str] = cache(self._thing)
        """What stands for a Thing, always the same."""
        self.person: Callable[[int], str] = cache(self._person)
        """What stands for a person, always the same (AES-SIV, RFC 5297)."""

    def _thing(self, key: str) -> str:
        return _name(hmac.digest(self._names, key.encode(), "sha256")[:NAME_BYTES])

    def _person(self, number: int) -> str:
        return _name(self._persons.encrypt(number.to_bytes(8, "big"), None))

    def person_of(self, name: str) -> int:
        """The person whom `person` named; CityError `invalid` for any other text."""
        try:
            sealed = base64.b32decode(name.upper() + "=" * (-len(name) % 8))
            return int.from_bytes(self._persons.decrypt(sealed, None), "big")
        except (ValueError, InvalidTag) as error:
            raise invalid("person", "take it from `persons` of an answer of yours") from error

    def seal(self, place: Place, question: str) -> str:
        """A cursor that goes on after a place, for the same question alone; all have one length."""
        party, datastream, level, event = place
        nonce = os.urandom(NONCE_BYTES)
        content = f"{party:019d}{datastream:010d}{level}{event.isoformat():>32}".encode()
        sealed = nonce + self._cursors.encrypt(nonce, content, question.encode())
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, cursor: str, question: str) -> Place:
        """What `seal` was given; CityError `invalid` for another question or recipient."""
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            content = self._cursors.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], question.encode()
            ).decode()
            event = datetime.fromisoformat(content[30:].strip())
            return int(content[:19]), int(content[19:29]), int(content[29]), event
        except (ValueError, InvalidTag) as error:
            raise invalid("after", "take it from `next` of the same question") from error


def _name(content: bytes) -> str:
    return base64.b32encode(content).decode().rstrip("=").lower()
