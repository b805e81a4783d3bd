"""Sealing to a public key (HPKE, RFC 9180): who holds the private key alone can read it again."""

import base64
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from core.errors import CityError, invalid
from core.settings import Settings

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
FILE = "seal.key"
"""The private key among the machine's other keys, as base64 of its 32 bytes."""


def new_private_key() -> bytes:
    """A new private key as its file holds it."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw())


def load_private_key(folder: Path) -> X25519PrivateKey:
    """The private key kept in `folder`; CityError `unavailable` where this machine has none."""
    try:
        text = (folder / FILE).read_bytes()
        return X25519PrivateKey.from_private_bytes(base64.b64decode(text, validate=True))
    except (OSError, ValueError) as error:
        raise CityError(
            "unavailable",
            f"no usable {FILE} in {folder}: only the key's holder opens what is sealed",
        ) from error


def public_key(settings: Settings) -> X25519PublicKey | None:
    """CHIMATA_SEAL_PUBLIC_KEY, else that of the key in the data folder, else None.

    CityError `invalid` for a setting that is no public key.
    """
    if settings.seal_public_key:
        try:
            raw = base64.b64decode(settings.seal_public_key, validate=True)
            return X25519PublicKey.from_public_bytes(raw)
        except ValueError as error:
            raise invalid("CHIMATA_SEAL_PUBLIC_KEY", "must be base64 of 32 bytes") from error
    folder = settings.data / "keys"
    return load_private_key(folder).public_key() if (folder / FILE).exists() else None


def public_text(key: X25519PublicKey) -> str:
    """The public key as CHIMATA_SEAL_PUBLIC_KEY takes it."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def seal(key: X25519PublicKey, content: bytes, context: str) -> bytes:
    """The content for the key's holder alone, bound to a context that opening must name again."""
    return SUITE.encrypt(content, key, context.encode())


def unseal(key: X25519PrivateKey, sealed: bytes, context: str) -> bytes:
    """What `seal` was given; CityError `unavailable` for another key, context or content."""
    try:
        return SUITE.decrypt(sealed, key, context.encode())
    except (InvalidTag, ValueError) as error:
        raise CityError("unavailable", "this was not sealed to the key of this machine") from error
