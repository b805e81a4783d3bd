"""`chimata`, the command: the whole platform on one machine, or its parts one by one."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from core.errors import CityError, invalid
from core.settings import Settings
from core.tokens import LIFETIME_SECONDS, Role, check_name
from deploy import archive, feeds, gateways, imports, rejections
from deploy.account import account
from deploy.console import Data, Json, Progress, console, database, say
from deploy.soak.command import soak

app = typer.Typer(
    name="chimata",
    help="巷 Chimata: an open data platform for a whole city.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
ingest_app = typer.Typer(help="Take observations from a broker.", no_args_is_help=True)
gateway_app = typer.Typer(help="What runs at the edge.", no_args_is_help=True)
token_app = typer.Typer(help="Bearer tokens of this machine's issuer.", no_args_is_help=True)
fields_app = typer.Typer(help="Fields of the farms sector.", no_args_is_help=True)
app.command()(account)
app.add_typer(gateways.app, name="gateways")
app.add_typer(ingest_app, name="ingest")
app.add_typer(gateway_app, name="gateway")
app.add_typer(token_app, name="token")
app.add_typer(rejections.app, name="rejections")
app.add_typer(feeds.app, name="feeds")
app.add_typer(fields_app, name="fields")
app.command("export")(archive.export)
app.command("import")(imports.run)
app.command()(soak)

FIELDS_GATEWAY = "fields-import"
"""Whose declaration of a data class holds for imported fields."""


def main() -> None:
    """Run the command; a deliberate error is one line on standard error and exit code 1."""
    if "up" in sys.argv[1:2]:
        # Until deploy.local takes over nothing is started: to end now is a clean end as well.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
    try:
        app()
    except CityError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except Exception as error:
        # Only a database that cannot be reached is expected here; the rest is a fault of ours.
        if type(error).__module__.partition(".")[0] not in {"psycopg", "psycopg_pool"}:
            raise
        _fail(f"database: {str(error).strip().splitlines()[0]}")


def _fail(line: str) -> None:
    sys.stderr.write("chimata: " + " ".join(line.split()) + "\n")
    sys.exit(1)


@app.callback()
def _root(
    end_with_parent: Annotated[bool, typer.Option("--end-with-parent", hidden=True)] = False,
) -> None:
    if end_with_parent:
        from deploy import supervise

        supervise.end_with_parent()


@app.command()
def up(
    data: Data = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="API and dashboard; default 127.0.0.1:8000."),
    ] = None,
    mqtt: Annotated[str, typer.Option(metavar="HOST:PORT", help="MQTT broker.")] = "127.0.0.1:1883",
    demo: Annotated[bool, typer.Option("--demo", help="Also run a simulated port city.")] = False,
    database: Annotated[
        str, typer.Option(metavar="URL", help="A PostgreSQL of yours in place of the embedded one.")
    ] = "",
) -> None:
    """Run the whole platform on this machine until Ctrl-C; prints `ready URL` once it serves."""
    # Until the city listens for it: Python's own exception could be lost inside an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from deploy import local

    settings = Settings.from_environment()
    options = local.Options(data or settings.data, http or settings.http, mqtt, demo, database)
    with Progress() as report:

        def ready(url: str) -> None:
            report.finish()
            say(f"ready {url}")

        local.up(options, settings, report, ready)


@app.command()
def migrate(data: Data = None) -> None:
    """Bring the database up to date."""
    from core.storage.migrate import migrate as apply

    with database(data) as url:
        applied = apply(url)
    for name in applied:
        say(f"applied {name}")
    if not applied:
        say("the database is up to date")


@app.command()
def serve(
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = None,
) -> None:
    """Serve the API and the dashboard for CHIMATA_DATABASE_URL, or over all of CHIMATA_CELLS."""
    import uvicorn

    from api import cells
    from api.app import create_app
    from deploy import local
    from ingest import http as ingest_http
    from ingest import rejections as mending

    _log_to_stderr()
    settings = Settings.from_environment()
    host, port = local.resolve_address(http or settings.http, "--http")
    local.check_free((host, port), "--http")
    app: Any = None
    if settings.cells:
        app = cells.create(settings)
    uvicorn.run(
        app or create_app(settings, [ingest_http.router(settings), mending.router(settings)]),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,  # live streams never end by themselves
    )


@ingest_app.command("mqtt")
def ingest_mqtt(
    instance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="One of several: its name, the same at every start.",
            show_default=False,
        ),
    ] = None,
    leave: Annotated[
        bool, typer.Option("--leave", help="Take what waits for this instance, and end it.")
    ] = False,
) -> None:  # fmt: skip
    """Take observations from CHIMATA_MQTT_URL into CHIMATA_DATABASE_URL."""
    from ingest import leaving, mqtt

    settings = Settings.from_environment()
    if instance is not None:
        name = f"{settings.mqtt_client_id}-{check_name('--instance', instance)}"
        settings = replace(settings, mqtt_client_id=name)
    if not leave:
        _run_ingestor(mqtt.run, settings)
        return
    _log_to_stderr()
    had_session = leaving.run(settings)
    name = settings.mqtt_client_id
    say(f"{name} has left" if had_session else f"there was no session of {name}")


@ingest_app.command("kafka")
def ingest_kafka() -> None:
    """Take observations from CHIMATA_KAFKA_BOOTSTRAP into CHIMATA_DATABASE_URL."""
    from ingest import kafka

    _run_ingestor(kafka.run, Settings.from_environment())


def _run_ingestor(run: Any, settings: Settings) -> None:
    """`ready` on standard output once messages are taken: `chimata up` waits for it."""
    _log_to_stderr()
    run(settings, lambda: say("ready"))


def _log_to_stderr() -> None:
    import logging

    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    for chatty in ("httpx", "kafka", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


@app.command(hidden=True)
def demo() -> None:
    """Run the demo city's gateways against CHIMATA_MQTT_URL: a part of `up --demo`."""
    import multiprocessing
    import threading

    import psycopg

    from core import tokens
    from deploy import demo as city
    from deploy import local
    from gateways.demo import GATEWAYS, run

    _log_to_stderr()
    settings = Settings.from_environment()
    keys = tokens.load_keys(settings.data / "keys")
    issued = {
        name: tokens.issue(keys, Role.GATEWAY, gateway=name, audience=settings.audience)
        for name in GATEWAYS
    }
    with psycopg.connect(settings.database_url) as connection:
        local.declare_open(connection, GATEWAYS)
    # In a process of its own: what reads a timetable takes memory that is never given back.
    child = multiprocessing.get_context("spawn").Process(
        target=city.register, args=(settings.database_url,)
    )
    child.start()
    child.join()
    if child.exitcode:
        raise CityError("unavailable", "the demo's timetable was not imported: see its log")
    for told in (city.consent, city.nodes):
        told(f"http://{settings.http}", keys, settings.audience)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run(local.without_user(settings.mqtt_url), issued, stop)


@gateway_app.command("replay")
def gateway_replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)],
    sector: Annotated[str, typer.Option(help="signals, edge, ports, farms ...")],
    file_format: Annotated[str, typer.Option("--format", help="Format of the files.")],
    to: Annotated[str, typer.Option(metavar="URL", help="mqtt://, kafka:// or http://")],
    gateway: Annotated[str, typer.Option(metavar="ID", help="Whose batches these are.")] = "replay",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="CHIMATA_TOKEN",
            help="The gateway's token; default: one of this machine's own issuer (--data).",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[str, typer.Option(help="real, max or messages a second.")] = "max",
    start: Annotated[
        str, typer.Option(help="Where to put its times: recorded, now or ISO 8601.")
    ] = "recorded",
    timeout: Annotated[float, typer.Option(help="Seconds to go on without any receipt.")] = 300.0,
    data: Data = None,
) -> None:
    """Send a recording through the outbox; exits 0 once every batch has its receipt.

    A refusal is a receipt too: it is final, and is told on standard error.
    """
    from gateways.replay import replay

    with console().status(f"sending to {to}") as status:

        def show(so_far: Any) -> None:
            waiting = f", waiting: {so_far.waiting_for}" if so_far.waiting_for else ""
            status.update(
                f"sent {so_far.sent} received {so_far.received} refused {so_far.refused}{waiting}"
            )

        result = replay(
            sector=sector,
            format=file_format,
            files=files,
            to=to,
            gateway=gateway,
            token=token or _issue(Role.GATEWAY, gateway, None, data, 24 * 3600, create=False),
            rate=rate,
            start=start,
            timeout_seconds=timeout,
            progress=show,
        )
    say(str(result))
    for refusal in result.refusals:
        sys.stderr.write(
            f"refused {refusal.boot}/{refusal.seq}: {refusal.reason}: {refusal.detail}\n"
        )


@token_app.command("issue")
def token_issue(
    role: Annotated[Role, typer.Option(help="Who the token speaks for.")],
    gateway: Annotated[str | None, typer.Option(metavar="ID", help="Of a gateway's token.")] = None,
    subject: Annotated[str | None, typer.Option(metavar="ID", help="Whom it is about.")] = None,
    override: Annotated[UUID | None, typer.Option(help="Of a responder: which override.")] = None,
    days: Annotated[float, typer.Option(help="How long it holds.")] = LIFETIME_SECONDS / 86400,
    data: Data = None,
) -> None:
    """Print a bearer token, alone, on standard output."""
    seconds = int(days * 86400)
    say(_issue(role, gateway, subject, data, seconds, create=True, override=override))


def _issue(
    role: Role, gateway: str | None, subject: str | None, data: Path | None, seconds: int,
    *, create: bool, override: UUID | None = None,
) -> str:  # fmt: skip
    from core import tokens

    settings = Settings.from_environment()
    folder = (data or settings.data).resolve()
    if seconds <= 0:
        raise invalid("--days", "must be above 0")
    if create and not folder.is_dir():
        raise CityError("not-found", f"there is no data folder {folder}; `chimata up` makes it")
    keys = tokens.load_keys(folder / "keys", create=create)
    return tokens.issue(
        keys, role, gateway=gateway, subject=subject, override=override,
        lifetime_seconds=seconds, audience=settings.audience,
    )  # fmt: skip


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What the API answered, or - for standard input.")],
    key: Annotated[str, typer.Option(help="The platform's public key, as it published it.")],
    tsa: Annotated[
        Path | None, typer.Option(help="PEM certificates of the timestamping authority.")
    ] = None,
    kept: Annotated[Path | None, typer.Option(help="A checkpoint that you kept.")] = None,
) -> None:
    """Check offline: receipts, a proof between checkpoints, a record of consent, a download."""
    import zipfile

    from consent import checks, download, receipts, timestamps

    if str(file) != "-" and zipfile.is_zipfile(file):
        for held in download.check(file, receipts.public_key(key)):
            say(held)
        return
    text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    known = checks.Known(
        receipts.public_key(key),
        timestamps.load_certificates(tsa) if tsa else (),
        kept.read_text("utf-8") if kept else None,
    )
    for held in checks.check(text, known):
        say(held)


@app.command()
def sectors(as_json: Json = False) -> None:
    """List the installed sectors."""
    import domains
    from core.sector import all_formats

    declared = [domains.sector(name) for name in domains.names()]
    if as_json:
        rows = [
            {
                "name": sector.name,
                "title": {"ja": sector.title_ja, "en": sector.title_en},
                "data_class": sector.data_class.value,
                "formats": list(all_formats(sector)),
                "properties": [prop.name for prop in sector.properties],
            }
            for sector in declared
        ]
        say(json.dumps({"sectors": rows}, ensure_ascii=False, indent=2))
        return
    from rich.table import Table

    table = Table("sector", "", "title", "data class", "formats", "observed properties")
    for sector in declared:
        table.add_row(
            sector.name, sector.title_ja, sector.title_en, sector.data_class.value,
            " ".join(all_formats(sector)), " ".join(prop.name for prop in sector.properties),
        )  # fmt: skip
    out = console(stderr=False)
    # As wide as its numbers need: a wrapped figure is a wrong figure.
    out.width = max(out.width, 24 + 13 * len(table.columns))
    out.print(table)


@app.command()
def doctor(data: Data = None) -> None:
    """Say what is wrong with this machine's set-up, and how to mend it."""
    from deploy import doctor as examine

    settings = Settings.from_environment()
    settings = replace(settings, data=data or settings.data)
    out = console(stderr=False)
    marks = {True: "[green]ok[/]  ", False: "[red]bad[/] "}
    bad = 0
    for finding in examine.findings(settings):
        out.print(f"{marks[finding.good]} {finding.name}: ", end="")
        out.print(finding.told, markup=False, highlight=False)
        if not finding.good:
            bad += 1
            out.print(f"     mend it: {finding.mend}", markup=False, highlight=False)
    if bad:
        raise typer.Exit(1)


@fields_app.command("import")
def fields_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)], data: Data = None
) -> None:
    """Read fields as polygons (GeoJSON, GeoPackage, Shapefile) into the farms sector."""
    import psycopg

    import domains
    from core.storage.catalogue import Catalogue
    from domains.farms import fields

    updates = list(fields.read(file))
    with database(data) as url, psycopg.connect(url) as connection:
        Catalogue(domains.sector("farms")).describe(
            connection, ((update, FIELDS_GATEWAY) for update in updates)
        )
    say(f"imported {len(updates)} fields")


if __name__ == "__main__":
    main()
