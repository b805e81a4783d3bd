"""`chimata feeds`: the feeds of the catalogue, registered and polled."""

import getpass
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import CityError, invalid
from core.settings import Settings
from core.tokens import NAME
from deploy.console import Data, Json, console, database, say

if TYPE_CHECKING:
    from core.storage.pool import Session

app = typer.Typer(help="Feeds of the catalogue: register them, see how fresh they are, poll them.")

POLL_SECONDS = {"gtfs": 86_400, "gtfs-rt": 20, "gbfs": 60}
POLL_SECONDS_MIN, POLL_SECONDS_MAX = 5, 604_800
SHARINGS = ("collaborative", "competitive")
KEY_BYTES_MAX = 4096

SELECT_FEEDS = """
SELECT f.id, f.kind, f.title, f.url, f.licence, f.sharing, f.static_feed, f.poll_seconds,
  greatest(f.checked_at, h.last_seen) AS heard_at, f.changed_at, f.error, count(v) AS versions
FROM mobility.feed f
LEFT JOIN gateway_heard h ON h.gateway = f.id
LEFT JOIN mobility.feed_version v ON v.feed = f.id
GROUP BY f.id, h.last_seen ORDER BY f.id
"""
UPSERT_FEED = """
INSERT INTO mobility.feed
  (id, kind, title, url, licence, attribution, sharing, static_feed, poll_seconds)
VALUES (%(id)s, %(kind)s, %(title)s, %(url)s, %(licence)s, %(attribution)s, %(sharing)s,
  %(static_feed)s, %(poll_seconds)s)
ON CONFLICT (id) DO UPDATE SET title = excluded.title, url = excluded.url,
  licence = excluded.licence, attribution = excluded.attribution, sharing = excluded.sharing,
  static_feed = excluded.static_feed, poll_seconds = excluded.poll_seconds,
  etag = NULL, last_modified = NULL, error = NULL
WHERE mobility.feed.kind = excluded.kind
"""
SELECT_STATIC = "SELECT EXISTS (SELECT FROM mobility.feed WHERE id = %(id)s AND kind = 'gtfs')"
DELETE_VERSIONS = "DELETE FROM mobility.feed_version WHERE feed = %(id)s"
DELETE_FEED = "DELETE FROM mobility.feed WHERE id = %(id)s"


@app.callback(invoke_without_command=True)
def feeds(context: typer.Context, as_json: Json = False, data: Data = None) -> None:
    """List every feed, and when it was heard last."""
    if context.invoked_subcommand is not None:
        return
    from psycopg.rows import dict_row

    with database(data) as url, _session(url) as session:
        rows = session.cursor(row_factory=dict_row).execute(SELECT_FEEDS).fetchall()
    if as_json:
        say(json.dumps({"feeds": rows}, ensure_ascii=False, indent=2, default=str))
        return
    from rich.table import Table

    table = Table("id", "kind", "title", "licence", "sharing", "heard", "versions", "error")
    for row in rows:
        cells = ("id", "kind", "title", "licence", "sharing", "heard_at", "versions", "error")
        table.add_row(*("" if row[cell] is None else str(row[cell]) for cell in cells))
    console(stderr=False).print(table)


@app.command()
def add(
    feed: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    kind: Annotated[str, typer.Option(help=", ".join(POLL_SECONDS), show_default=False)],
    title: Annotated[str, typer.Option(help="What people call it.", show_default=False)],
    url: Annotated[
        str | None, typer.Option(help="Polled from here; {key} stands for its key.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX id, or where its terms are.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name.")] = None,
    sharing: Annotated[str, typer.Option(help=", ".join(SHARINGS))] = SHARINGS[0],
    static: Annotated[
        str | None, typer.Option(metavar="ID", help="The timetable that a gtfs-rt feed is about.")
    ] = None,
    every: Annotated[int | None, typer.Option(metavar="SECONDS", help="Between polls.")] = None,
    key: Annotated[bool, typer.Option("--key", help="Ask for the key of its URL.")] = False,
    data: Data = None,
) -> None:
    """Register a feed, or change what is known of it; its id is also its gateway's."""
    from gateways.polling import KEY, check_url

    if not NAME.fullmatch(feed):
        raise invalid("ID", "of a-z, 0-9, - and _, beginning with a letter or digit, at most 64")
    if kind not in POLL_SECONDS:
        raise invalid("--kind", f"{kind!r} is none of {', '.join(POLL_SECONDS)}")
    if sharing not in SHARINGS:
        raise invalid("--sharing", f"{sharing!r} is none of {', '.join(SHARINGS)}")
    if static is not None and kind != "gtfs-rt":
        raise invalid("--static", "only a gtfs-rt feed is about a timetable")
    if every is not None and not POLL_SECONDS_MIN <= every <= POLL_SECONDS_MAX:
        raise invalid("--every", f"{POLL_SECONDS_MIN} to {POLL_SECONDS_MAX:,} seconds")
    if url is not None:
        check_url(url)
    if key != (KEY in (url or "")):
        raise invalid("--key", "goes with a URL that has {key} in it")
    given = {
        "id": feed, "kind": kind, "title": title, "url": url, "licence": licence,
        "attribution": attribution, "sharing": sharing, "static_feed": static,
        "poll_seconds": (every or POLL_SECONDS[kind]) if url else None,
    }  # fmt: skip
    with database(data, create=True) as database_url, _session(database_url) as session:
        if static is not None and not _one(session, SELECT_STATIC, static):
            raise invalid("--static", f"there is no gtfs feed {static!r}")
        if not session.execute(UPSERT_FEED, given).rowcount:
            raise CityError("conflict", f"the feed {feed!r} is of another kind")
        session.commit()
    if key:
        from deploy.polling import key_file

        _keep_key(key_file(_folder(data), feed))
    say(f"{feed} is registered")


@app.command()
def remove(
    feed: Annotated[str, typer.Argument(metavar="ID", show_default=False)], data: Data = None
) -> None:
    """Forget a feed, its timetables and its key; what was observed stays as long as it would."""
    import psycopg

    from deploy.polling import key_file

    with database(data) as url, _session(url) as session:
        session.execute(DELETE_VERSIONS, {"id": feed})
        try:
            gone = session.execute(DELETE_FEED, {"id": feed}).rowcount
        except psycopg.errors.ForeignKeyViolation as error:
            raise CityError("conflict", f"another feed tells news of {feed!r}") from error
        if not gone:
            raise CityError("not-found", f"there is no feed {feed!r}")
        session.commit()
    key_file(_folder(data), feed).unlink(missing_ok=True)
    say(f"{feed} is removed")


@app.command()
def poll(
    only: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="Default: all.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Each now, then end.")] = False,
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="The platform; default: this machine's.")
    ] = None,
    data: Data = None,
) -> None:
    """Fetch feeds when they are due: `chimata up` does so by itself.

    With --once, exits 1 when one of them failed; each says what came of it.
    """
    import threading

    from deploy.polling import Poller

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = Settings.from_environment()
    with database(data) as url:
        poller = Poller(url, _folder(data), to or f"http://{settings.http}", settings.audience, say)
        failed = poller.run(stop, only=only, once=once)
    if once and failed:
        sys.exit(1)


def _folder(data: Path | None) -> Path:
    return (data or Settings.from_environment().data).resolve()


def _keep_key(path: Path) -> None:
    told = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline(KEY_BYTES_MAX)
    if not told.strip():
        raise invalid("--key", "there is none on standard input")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(told.strip())


def _session(url: str) -> "Session":
    from core.storage.pool import DatabaseRole, open_session

    return open_session(url, DatabaseRole.INGEST)


def _one(session: "Session", query: str, feed: str) -> Any:
    row = session.execute(query.encode(), {"id": feed}).fetchone()
    return row[0] if row else None
