"""`chimata rejections`: see what could not be taken, mend it, and take it in after all."""

import getpass
import json
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import CityError
from core.settings import Settings
from deploy.console import Data, Json, Progress, console, database, say

if TYPE_CHECKING:
    from ingest.mending import Mender, Result

app = typer.Typer(help="What could not be taken: see it, mend it, replay it.", no_args_is_help=True)

LIST_DEFAULT = 50
LIST_MAX = 10_000
SHOWN_BYTES_MAX = 2048
HISTORY_MAX = 100
STDIN_BYTES_MAX = 64 * 1024 * 1024

_COLUMNS = """id, sector, gateway, format, reason, state, count, bytes, hour, detail, item_format,
  folded, sealed, payload IS NOT NULL AND bytes > 0 AS kept"""
# ruff: noqa: S608 - the parts are constants of this file
SELECT_LIST = f"""
SELECT {_COLUMNS} FROM rejection
WHERE (%(sector)s::text IS NULL OR sector = %(sector)s)
  AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY id DESC LIMIT %(limit)s
"""
SELECT_ONE = f"""
SELECT {_COLUMNS}, channel, boot, seq, item, first_seen, last_seen, encode(sha256, 'hex') AS sha256,
  CASE WHEN NOT sealed THEN payload END AS payload
FROM rejection WHERE id = %(id)s
"""
SELECT_HISTORY = """
SELECT at, who, act, done, reason, stored, duplicate, rejected,
  encode(sha256, 'hex') AS sha256, encode(corrected_sha256, 'hex') AS corrected_sha256
FROM rejection_act WHERE rejection_id = %(id)s ORDER BY id DESC LIMIT %(limit)s
"""

Id = Annotated[int, typer.Argument(metavar="ID", show_default=False, min=1, max=2**63 - 1)]
Sector = Annotated[str | None, typer.Option(help="Of one sector.")]
Gateway = Annotated[str | None, typer.Option(metavar="ID", help="Of one gateway.")]
Reason = Annotated[str | None, typer.Option(metavar="SLUG", help="Rejected for one reason.")]


@app.command("list")
def list_(
    sector: Sector = None,
    gateway: Gateway = None,
    reason: Reason = None,
    state: Annotated[str | None, typer.Option(help="open, replayed, fixed, discarded.")] = "open",
    limit: Annotated[int, typer.Option(min=1, max=LIST_MAX)] = LIST_DEFAULT,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """List rejections, the newest first; `--state ""` lists those of every state."""
    wanted = {"sector": sector, "gateway": gateway, "reason": reason, "state": state or None}
    with database(data) as url:
        rows = _fetch(url, SELECT_LIST, {**wanted, "limit": limit})
    if as_json:
        say(_json({"rejections": rows}))
        return
    from rich.table import Table

    table = Table("id", "sector", "gateway", "format", "reason", "state", "hour", "detail")
    for name in ("count", "bytes"):
        table.add_column(name, justify="right")
    for row in rows:
        detail = (
            "many in one row" if row["folded"] else "sealed" if row["sealed"] else row["detail"]
        )
        table.add_row(
            str(row["id"]), row["sector"], row["gateway"], row["format"], row["reason"],
            row["state"], f"{row['hour']:%Y-%m-%d %H}h", _plain(detail), f"{row['count']:,}",
            f"{row['bytes']:,}",
        )  # fmt: skip
    out = console(stderr=False)
    out.width = max(out.width, 160)
    out.print(table)


@app.command()
def show(
    rejection: Id,
    as_json: Json = False,
    unseal: Annotated[
        bool, typer.Option("--unseal", help="Open a sealed one; its history keeps that you did.")
    ] = False,
    data: Data = None,
) -> None:
    """Show one rejection, its payload and what was done about it."""
    with database(data) as url:
        found = _fetch(url, SELECT_ONE, {"id": rejection})
        if not found:
            raise CityError("not-found", f"there is no rejection {rejection}")
        (row,) = found
        if unseal:
            row["detail"], row["payload"] = _mender(url, data).open_sealed(rejection, _who())
        history = _fetch(url, SELECT_HISTORY, {"id": rejection, "limit": HISTORY_MAX})
    row["payload"] = _shown(row["payload"])
    if as_json:
        say(_json({**row, "history": history}))
        return
    out = console(stderr=False)
    for name, value in row.items():
        out.print(f"{name}: {_plain(str(value))}", markup=False, highlight=False)
    for act in history:
        told = f"{act['at']:%Y-%m-%d %H:%M:%S} {act['who']}: {act['act']}"
        told += "" if act["done"] else " (in vain)"
        out.print(f"{told} {_plain(act['reason'])}", markup=False, highlight=False)


@app.command()
def replay(rejection: Id, as_json: Json = False, data: Data = None) -> None:
    """Decode a rejection's payload anew and store what it holds."""
    with database(data) as url:
        _tell(_mender(url, data).replay(rejection, _who()), as_json=as_json)


@app.command()
def fix(
    rejection: Id,
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE", show_default=False)],
    reason: Annotated[str, typer.Option(help="What was wrong with it.")],
    form: Annotated[
        str | None, typer.Option("--format", help="Format of the file, if it is another.")
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Store what a corrected payload (a file, or - for standard input) holds in its place."""
    payload = file.read(STDIN_BYTES_MAX)
    with database(data) as url:
        result = _mender(url, data).fix(rejection, _who(), reason, payload, form)
        _tell(result, as_json=as_json)


@app.command()
def discard(
    rejection: Id,
    reason: Annotated[str, typer.Option(help="Why it is given up.")],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Give a rejection up: its payload is let go; hash, count and reasons stay."""
    with database(data) as url:
        _tell(_mender(url, data).discard(rejection, _who(), reason), as_json=as_json)


@app.command()
def redecode(
    sector: Annotated[str, typer.Option(help="Whose rejections.")],
    reason: Reason = None,
    gateway: Gateway = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Replay all that is open, after a decoder was mended; may be ended and run again."""
    totals = {"taken": 0, "still_rejected": 0, "stored": 0, "duplicate": 0, "rejected": 0}
    with database(data) as url, Progress() as report:
        for page in _mender(url, data).redecode(sector, _who(), reason, gateway):
            totals["taken"] += sum(result.done for result in page)
            totals["still_rejected"] += sum(not result.done for result in page)
            for name in ("stored", "duplicate", "rejected"):
                totals[name] += sum(getattr(result, name) for result in page)
            report(f"{totals['taken']} taken, {totals['still_rejected']} still rejected")
    if as_json:
        say(_json(totals))
        return
    say(
        f"taken {totals['taken']} ({totals['stored']} stored, {totals['duplicate']} duplicate, "
        f"{totals['rejected']} rejected), still rejected {totals['still_rejected']}"
    )


@app.command()
def key(data: Data = None) -> None:
    """Print the public key for CHIMATA_SEAL_PUBLIC_KEY of ingestors on other machines."""
    from core import seal

    private = seal.load_private_key(_settings(data).data / "keys")
    say(seal.public_text(private.public_key()))


def _settings(data: Path | None) -> Settings:
    settings = Settings.from_environment()
    return replace(settings, data=(data or settings.data).resolve())


def _mender(url: str, data: Path | None) -> "Mender":
    """With the key that opens sealed rejections, on the machine that has it."""
    from core import seal
    from ingest.mending import Mender

    settings = replace(_settings(data), database_url=url)
    folder = settings.data / "keys"
    return Mender(
        settings, seal.load_private_key(folder) if (folder / seal.FILE).exists() else None
    )


def _who() -> str:
    """Whoever runs the command: acting needs the database's owner anyway."""
    try:
        return f"command {getpass.getuser()}"
    except (KeyError, OSError):
        return "command"


def _fetch(url: str, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(url) as connection, connection.cursor(row_factory=dict_row) as cursor:
        connection.execute("SET timezone = 'UTC'")
        return cursor.execute(query.encode(), values).fetchall()


def _tell(result: "Result", *, as_json: bool) -> None:
    if as_json:
        say(_json(asdict(result)))
        return
    say(
        f"rejection {result.id} is {result.state}: {result.stored} stored, "
        f"{result.duplicate} duplicate, {result.rejected} rejected"
    )


def _shown(payload: bytes | None) -> str | None:
    """The beginning of a payload as text, other bytes escaped: a terminal obeys control codes."""
    if payload is None:
        return None
    head = bytes(payload[:SHOWN_BYTES_MAX]).decode("utf-8", "backslashreplace")
    return _plain(head) + (f" ... ({len(payload)} bytes)" if len(payload) > SHOWN_BYTES_MAX else "")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _json(body: Any) -> str:
    return json.dumps(body, ensure_ascii=False, indent=2, default=_jsonable)


def _jsonable(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
