"""Signed checkpoints, and receipts of deliveries that anyone checks offline; pure.

A leaf commits to one provision record: 0x01 and HMAC-SHA256(salt, record). Who has record and salt
can show that it is in the tree; who has the tree alone learns nothing of it. A checkpoint is a
signed note (C2SP tlog-checkpoint): origin, size and root of the tree under an Ed25519 signature.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from consent import merkle
from core.errors import CityError, brief, invalid

ORIGIN = "chimata/disclosures"
ED25519 = b"\x01"
"""The signature's kind in a signed note."""
COMMITMENT = b"\x01"
KEY_ID_BYTES = 4


class Signer:
    """Signs checkpoints with the platform's key, under a name."""

    def __init__(self, key: Ed25519PrivateKey, name: str = ORIGIN) -> None:
        self._key = key
        self.name = name

    def sign(self, size: int, root: bytes) -> str:
        """A checkpoint of this tree."""
        return self.note(f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n")

    def note(self, text: str) -> str:
        """A signed note; the first line of its text says what it is about."""
        signed = key_id(self.name, self._key.public_key()) + self._key.sign(text.encode())
        return f"{text}\n\N{EM DASH} {self.name} {base64.b64encode(signed).decode()}\n"


def key_id(name: str, key: Ed25519PublicKey) -> bytes:
    """The first bytes of a signature, which say whose it is (C2SP signed-note)."""
    whole = hashlib.sha256(name.encode() + b"\n" + ED25519 + key.public_bytes_raw())
    return whole.digest()[:KEY_ID_BYTES]


def open_note(note: str, key: Ed25519PublicKey, name: str) -> str:
    """The text of a note that this key signed; CityError `invalid` for any other."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    wanted = key_id(name, key)
    try:
        for line in signatures.splitlines():
            dash, named, encoded = line.split(" ")
            signed = base64.b64decode(encoded, validate=True)
            if (dash, named, signed[:KEY_ID_BYTES]) == ("\N{EM DASH}", name, wanted):
                key.verify(signed[KEY_ID_BYTES:], text.encode())
                return text
    except (ValueError, InvalidSignature) as error:
        raise invalid("signature", "it is not valid") from error
    raise invalid("signature", "it is not signed by this key")


def open_checkpoint(note: str, key: Ed25519PublicKey, name: str = ORIGIN) -> tuple[int, bytes]:
    """Size and root of a checkpoint that this key signed; CityError `invalid` for any other."""
    try:
        origin, size, root, end = open_note(note, key, name).split("\n")
        if origin == ORIGIN and not end and size.isdecimal():
            return int(size), base64.b64decode(root, validate=True)
    except (ValueError, CityError) as error:
        raise invalid("checkpoint", f"its signature or its form is not valid: {error}") from error
    raise invalid("checkpoint", "it is of another form")


def commitment(salt: bytes, record: str) -> bytes:
    """The leaf of a record."""
    return merkle.leaf_hash(COMMITMENT + hmac.digest(salt, record.encode(), "sha256"))


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that was checked: its record as it was committed to, and its place in the tree.

    `text` is empty where the record was erased.
    """

    text: str
    index: int
    size: int
    note: str
    timestamp: bytes | None
    """An authority's token on the note, which is still to be checked."""


def public_key(text: str) -> Ed25519PublicKey:
    """The key that `published` gave; CityError `invalid` for any other text."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise invalid("key", "must be base64 of the 32 bytes of an Ed25519 key") from error


def published(key: Ed25519PublicKey) -> str:
    """A public key as people copy it."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def check_receipt(receipt: Any, key: Ed25519PublicKey) -> Receipt:
    """A receipt that holds; CityError `invalid` names what does not. Nothing else is needed."""
    try:
        index = int(receipt["index"])
        if receipt["record"] is None:  # erased: its place holds still
            record, leaf = "", bytes.fromhex(receipt["leaf"])
        else:
            record = str(receipt["record"])
            leaf = commitment(bytes.fromhex(receipt["salt"]), record)
        proof = [bytes.fromhex(each) for each in receipt["proof"]]
        note, token = str(receipt["checkpoint"]), receipt.get("timestamp")
        stamp = base64.b64decode(token, validate=True) if token is not None else None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise invalid("receipt", f"is not of the form of a receipt: {brief(error)}") from error
    size, root = open_checkpoint(note, key)
    if not merkle.includes(index, size, leaf, proof, root):
        raise invalid("proof", "the record is not in the tree that was signed")
    return Receipt(record, index, size, note, stamp)
