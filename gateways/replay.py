"""Replays recordings through the outbox: what `chimata gateway replay` does."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.clock import now_us, parse_iso, to_iso
from core.errors import CityError, invalid
from core.tokens import check_name
from gateways.batches import Batch, boot_of, cut, number
from gateways.delivery import DEFAULT_WINDOW, Delivery, Sender, Window
from gateways.outbox import Outbox, Settled
from gateways.push import sender
from gateways.readers import file_format

COMMIT_BATCHES_MAX = 64
COMMIT_BYTES_MAX = 8 * 1024 * 1024
"""Batches that share one commit of the outbox."""
OUTBOX_BYTES_MAX = 512 * 1024 * 1024
TIMEOUT_SECONDS = 300.0
WAIT_SECONDS = 0.25
REFUSALS_KEPT_MAX = 100


@dataclass(slots=True)
class Refusal:
    """A refused batch, as the platform gave its reason."""

    boot: str
    seq: int
    reason: str
    detail: str


@dataclass
class ReplayResult:
    """What became of a replay: batches and the native messages in them, and the observations."""

    boot: str = ""
    sent: int = 0
    received: int = 0
    refused: int = 0
    messages: int = 0
    messages_received: int = 0
    messages_refused: int = 0
    observations: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    seconds: float = 0.0
    waiting_for: str | None = None
    refusals: list[Refusal] = field(default_factory=list)

    def __str__(self) -> str:
        """Three lines: sent, received, refused; batches and native messages."""
        return (
            f"sent {self.sent} batches, {self.messages} messages\n"
            f"received {self.received} batches, {self.messages_received} messages "
            f"({self.observations} observations: {self.stored} stored, "
            f"{self.duplicate} duplicate, {self.rejected} rejected)\n"
            f"refused {self.refused} batches, {self.messages_refused} messages"
        )

    def count(self, settled: Settled) -> None:
        """Add one batch's receipt."""
        result = settled.result
        if not result.refused:
            self.received += 1
            self.messages_received += settled.messages
            self.observations += result.received
            self.stored += result.stored
            self.duplicate += result.duplicate
            self.rejected += result.rejected
            return
        self.refused += 1
        self.messages_refused += settled.messages
        if len(self.refusals) < REFUSALS_KEPT_MAX:
            reason, detail = result.reason or "refused", result.detail or ""
            self.refusals.append(Refusal(settled.boot, result.seq, reason, detail))


Progress = Callable[[ReplayResult], None]


def parse_start(start: str) -> int | None:
    """`recorded` is None, `now` this machine's clock, else ISO 8601 with a zone: µs since 1970."""
    if start == "recorded":
        return None
    if start == "now":
        return now_us()
    try:
        return parse_iso(start)
    except ValueError as error:
        raise invalid("start", f"{start!r} is not recorded, now or ISO 8601 with a zone") from error


def read_batches(
    sector: str, file_format_name: str, files: Sequence[Path], start_us: int | None
) -> tuple[str, Iterator[Batch]]:
    """The boot of a recording and its batches, numbered from 0; see `gateways.batches`.

    CityError `invalid` for an unknown format or a file that cannot be read.
    """
    form = file_format(file_format_name)
    for path in files:
        if not path.is_file():
            raise invalid("file", f"{path} is not a file that can be read")
    start = "recorded" if start_us is None else to_iso(start_us)
    boot = boot_of(sector, file_format_name, start, files)
    reader = form.reader()
    groups = cut(reader.read(files, start_us), reader.LIMITS)
    return boot, number(groups, reader.join, sector, form.wire_format, boot)


class Pace:
    """When a batch may go: as recorded, at N messages a second, or at once. Never cuts batches."""

    def __init__(self, rate: str) -> None:
        self._begun = time.monotonic()
        self._first_us: int | None = None
        self._messages = 0
        self._real = rate == "real"
        try:
            self._per_second = 0.0 if rate in {"real", "max"} else float(rate)
        except ValueError as error:
            raise invalid("rate", f"{rate!r} is not real, max or messages a second") from error
        if self._per_second < 0:
            raise invalid("rate", "messages a second must be above 0")

    def seconds_until(self, batch: Batch) -> float:
        """How long from now the batch's turn is; call once a batch, in order."""
        elapsed = time.monotonic() - self._begun
        due = 0.0
        if self._real and batch.time_us is not None:
            self._first_us = batch.time_us if self._first_us is None else self._first_us
            due = (batch.time_us - self._first_us) / 1e6
        elif self._per_second:
            due = self._messages / self._per_second
            self._messages += batch.messages
        return max(0.0, due - elapsed)


def replay(
    *,
    sector: str,
    format: str,
    files: Sequence[Path],
    to: str,
    gateway: str,
    token: str,
    rate: str = "max",
    start: str = "recorded",
    outbox_folder: Path | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    window: Window = DEFAULT_WINDOW,
    progress: Progress | None = None,
) -> ReplayResult:
    """Send recordings and return once every batch has its receipt.

    `rate`: real, max or messages a second. `start`: recorded, now or a time. `timeout_seconds`: how
    long to go on without any receipt (lost connections are made anew meanwhile). A replay that was
    killed is taken up again from its outbox by the same call.
    CityError: `invalid` input, `unauthenticated`, `forbidden`, `unavailable` after the timeout.
    """
    check_name("gateway", gateway)
    pace = Pace(rate)
    boot, batches = read_batches(sector, format, files, parse_start(start))
    folder = outbox_folder or default_outbox_folder()
    path = folder / f"{gateway}-{boot}-{hashlib.sha256(to.encode()).hexdigest()[:8]}.sqlite"
    way = sender(to, gateway, token)
    outbox = Outbox(path, bytes_max=OUTBOX_BYTES_MAX)
    run = _Run(
        Delivery(outbox, way, window), way, timeout_seconds, progress, ReplayResult(boot=boot)
    )
    try:
        run.send_all(batches, pace)
    finally:
        way.close()
        outbox.close()
    if not run.result.refused:
        for leftover in folder.glob(path.name + "*"):
            leftover.unlink(missing_ok=True)
    return run.result


def default_outbox_folder() -> Path:
    """Where outboxes are kept: $XDG_STATE_HOME/chimata/outbox or its default."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "chimata" / "outbox"


@dataclass
class _Run:
    """One replay under way."""

    delivery: Delivery
    way: Sender
    timeout_seconds: float
    progress: Progress | None
    result: ReplayResult
    _last_receipt: float = field(default_factory=time.monotonic)
    _begun: float = field(default_factory=time.monotonic)
    _read: int = 0
    """Batches read so far: their sequences are below this."""
    _trouble: str | None = None
    """Why the outbox takes nothing, for people."""
    _early: set[int] = field(default_factory=set)
    """Sequences left by a killed replay that got their receipts before they were read again."""

    def send_all(self, batches: Iterator[Batch], pace: Pace) -> None:
        group: list[Batch] = []
        size = 0
        self._pump(0.0)  # connect now, so that the first batches need not wait for it
        for batch in batches:
            wait = pace.seconds_until(batch)
            full = len(group) >= COMMIT_BATCHES_MAX or size >= COMMIT_BYTES_MAX
            if group and (wait > 0 or full):
                self._store(group)
                group, size = [], 0
            self._pump_for(wait)
            group.append(batch)
            size += len(batch.payload)
        if group:
            self._store(group)
        while self.delivery.outbox.batches:
            self._pump(WAIT_SECONDS)
        self._pump(0.0)

    def _store(self, group: list[Batch]) -> None:
        """Into the outbox, durable; while it or its disk is full, wait for room."""
        while not self._append([each for each in group if each.seq not in self._early]):
            self._pump(WAIT_SECONDS)
        self._early.difference_update(each.seq for each in group)
        self._read = group[-1].seq + 1
        self.result.sent += len(group)
        self.result.messages += sum(batch.messages for batch in group)
        self._pump(0.0)

    def _append(self, group: list[Batch]) -> bool:
        try:
            self.delivery.outbox.append(group)
        except CityError as error:
            self._trouble = error.detail
            return False
        return True

    def _pump_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._pump(min(left, WAIT_SECONDS))
            if not self.delivery.outbox.batches:
                # Nothing is owed: a pause of the recording is not the platform's silence.
                self._last_receipt = time.monotonic()

    def _pump(self, wait_seconds: float) -> None:
        try:
            settled = self.delivery.step(wait_seconds)
        except CityError as error:
            if error.slug != "unavailable":
                raise
            self._trouble, settled = error.detail, []
            time.sleep(wait_seconds)
        now = time.monotonic()
        for done in settled:
            self.result.count(done)
            if done.result.seq >= self._read:
                self._early.add(done.result.seq)
        if settled:
            self._last_receipt, self._trouble = now, None
        self.result.seconds = now - self._begun
        self.result.waiting_for = self._trouble or self.way.trouble
        if self.progress:
            self.progress(self.result)
        if now - self._last_receipt > self.timeout_seconds and self.delivery.outbox.batches:
            why = self.result.waiting_for or "connected, but the platform sends no receipts"
            raise CityError(
                "unavailable",
                f"no receipt for {self.timeout_seconds:.0f} s ({why});"
                f" {self.delivery.outbox.batches} batches wait in {self.delivery.outbox.path}",
            )
