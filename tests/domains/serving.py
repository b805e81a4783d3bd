"""What a sector's own words answer over HTTP: stored as the pipeline does, read with a token."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from fastapi.testclient import TestClient

from api.app import create_app
from core.sector import Sector
from core.sensorthings import Decoded, ThingUpdate
from core.settings import Settings
from core.storage.catalogue import Catalogue
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.tokens import Role, issue, load_keys


def store(
    url: str,
    sector: Sector,
    messages: Iterable[tuple[Decoded, int]],
    updates: Iterable[ThingUpdate] = (),
) -> None:
    """Append decoded messages (with when they were received, µs) and describe Things."""
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        sector_store = SectorStore(sector)
        for number, (decoded, received_at) in enumerate(messages):
            payload = b"%d" % number
            digest = hashlib.sha256(payload).digest()
            message = Message("g", "f", "test", received_at, payload, digest, decoded, "b", number)
            sector_store.append(connection, [message])
        flush = sector_store.drain()
        if flush is not None:
            flush.write(connection)
        Catalogue(sector).describe(connection, ((update, "import") for update in updates))
        connection.commit()


@contextmanager
def client_of(url: str, folder: Path, role: Role | None) -> Iterator[TestClient]:
    """A client of the whole application, with a token of this role or without one."""
    keys = load_keys(folder / "keys", create=True)
    headers = {}
    if role is not None:
        headers["Authorization"] = f"Bearer {issue(keys, role, subject='s')}"
    with TestClient(create_app(Settings(database_url=url, data=folder)), headers=headers) as client:
        yield client
