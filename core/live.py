"""Live notices between processes: announce() and listen(); one notice a batch, never a row.

NOTIFY takes a lock of the whole server at commit, so it is sent once an append and names only what
was appended; whoever listens reads the rows through the gate.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
from psycopg import Connection
from psycopg.conninfo import make_conninfo

CHANNEL = "chimata_live"
SILENCE_SECONDS_MAX = 30.0
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)

NOTIFY = "SELECT pg_notify(%(channel)s, %(notice)s)"
LISTEN = f"LISTEN {CHANNEL}"


@dataclass(frozen=True, slots=True)
class Notice:
    """An append of a sector was committed: its number in that sector, and how many rows it has."""

    sector: str
    append_id: int
    rows: int


def announce(
    connection: Connection[tuple[Any, ...]], sector: str, append_id: int, rows: int
) -> None:
    """Tell every process of an append; sent when the caller's transaction commits, or never."""
    notice = orjson.dumps([sector, append_id, rows]).decode()
    connection.execute(NOTIFY, {"channel": CHANNEL, "notice": notice})


async def listen(database_url: str) -> AsyncIterator[Notice | None]:
    """Every notice, over one connection that is made again when it breaks.

    None comes whenever the connection was (re)made: notices may have been missed before it.
    """
    url = make_conninfo(database_url, application_name="chimata live", keepalives_idle="10")
    failures = 0
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                await connection.execute(LISTEN)
                failures = 0
                yield None
                while True:
                    async for notify in connection.notifies(timeout=SILENCE_SECONDS_MAX):
                        if (notice := _parse(notify.payload)) is not None:
                            yield notice
                    await connection.execute("SELECT 1")  # raises if the server has gone
        except psycopg.Error:
            await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1


def _parse(payload: str) -> Notice | None:
    """The notice, or None for something that is not ours: any database user may notify."""
    try:
        sector, append_id, rows = orjson.loads(payload)
        return Notice(str(sector), int(append_id), int(rows))
    except (ValueError, TypeError):
        return None
