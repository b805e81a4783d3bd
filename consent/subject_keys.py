"""Each person's key, and the tombstones of those who had theirs destroyed; beside the database.

What outlives live rows is sealed under the key, so destroying it erases that in every copy at once.
The file lies in the data folder and in no backup of the database: a restored copy meets the
tombstones before it serves. Persons are found by consent.subject.code.
"""

import hmac
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import CityError
from core.settings import Settings

FILE = "subjects"
KEY_BYTES = 32
NONCE_BYTES = 12
ASKED_A_TIME = 500
WAIT_SECONDS_MAX = 10.0

# No journal and no freed page keeps what was overwritten; what is told as done is on the disk.
PRAGMAS = (
    "PRAGMA journal_mode = TRUNCATE",
    "PRAGMA secure_delete = ON",
    "PRAGMA synchronous = EXTRA",
)
CREATE = """
CREATE TABLE IF NOT EXISTS subject (
  code BLOB PRIMARY KEY,
  key BLOB,      -- null once destroyed
  erasure BLOB,  -- whose act it was
  at TEXT
) WITHOUT ROWID
"""
INSERT_KEY = "INSERT OR IGNORE INTO subject (code, key) VALUES (?, ?)"
DESTROY = """
INSERT INTO subject (code, erasure, at) VALUES (:code, :erasure, :at)
ON CONFLICT (code) DO UPDATE SET key = NULL, erasure = :erasure, at = :at WHERE key IS NOT NULL
"""
SELECT_TOMBSTONES = "SELECT code, erasure FROM subject WHERE key IS NULL ORDER BY code"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A person whose key was destroyed, and the id of the act that did it."""

    code: UUID
    erasure: UUID


class SubjectKeys:
    """The file of keys; any number of threads and processes may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def of(cls, settings: Settings) -> "SubjectKeys":
        """Those of this machine's data folder."""
        return cls(settings.data / "keys" / FILE)

    def keys(self, codes: Iterable[UUID]) -> dict[UUID, bytes]:
        """The keys of persons, made for those who have none; a destroyed one is not among them."""
        wanted = {code.bytes for code in codes}
        with self._open() as file:
            found = _select(file, wanted)
            missing = wanted - found.keys()
            if missing:
                made = [(code, secrets.token_bytes(KEY_BYTES)) for code in sorted(missing)]
                file.executemany(INSERT_KEY, made)
                file.commit()
                found |= _select(file, missing)  # another process may have been first
        return {UUID(bytes=code): key for code, key in found.items() if key is not None}

    def destroy(self, code: UUID, erasure: UUID) -> None:
        """Destroy a person's key for ever, and keep that it was."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._open() as file:
            file.execute(DESTROY, {"code": code.bytes, "erasure": erasure.bytes, "at": now})
            file.commit()

    def tombstones(self) -> list[Tombstone]:
        """Everyone whose key was destroyed."""
        with self._open() as file:
            found = file.execute(SELECT_TOMBSTONES).fetchall()
        return [Tombstone(UUID(bytes=code), UUID(bytes=act)) for code, act in found]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._path.exists():
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(sqlite3.connect(self._path, timeout=WAIT_SECONDS_MAX)) as file:
                for pragma in PRAGMAS:
                    file.execute(pragma)
                file.execute(CREATE)
                yield file
        except (OSError, sqlite3.Error) as error:
            raise CityError("unavailable", f"the keys of persons: {error}") from error


def joint(keys: Sequence[bytes]) -> AESGCM:
    """What opens with the keys of all these persons, and with one less does not."""
    return AESGCM(hmac.digest(b"chimata/subjects", b"".join(sorted(keys)), "sha256"))


def seal(keys: Sequence[bytes], content: bytes, context: str) -> bytes:
    """The content, for as long as the keys of all its persons last."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + joint(keys).encrypt(nonce, content, context.encode())


def unseal(keys: Sequence[bytes], sealed: bytes, context: str) -> bytes:
    """What `seal` was given; CityError `unavailable` for other keys, context or content."""
    try:
        return joint(keys).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode())
    except (ValueError, InvalidTag) as error:
        raise CityError("unavailable", "this is not sealed under the keys of here") from error


def _select(file: sqlite3.Connection, codes: Iterable[bytes]) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    wanted = list(codes)
    for start in range(0, len(wanted), ASKED_A_TIME):
        some = wanted[start : start + ASKED_A_TIME]
        marks = ", ".join("?" * len(some))
        query = f"SELECT code, key FROM subject WHERE code IN ({marks})"  # noqa: S608 - marks alone
        found |= dict(file.execute(query, some).fetchall())
    return found
