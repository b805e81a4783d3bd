"""Everything on one machine: `chimata up` starts, watches and ends the whole platform.

DATA/                 the data folder
  keys/               the machine's own token issuer (core.tokens)
  postgres/           embedded PostgreSQL (deploy.postgres)
  broker/             embedded MQTT broker (deploy.broker)
  run/                where the children stand; their logs
  lock                held while `chimata up` runs
"""

import fcntl
import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import domains
from consent.decide import handled_by_class
from core.errors import CityError, invalid
from core.settings import PREFIX, Settings
from core.tokens import Verifier, load_keys
from deploy import broker, child, disk, postgres, supervise

if TYPE_CHECKING:
    from psycopg import Connection

READY_SECONDS_MAX = 120.0
TICK_SECONDS = 0.1
ROOT = Path(__file__).parents[1]
PORT_MAX = 65535

Report = Callable[[str], None]


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP came while the platform was starting."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `chimata up` was asked for; `http` and `mqtt` are host:port, port 0 takes a free one."""

    data: Path
    http: str = "127.0.0.1:8000"
    mqtt: str = "127.0.0.1:1883"
    demo: bool = False
    database: str = ""
    """A PostgreSQL to use in place of the embedded one, as a libpq URL."""


def up(options: Options, settings: Settings, report: Report, ready: Report) -> None:
    """Run the platform until a signal asks for its end; then everything it started is ended.

    `report` gets lines of progress, `ready` the URL once it serves. CityError when it cannot.
    """
    asked_to_end = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_end
        asked_to_end = True

    def go_on(line: str = "") -> None:
        if line:
            report(line)
        if asked_to_end:
            raise Interrupted

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    city = City(options, settings, go_on)
    try:
        city.start()
        ready(city.url)
        while not asked_to_end:
            city.supervisor.tick()
            city.keep()
            time.sleep(TICK_SECONDS)
    except Interrupted:
        pass
    finally:
        city.report = report
        city.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class City:
    """The parts of one machine's platform, in the order in which they start."""

    def __init__(self, options: Options, settings: Settings, report: Report) -> None:
        self.report = report
        self._options = options
        self._settings = settings
        self._data = options.data.resolve()
        self._http = resolve_address(options.http, "--http")
        self._mqtt = resolve_address(options.mqtt, "--mqtt")
        self._lock = -1
        self._database: postgres.Server | None = None
        self._broker: broker.NatsBroker | None = None
        self._children: list[supervise.PythonPart] = []
        parts = ("postgres", "broker")
        self._room = disk.Room([self._data, *(self._data / part for part in parts)], self.tell)
        self.supervisor = supervise.Supervisor(self.tell, self._room.is_full)

    @property
    def url(self) -> str:
        """Where people open the dashboard."""
        host, port = self._http
        if host in ("0.0.0.0", "::"):  # noqa: S104 - shown, not bound
            host = "127.0.0.1"
        return f"http://{_joined(host, port)}"

    def tell(self, line: str) -> None:
        """Report by whatever `report` is now: while the city runs it may raise Interrupted."""
        self.report(line)

    def start(self) -> None:
        """Start every part; returns once the API answers and the ingestor's session exists."""
        self._take_folder()
        for address, option in ((self._http, "--http"), (self._mqtt, "--mqtt")):
            check_free(address, option)
        self._wait_for_room()
        keys = load_keys(self._data / "keys", create=True)
        database_url = self._options.database or self._start_database()
        _bring_up_to_date(database_url, self.report)
        self.report("starting the MQTT broker")
        self._broker = broker.NatsBroker(
            self._data / "broker",
            _joined(*self._mqtt),
            verifier(keys.signing, self._settings).verify,
            readable=readable_sectors(),
            payload_bytes_max=self._settings.body_bytes_max,
            report=self.tell,
        )
        self._broker.launch()
        self._watch(_Named("the MQTT broker", self._broker))
        self.report("starting the ingestor and the API")
        environment = self._environment(database_url, self._broker)
        ingestor = self._launch("ingest-mqtt", environment, "ingest", "mqtt")
        if self._settings.kafka_bootstrap:
            self._launch("ingest-kafka", environment, "ingest", "kafka")
        api = self._launch("serve", environment, "serve")
        self._wait(ingestor, ingestor.is_ready)
        self._wait(api, self._answers)
        self._launch("feeds", environment, "feeds", "poll")
        if self._options.demo:
            self.report("starting the demo city")
            self._launch("demo", environment, "demo")

    def keep(self) -> None:
        """What has to be seen to from time to time."""
        if self._database is not None:
            self._database.keep_reachable()
        self._room.look()

    def stop(self) -> None:
        """End everything that was started, the last first; nothing is left running."""
        self.report("ending")
        for part in reversed(self._children):
            part.ask_to_end()
        for part in reversed(self._children):
            part.stop()
        if self._broker is not None:
            self._broker.stop()
        if self._database is not None:
            self._database.stop()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_folder(self) -> None:
        """Make and lock the data folder, and end the children of a killed start."""
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        run = self._data / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        self._lock = lock_folder(self._data)
        child.end_all(
            lambda: child.standing_in(run),
            ((signal.SIGTERM, supervise.STOP_SECONDS_MAX),),
            self.report,
        )

    def _start_database(self) -> str:
        self.report("starting PostgreSQL")
        self._database = postgres.start(self._data / "postgres", report=self.tell)
        self._watch(_Named("PostgreSQL", self._database))
        return self._database.url

    def _wait_for_room(self) -> None:
        """Nothing can start on a full disk: who clears it need not start us again."""
        while self._room.is_full():
            self._room.look()
            self.report("")
            time.sleep(TICK_SECONDS)

    def _environment(self, url: str, mqtt: broker.NatsBroker) -> dict[str, str]:
        """The children's environment: our CHIMATA_* settings, and what this machine decided."""
        tuned = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
        archive = self._settings.archive and Path(self._settings.archive).resolve()
        decided = {
            "CHIMATA_DATABASE_URL": url,
            "CHIMATA_DATA": str(self._data),
            "CHIMATA_HTTP": _joined(*self._http),
            **({"CHIMATA_ARCHIVE": str(archive)} if archive else {}),
            # The children stand in DATA/run: an uninstalled tree is found from anywhere.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
            # Decoders and COPY gain nothing from a pool of threads each, and memory is counted.
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        return child.environment({**tuned, **decided, **mqtt.settings})

    def _launch(self, name: str, env: dict[str, str], *arguments: str) -> supervise.PythonPart:
        part = supervise.PythonPart(
            name, "deploy.cli", ["--end-with-parent", *arguments], env, self._data / "run"
        )
        self._children.append(part)
        part.launch()
        self._watch(part)
        return part

    def _watch(self, part: supervise.Part) -> None:
        self.supervisor.watch(part)

    def _wait(self, part: supervise.PythonPart, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not condition():
            if not part.is_alive() and not part.was_killed():
                raise CityError("unavailable", f"{part.name} did not start: {part.why()}")
            if time.monotonic() > deadline:
                raise CityError(
                    "unavailable",
                    f"{part.name} is not ready after {READY_SECONDS_MAX:.0f} s: see {part.log}",
                )
            self.supervisor.tick()  # what it waits for may itself have to be started again
            self.keep()
            self.report("")
            time.sleep(0.05)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(*self._http, timeout=2.0)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()


@dataclass(slots=True)
class _Named:
    """A server under the name that people know it by."""

    name: str
    server: Any

    def launch(self) -> None:
        """Start it again."""
        self.server.launch()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return bool(self.server.is_alive())


@contextmanager
def database(
    settings: Settings, data: Path | None, report: Report, *, create: bool = False
) -> Iterator[str]:
    """URL of the database that a command works on, for the length of a block.

    CHIMATA_DATABASE_URL where it is set and no folder was named; else that of the folder: the
    running one, or a server started for the moment. `create` makes what is not there yet;
    without it that is CityError `not-found`.
    """
    if settings.database_url and data is None:
        yield settings.database_url
        return
    folder = (data or settings.data).resolve()
    if not create and not (folder / "postgres" / "cluster").is_dir():
        raise CityError("not-found", f"{folder} holds no database: run `chimata up --data` first")
    running = postgres.running_url(folder / "postgres")
    if running is not None:
        yield running
        return
    report("starting PostgreSQL for this command")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = postgres.start(folder / "postgres", report=report)
    try:
        if create:
            _bring_up_to_date(server.url, report)
        yield server.url
    finally:
        server.stop()


def _bring_up_to_date(url: str, report: Report) -> None:
    from core.storage.migrate import migrate

    report("bringing the database up to date")
    migrate(url)


DECLARE_OPEN = """
INSERT INTO gateway (id, data_class) SELECT unnest(%(ids)s::text[]), 'open'
ON CONFLICT (id) DO UPDATE SET data_class = excluded.data_class
"""


def declare_open(connection: "Connection[tuple[Any, ...]]", gateways: Iterable[str]) -> None:
    """Declare what these gateways send open data: the demo's invented city is nobody's."""
    connection.execute(DECLARE_OPEN, {"ids": list(gateways)})


def without_user(url: str) -> str:
    """The URL of a broker without the ingestor's user and secret."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def verifier(own: Any, settings: Settings) -> Verifier:
    """Checks tokens of this machine and of the outside issuer in the settings."""

    def fetch() -> dict[str, Any]:
        from api.auth import fetch_jwks

        return fetch_jwks(settings.oidc_jwks_url)

    return Verifier(
        own,
        audience=settings.audience,
        outside_issuer=settings.oidc_issuer,
        fetch=fetch if settings.oidc_jwks_url else None,
    )


def readable_sectors() -> tuple[str, ...]:
    """Sectors whose raw messages an operator may follow on the broker: none of them personal."""
    return tuple(name for name in domains.names() if handled_by_class(domains.sector(name).classes))


def lock_folder(data: Path) -> int:
    """Hold the data folder for this process; CityError `conflict` when another one does."""
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise CityError("conflict", f"`chimata up` is running on {data} already") from error
    return handle


def resolve_address(text: str, option: str) -> tuple[str, int]:
    """host:port as a pair, [::1]:port too; port 0 becomes a free one. CityError `invalid`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise invalid(option, f"{text!r} is not HOST:PORT")
    return host, int(port) or broker.free_port(host)


def check_free(address: tuple[str, int], option: str) -> None:
    """CityError `conflict`, with what to do, when something listens there already."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            told = (error.strerror or str(error)).lower()
            raise CityError(
                "conflict", f"{_joined(host, port)}: {told}; name another with {option} HOST:PORT"
            ) from error


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
