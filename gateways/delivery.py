"""Delivery: from the outbox through a sender until every batch has its receipt.

A bounded window is in flight, in order. What has no receipt within a timeout, or was in flight when
a connection broke, is sent again with growing patience: the platform's ledger makes a second copy a
duplicate, never a second row.
"""

import time
from dataclasses import dataclass
from typing import Protocol

from gateways.batches import Batch
from gateways.outbox import Outbox, Settled
from gateways.receipts import Receipt


class Sender(Protocol):
    """One way to the platform. Calls never raise for a lost connection: they reconnect."""

    @property
    def connection(self) -> int:
        """Grows with every new connection; 0 while there is none."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why there is no connection now, for people."""
        ...

    def send(self, batch: Batch) -> bool:
        """Hand over one batch; False when it cannot be now. CityError when it never can be."""
        ...

    def receipts(self, wait_seconds: float) -> list[Receipt]:
        """Receipts that have come, waiting at most so long for the first."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


RECEIPTS_MAX = 10_000
"""Receipts kept while the outbox cannot be written; beyond, the batch is sent again."""


@dataclass(frozen=True, slots=True)
class Window:
    """How much is in flight, and how long a receipt is waited for before sending again."""

    batches_max: int = 100
    bytes_max: int = 32 * 1024 * 1024
    receipt_seconds: float = 20.0
    receipt_seconds_max: float = 120.0


DEFAULT_WINDOW = Window()


@dataclass(slots=True)
class _InFlight:
    id: int
    bytes: int
    attempts: int
    due: float


@dataclass
class Delivery:
    """Moves one outbox's batches; call `step` until `outbox.batches` is 0."""

    outbox: Outbox
    sender: Sender
    window: Window = DEFAULT_WINDOW
    sent: int = 0
    """Batches handed over, counting again what was sent again."""

    def __post_init__(self) -> None:
        self._in_flight: dict[int, _InFlight] = {}
        self._receipts: list[Receipt] = []
        self._bytes = 0
        self._last_id = 0
        self._connection = 0

    def step(self, wait_seconds: float = 0.0) -> list[Settled]:
        """Send what the window allows, then take receipts; what got one is returned.

        CityError `unavailable` while the outbox's disk is full: call again, no receipt is dropped.
        """
        self._notice_connection()
        self._send_overdue()
        self._send_new()
        self._receipts += self.sender.receipts(wait_seconds)
        del self._receipts[:-RECEIPTS_MAX]
        if not self._receipts:
            return []
        settled = self.outbox.settle(self._receipts)
        self._receipts.clear()
        for done in settled:
            flight = self._in_flight.pop(done.id, None)
            if flight:
                self._bytes -= flight.bytes
        return settled

    def _notice_connection(self) -> None:
        """After a reconnect all in flight is overdue: the old connection may have lost it."""
        connection = self.sender.connection
        if connection and connection != self._connection:
            if self._connection:
                for flight in self._in_flight.values():
                    flight.due = 0.0
            self._connection = connection

    def _send_overdue(self) -> None:
        now = time.monotonic()
        overdue = [flight for flight in self._in_flight.values() if flight.due <= now]
        for flight in sorted(overdue, key=lambda each: each.id):
            waiting = self.outbox.get(flight.id)
            if waiting is None or not self.sender.send(waiting.batch):
                return
            self.sent += 1
            flight.attempts += 1
            patience = self.window.receipt_seconds * 2 ** min(flight.attempts, 10)
            flight.due = now + min(patience, self.window.receipt_seconds_max)

    def _send_new(self) -> None:
        room = self.window.batches_max - len(self._in_flight)
        if room <= 0 or self._bytes >= self.window.bytes_max or not self.sender.connection:
            return
        now = time.monotonic()
        for waiting in self.outbox.after(self._last_id, room):
            size = len(waiting.batch.payload)
            over = self._in_flight and self._bytes + size > self.window.bytes_max
            if over or not self.sender.send(waiting.batch):
                return
            self.sent += 1
            due = now + self.window.receipt_seconds
            self._in_flight[waiting.id] = _InFlight(waiting.id, size, 0, due)
            self._bytes += size
            self._last_id = waiting.id
