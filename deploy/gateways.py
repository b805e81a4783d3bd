"""`chimata gateways`: what each gateway sent, how its clock is, and which sequences never came."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import CityError
from deploy.console import Data, Json, console, database, say

if TYPE_CHECKING:
    from psycopg import Connection

    from core.storage.clocks import Clock
    from core.storage.gateways import Gateway

PAGE_ROWS = 1_000

app = typer.Typer(help="Gateways: what they sent, their clocks, their gaps.")


@app.callback(invoke_without_command=True)
def gateways(context: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """List every gateway that was declared or heard."""
    if context.invoked_subcommand is not None:
        return
    from core.storage.gateways import gateways as read

    listed: list[Gateway] = []
    with _snapshot(data) as connection:
        while page := read(connection, listed[-1].id if listed else "", PAGE_ROWS):
            listed += page
    if as_json:
        rows = [asdict(each) for each in listed]
        say(json.dumps({"gateways": rows}, ensure_ascii=False, indent=2, default=_text))
    else:
        _print(listed)


@app.command()
def gaps(
    gateway: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """List the sequences of a gateway that never came, newest boots first."""
    from core.storage import gateways as storage

    found: list[storage.Gap] = []
    with _snapshot(data) as connection:
        if not storage.is_known(connection, gateway):
            raise CityError("not-found", f"there is no gateway {gateway!r}")
        place: storage.Place | None = storage.BEGINNING
        while place is not None:
            page, place = storage.gaps(connection, gateway, place)
            found += page
    if as_json:
        rows = [{**asdict(gap), "count": gap.count} for gap in found]
        say(json.dumps({"gateway": gateway, "gaps": rows}, indent=2))
        return
    for gap in found:
        say(f"{gap.boot}/{gap.first}..{gap.last}: {gap.count:,}")
    if not found:
        say(f"nothing of {gateway} is missing")


@contextmanager
def _snapshot(data: Path | None) -> "Iterator[Connection[tuple[Any, ...]]]":
    import psycopg

    with database(data) as url, psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SET timezone = 'UTC'")
        yield connection


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{value!r} has no JSON form")


def _print(listed: "list[Gateway]") -> None:
    from rich.table import Table

    table = Table("gateway", "sectors", "last seen", "data class")
    for column in ("messages, last hour", "this hour", "boots", "missing", "rejected"):
        table.add_column(column, justify="right")
    table.add_column("clock")
    for each in listed:
        table.add_row(
            each.id,
            " ".join(each.sectors),
            f"{each.last_seen:%Y-%m-%d %H:%M:%SZ}" if each.last_seen else "never",
            each.data_class or "",
            f"{each.messages_last_hour:,}",
            f"{each.messages_this_hour:,}",
            f"{each.boots:,}",
            f"{each.missing:,}",
            f"{each.rejected:,}",
            _clock(each.clock),
        )
    out = console(stderr=False)
    # As wide as its numbers need: a wrapped figure is a wrong figure.
    out.width = max(out.width, 24 + 13 * len(table.columns))
    out.print(table)


def _clock(clock: "Clock") -> str:
    if clock.skew_seconds is None:
        return clock.state.value
    return f"{clock.state.value} {clock.skew_seconds:+.1f} s ±{clock.uncertainty_seconds:.1f}"
