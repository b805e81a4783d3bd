"""One gateway of a soak, as its own process: the real outbox and sender, and loose messages.

`python -m deploy.soak.gateway SPEC`: until SIGTERM, then until all has its receipt. It may be
killed at any moment: the outbox is on disk, and how far it has come is in its journal.
"""

import json
import logging
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from core.errors import CityError
from deploy import supervise
from deploy.soak.load import BLOCK, SECTOR, Load
from gateways.delivery import Delivery, Window
from gateways.outbox import Outbox
from gateways.push import sender

log = logging.getLogger("chimata.soak")

WAIT_SECONDS = 0.02
TOLD_SECONDS = 0.5
BEHIND_SECONDS_MAX = 2.0
"""A gateway that was held up does not hurry to catch up with more than this."""
OUTBOX_BYTES_MAX = 64 * 1024 * 1024
WINDOW = Window(batches_max=100, receipt_seconds=5.0, receipt_seconds_max=20.0)
"""A receipt is waited for less long than a gateway in the field waits: repeats are wanted here."""
RESENT_A_BLOCK = 0.5
LOOSE_WINDOW = 100
LOOSE_SILENCE_SECONDS = 10.0
BACKOFF_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Spec:
    """What one gateway is told; written as JSON by the soak."""

    load: Load
    to: str
    """Where batches go; mqtt://, kafka:// or http://."""
    loose_to: str
    token: str
    rate: float
    """Rows a second in batches."""
    loose_rate: float
    """Loose messages a second; 0 for none."""
    outbox: str
    journal: str

    def write(self, path: Path) -> None:
        """As JSON, for the gateway's process."""
        path.touch(0o600)
        path.write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, path: Path) -> "Spec":
        """What `write` wrote."""
        known = json.loads(path.read_text("utf-8"))
        return cls(**{**known, "load": Load(**known["load"])})


@dataclass(slots=True)
class Journal:
    """How far a gateway has come; written after the fact, so a kill repeats and never skips."""

    path: Path
    blocks: int = 0
    """Blocks in the outbox or beyond it."""
    loose: int = 0
    """Loose messages before this one are acknowledged."""
    settled: int = 0
    refused: int = 0
    resent: int = 0
    waiting: int = 0
    held: int = 0
    """Times that the outbox could not be written, its disk being full."""
    trouble: str | None = None

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """The journal as it was left; a new one otherwise."""
        known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return cls(path, **known)

    def write(self) -> None:
        """Whole or not at all: readers never see half a journal."""
        told = asdict(self)
        del told["path"]
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(told), "utf-8")
        fresh.replace(self.path)


class Loose(Protocol):
    """A way for messages without an identity."""

    def send(self, number: int, payload: bytes) -> bool:
        """Hand one over; False when it cannot be now."""
        ...

    def acknowledged(self) -> set[int]:
        """Numbers acknowledged since the last call."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


class LooseMqtt:
    """MQTT 3.1.1 at QoS 1, as a plain sensor speaks it; the broker's PUBACK is all it hears."""

    def __init__(self, to: str, gateway: str, token: str) -> None:
        parts = urlsplit(to)
        self._address = (parts.hostname or "", parts.port or 1883)
        self._gateway, self._token = gateway, token
        self._topic = f"chimata/v1/{SECTOR}/{gateway}/json"
        self._client: paho.Client | None = None
        self._connected = threading.Event()
        self._lost = threading.Event()
        self._lock = threading.Lock()
        self._numbers: dict[int, int] = {}
        self._early: set[int] = set()
        self._taken: set[int] = set()
        self._next_try = 0.0

    def send(self, number: int, payload: bytes) -> bool:
        """See `Loose`."""
        client = self._link()
        if client is None:
            return False
        sent = client.publish(self._topic, payload, qos=1)
        with self._lock:
            if sent.mid in self._early:
                self._early.discard(sent.mid)
                self._taken.add(number)
            else:
                self._numbers[sent.mid] = number
        return sent.rc == paho.MQTT_ERR_SUCCESS

    def acknowledged(self) -> set[int]:
        """See `Loose`."""
        with self._lock:
            taken, self._taken = self._taken, set()
        return taken

    def close(self) -> None:
        """See `Loose`."""
        if self._client is not None:
            self._client.on_disconnect = None
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _link(self) -> paho.Client | None:
        if self._client is not None and self._lost.is_set():
            self.close()
        if self._client is None and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + BACKOFF_SECONDS
            self._open()
        return self._client if self._connected.is_set() else None

    def _open(self) -> None:
        self._connected.clear()
        self._lost.clear()
        with self._lock:
            self._numbers.clear()
            self._early.clear()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._gateway}-loose",
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.username_pw_set(self._gateway, self._token)
        client.max_inflight_messages_set(LOOSE_WINDOW)
        client.on_connect = self._answered
        client.on_disconnect = lambda *_: self._lost.set()
        client.on_publish = self._published
        try:
            client.connect(*self._address, keepalive=10)
        except OSError:
            return
        client.loop_start()
        self._client = client

    def _answered(self, _c: Any, _d: Any, _f: Any, reason: Any, _p: Any) -> None:
        (self._lost if reason.is_failure else self._connected).set()

    def _published(self, _c: Any, _d: Any, mid: int, _r: Any, _p: Any) -> None:
        with self._lock:
            number = self._numbers.pop(mid, None)
            if number is None:
                self._early.add(mid)
            else:
                self._taken.add(number)


class LooseHttp:
    """HTTP without a Chimata-Batch: the answer comes after the commit, so it is a receipt."""

    def __init__(self, to: str, gateway: str, token: str) -> None:
        del gateway
        self._client = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60.0)
        self._url = f"{to}/v1/ingest/{SECTOR}/json"
        self._taken: set[int] = set()

    def send(self, number: int, payload: bytes) -> bool:
        """See `Loose`."""
        try:
            answer = self._client.post(self._url, content=payload)
        except httpx.TransportError:
            time.sleep(BACKOFF_SECONDS)
            return False
        if answer.is_success:
            self._taken.add(number)
        else:
            time.sleep(BACKOFF_SECONDS)
        return answer.is_success

    def acknowledged(self) -> set[int]:
        """See `Loose`."""
        taken, self._taken = self._taken, set()
        return taken

    def close(self) -> None:
        """See `Loose`."""
        self._client.close()


@dataclass
class LooseGateway:
    """Sends loose messages in order until each is acknowledged, some of them again."""

    load: Load
    way: Loose
    rate: float
    journal: Journal
    stop: threading.Event
    _sent: dict[int, float] = field(default_factory=dict)
    _acknowledged: set[int] = field(default_factory=set)

    def run(self) -> None:
        """The thread's work; ends once all that was begun is acknowledged."""
        begun, first = time.monotonic(), self.journal.loose
        # Who was killed may have sent a window more than the journal has: all of it once more.
        upper = first + LOOSE_WINDOW
        while not (self.stop.is_set() and self.journal.loose >= upper):
            due = first + int((time.monotonic() - begun) * self.rate)
            if not self.stop.is_set() and due > upper:
                upper = min(due, self.journal.loose + LOOSE_WINDOW)
            moved = self._send(range(self.journal.loose, upper)) | self._take()
            if not moved:
                time.sleep(WAIT_SECONDS)
        self.way.close()

    def _send(self, numbers: range) -> bool:
        now, moved = time.monotonic(), False
        for number in numbers:
            waits = number in self._acknowledged or self._sent.get(number, 0.0) > now
            if not waits and self.way.send(number, self.load.loose(number)):
                self._sent[number] = now + LOOSE_SILENCE_SECONDS
                moved = True
        return moved

    def _take(self) -> bool:
        taken = self.way.acknowledged()
        self._acknowledged |= taken
        while self.journal.loose in self._acknowledged:
            self._acknowledged.discard(self.journal.loose)
            self._sent.pop(self.journal.loose, None)
            self.journal.loose += 1
        return bool(taken)


class SoakGateway:
    """Fills the outbox at its rate, a block at a time, and sees to the delivery."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._load = spec, spec.load
        self._journal = Journal.open(Path(spec.journal))
        self._way = sender(spec.to, spec.load.gateway, spec.token)
        self._outbox = Outbox(Path(spec.outbox), bytes_max=OUTBOX_BYTES_MAX)
        self._delivery = Delivery(self._outbox, self._way, WINDOW)
        self._random = random.Random(spec.load.seed)  # noqa: S311 - a load
        self._begun = time.monotonic()
        self._blocks = 0
        self._told = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` and until the outbox is empty; CityError when the platform refuses us."""
        loose = self._start_loose(stop)
        # However slow the machine and short the run: something has to be corrected. And who was
        # killed between the outbox and the journal has sent a block that is not counted: once more.
        blocks_min = max(self._load.lag_blocks, self._journal.blocks) + 1
        while (
            (filling := not stop.is_set() or self._journal.blocks < blocks_min)
            or self._outbox.batches
            or (loose and loose.is_alive())
        ):
            try:
                if filling and self._is_due():
                    self._append()
                self._step()
            except CityError as error:
                if error.slug != "unavailable":
                    raise
                self._journal.trouble = str(error)
                self._journal.held += 1
                time.sleep(BACKOFF_SECONDS)
            self._tell(TOLD_SECONDS)
        self._way.close()
        self._outbox.close()
        self._tell(0.0)

    def _start_loose(self, stop: threading.Event) -> threading.Thread | None:
        spec = self._spec
        if not spec.loose_rate:
            return None
        kind = LooseHttp if spec.loose_to.startswith("http") else LooseMqtt
        way = kind(spec.loose_to, spec.load.gateway, spec.token)
        loose = LooseGateway(self._load, way, spec.loose_rate, self._journal, stop)
        thread = threading.Thread(target=loose.run, name="loose", daemon=True)
        thread.start()
        return thread

    def _is_due(self) -> bool:
        rows_a_block = BLOCK * self._load.rows_a_batch
        due = self._begun + self._blocks * rows_a_block / self._spec.rate
        now = time.monotonic()
        if now - due > BEHIND_SECONDS_MAX:
            self._begun += now - due - BEHIND_SECONDS_MAX
        return now >= due and self._may_correct()

    def _may_correct(self) -> bool:
        """A correction goes only once what it corrects has its receipt: else it would be older."""
        oldest = self._outbox.after(0, 1)
        return not oldest or (
            oldest[0].batch.seq // BLOCK > self._journal.blocks - self._load.lag_blocks
        )

    def _append(self) -> None:
        block = self._load.block(self._journal.blocks)
        if not self._outbox.has_room(block):
            return
        self._outbox.append(block)
        self._blocks += 1
        self._journal.blocks += 1
        self._journal.write()
        again = self._journal.blocks - self._load.lag_blocks
        if again >= 0 and self._random.random() < RESENT_A_BLOCK:
            batch = self._load.batch(again * BLOCK + self._random.randrange(BLOCK))
            self._journal.resent += self._way.send(batch)

    def _step(self) -> None:
        for done in self._delivery.step(WAIT_SECONDS):
            self._journal.settled += 1
            self._journal.refused += done.result.refused
        self._journal.trouble = self._way.trouble

    def _tell(self, seconds: float) -> None:
        if time.monotonic() - self._told >= seconds:
            self._journal.waiting = self._outbox.batches
            self._journal.write()
            self._told = time.monotonic()


def main() -> int:
    """Run the gateway of the specification named on the command line."""
    supervise.end_with_parent()
    stop = threading.Event()
    if "drain" in sys.argv[2:]:
        stop.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        SoakGateway(Spec.read(Path(sys.argv[1]))).run(stop)
    except CityError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("settled\n")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a thread that still waits for an answer holds nothing up
