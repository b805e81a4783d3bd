"""Messages from any channel to the database: decode, check, batch, store, then settle.

Each sector has a line of two threads (ingest.line). Everything between is bounded by payload bytes:
a slow database stops `submit`, which stops the channel's reading, which stops the broker's
delivery. Nothing is settled (acknowledged, receipted) before its transaction is committed.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence

from core.settings import Settings
from core.storage.figures import ProcessFigures
from core.storage.ledger import new_process
from core.storage.pool import Session
from core.storage.rejections import Keeping
from ingest.clocks import Clocks
from ingest.decoding import sector_of
from ingest.line import Line
from ingest.raw import Raw, Run, Settled
from ingest.upkeep import Keeper, Maintainer, Roller

__all__ = ["Budget", "Pipeline", "Raw", "Run", "Settled"]

TELL_SECONDS = 10.0
"""Between what is told of gateways' clocks and of this process's figures."""


class Budget:
    """Payload bytes between receipt and commit; `acquire` waits while there are too many."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0
        self._changed = threading.Condition()

    def acquire(self, size: int, stop: threading.Event, seconds_max: float = math.inf) -> bool:
        """Wait for room; False at the stop, or after `seconds_max`.

        One message is let in however large it is.
        """
        until = time.monotonic() + seconds_max
        with self._changed:
            while self._held and self._held + size > self._bytes_max:
                left = until - time.monotonic()
                if stop.is_set() or left <= 0:
                    return False
                self._changed.wait(min(0.2, left))
            self._held += size
            return True

    def release(self, size: int) -> None:
        """The messages of this size are settled."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    @property
    def held(self) -> int:
        """Payload bytes held now."""
        return self._held

    @property
    def full(self) -> bool:
        """Whether `acquire` would wait now."""
        return self._held >= self._bytes_max


class Pipeline:
    """Takes messages of one process; `settle` is called from its threads, after each commit.

    So is `settle_runs`, by channels that submit runs.
    """

    def __init__(
        self,
        settings: Settings,
        settle: Callable[[Settled], None],
        settle_runs: Callable[[Sequence[Run]], None] = lambda runs: None,
    ) -> None:
        self.settings = settings
        self.keeping = Keeping.of(settings)
        self.process = new_process()
        self.settle = settle
        self.settle_runs = settle_runs
        self.budget = Budget(settings.queue_bytes_max)
        self.stopping = threading.Event()
        self.drained = threading.Event()
        """Set when a line has latest values to be written."""
        self.clocks = Clocks()
        self.reconnects = 0
        """Times that the channel lost its broker; counted by the channel."""
        self._told_at = -math.inf
        self._lines: dict[str, Line] = {}
        self._opening = threading.Lock()
        self._keeper = Keeper(
            settings, self.process, self._all_lines, self._tell, self.drained, self.stopping
        )
        self._maintainer = Maintainer(settings, self.stopping)
        self._roller = Roller(settings, self.stopping)

    def start(self) -> None:
        """Start the projection's writer; each sector's threads start with its first message."""
        self._keeper.start()
        self._maintainer.start()
        self._roller.start()

    def submit(self, raw: Raw | Run, wait_seconds_max: float = math.inf) -> bool:
        """Take a message or a run, waiting while the pipeline is full; False if it did not take it.

        That is so once it is stopping, or when there was no room for `wait_seconds_max`.
        """
        if self.stopping.is_set():
            return False
        if not self.budget.acquire(raw.size, self.stopping, wait_seconds_max):
            return False
        self._line(raw.sector).put(raw)
        return True

    def _line(self, sector: str) -> Line:
        """The sector's line; HTTP submits from many threads, and a second line would be lost."""
        known = sector_of(sector)
        with self._opening:
            if known.name not in self._lines:
                self._lines[known.name] = Line(self, known)
            return self._lines[known.name]

    def _all_lines(self) -> list[Line]:
        return list(self._lines.values())

    def _tell(self, session: Session, last: bool) -> None:
        """Write what operators watch; by the keeper's thread, not at each of its turns."""
        if not last and time.monotonic() - self._told_at < TELL_SECONDS:
            return
        self._told_at = time.monotonic()
        self.clocks.write(session)
        self._figures().write(session, self.process)
        session.commit()

    def _figures(self) -> ProcessFigures:
        name = f"{socket.gethostname()}:{os.getpid()}"
        total = ProcessFigures(name, self.budget.held, reconnects=self.reconnects)
        for line in self._all_lines():
            total.add(line.figures)
        return total

    def stop(self) -> None:
        """Stop taking messages; what is not committed stays with the sender. Waits 10 s at most."""
        self.stopping.set()
        until = time.monotonic() + 10
        for line in self._all_lines():
            line.join(until)
        for thread in (self._keeper, self._maintainer, self._roller):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
