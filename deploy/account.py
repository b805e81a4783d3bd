"""`chimata account`: received = stored + duplicate + rejected + held, by source or by hour."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import CityError, invalid
from deploy.console import Data, Json, console, database, say

if TYPE_CHECKING:
    from psycopg import Connection

    from core.storage.account import AccountRow, Wanted

PAGE_ROWS = 1_000
COLUMNS = (
    "messages", "unchanged", "received", "stored", "duplicate", "rejected", "held", "recovered",
    "missing",
)  # fmt: skip


class By(StrEnum):
    """What a line is of, besides its source."""

    HOUR = "hour"


def account(
    by: Annotated[By | None, typer.Option(help="One line a source and hour.")] = None,
    since: Annotated[str, typer.Option(metavar="24h", help="How far back hours go.")] = "24h",
    gateway: Annotated[str | None, typer.Option(metavar="ID", help="Of one gateway.")] = None,
    sector: Annotated[str | None, typer.Option(metavar="NAME", help="Of one sector.")] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Account for every source: received = stored + duplicate + rejected + held.

    Exits with 1 if a line does not add up.
    """
    import psycopg

    from core.storage.account import Wanted

    wanted = Wanted(by is By.HOUR, _start(since), gateway=gateway, sector=sector)
    with database(data) as url, psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SET timezone = 'UTC'")
        rows = [asdict(row) | {"adds_up": row.adds_up} for row in _rows(connection, wanted)]
    if as_json:
        absent = "missing" if by else "hour"
        for row in rows:
            hour = row["hour"]
            row["hour"] = None if hour is None else hour.isoformat().replace("+00:00", "Z")
            del row[absent]
        key = "hours" if by else "sources"
        say(json.dumps({key: rows}, ensure_ascii=False, indent=2))
    else:
        _print(rows, by)
    if not all(row["adds_up"] for row in rows):
        raise typer.Exit(1)


def _start(since: str) -> datetime:
    """The full hour in which the span begins."""
    from api.fields import parse_interval

    try:
        start = datetime.now(UTC) - parse_interval(since)
    except CityError as error:
        raise invalid("--since", "must be like 90m, 24h or 7d, at most 366 days") from error
    return start.replace(minute=0, second=0, microsecond=0)


def _rows(connection: "Connection[tuple[Any, ...]]", wanted: "Wanted") -> Iterator["AccountRow"]:
    """Every line, read page by page in one snapshot."""
    from core.storage.account import NO_KEY, account, key_of

    after = NO_KEY
    while page := account(connection, wanted, after, PAGE_ROWS):
        yield from page
        after = key_of(page[-1])


def _print(rows: Sequence[dict[str, Any]], by: By | None) -> None:
    from rich.table import Table

    columns = COLUMNS[:-1] if by else COLUMNS  # nobody knows in which hour what is missing was lost
    names = ("sector", "gateway", "format")
    table = Table(*(["hour"] if by else []), *names, caption="observations, but for messages")
    for column in columns:
        table.add_column(column, justify="right")
    table.add_column("adds up")
    for row in rows:
        table.add_row(
            *([f"{row['hour']:%Y-%m-%dT%HZ}"] if by else []),
            *(row[name] for name in names),
            *(f"{row[column]:,}" for column in columns),
            "yes" if row["adds_up"] else "NO",
        )
    out = console(stderr=False)
    # As wide as its numbers need: a wrapped figure is a wrong figure.
    out.width = max(out.width, 24 + 13 * len(table.columns))
    out.print(table)
