"""`chimata export`: closed days of open and shared observations to Parquet."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.errors import invalid
from core.settings import Settings
from deploy.console import Data, Json, bar, database, say

if TYPE_CHECKING:
    from consent.gate import Gate
    from core.sector import Sector

FORM = "YYYY-MM-DD"


def export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The archive.", show_default=False)],
    sector: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default: all but personal ones.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", metavar=FORM, help="Default: the oldest day.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar=FORM, help="Exclusive; default: today.")
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Write closed days to Parquet, a file a sector and day; unchanged days are skipped."""
    import domains
    from consent import archive
    from consent.gate import Gate

    first, end = _day("--from", since), _day("--to", until)
    names = sector or [n for n in domains.names() if archive.is_exported(domains.sector(n))]
    chosen = [_sector(name) for name in names]
    with database(data) as url:
        gate = Gate(replace(Settings.from_environment(), database_url=url))
        try:
            days = [(each, day) for each in chosen for day in _days(gate, each, first, end)]
            with bar(len(days), "exporting") as step:
                found = [step(archive.export_day(gate, each, day, out)) for each, day in days]
        finally:
            gate.close()
    told = [{**asdict(each), "day": each.day.isoformat()} for each in found]
    if as_json:
        say(json.dumps({"days": told}, indent=2))
        return
    for row in told:
        if row["status"] != archive.EMPTY:
            say("{sector} {day}: {status}, {rows} rows, {bytes} bytes".format_map(row))
    if not any(each.rows for each in found):
        say("nothing to export: there is no closed day with observations")


def _days(gate: "Gate", sector: "Sector", first: date | None, end: date | None) -> Iterator[date]:
    """The closed days asked for; none before the oldest observation."""
    from consent import archive

    oldest = archive.first_day(gate, sector)
    if oldest is None:
        return
    now = datetime.now(UTC)
    day = max(first, oldest) if first else oldest
    while (end is None or day < end) and archive.is_closed(day, now):
        yield day
        day += timedelta(days=1)


def _sector(name: str) -> "Sector":
    import domains

    if name not in domains.names():
        raise invalid("--sector", f"there is no {name!r}; installed: {', '.join(domains.names())}")
    return domains.sector(name)


def _day(option: str, text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise invalid(option, f"{text!r} is not a day like 2026-01-31") from error
