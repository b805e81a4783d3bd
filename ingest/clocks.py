"""When each gateway was heard, and how long its messages took: samples of its clock, before checks.

A gateway whose clock is ahead has its rows rejected: so a sample is taken of what was decoded, and
not of what was stored.
"""

import random
import statistics
import threading
from dataclasses import dataclass, field

from core.clock import MICROSECONDS
from core.sensorthings import Decoded, kinds_of
from core.storage import clocks
from core.storage.clocks import Heard
from core.storage.pool import Session

SAMPLES_MAX = 64
"""Kept of one gateway between two writes, for the median; the minimum is of all."""
GATEWAYS_MAX = 100_000
"""Heard between two writes; what is more is not sampled until the next one."""


@dataclass(slots=True)
class _Gateway:
    first_at: int
    last_at: int
    count: int = 0
    delay_min: float = float("inf")
    kept: list[float] = field(default_factory=list)

    def take(self, delay: float) -> None:
        self.count += 1
        self.delay_min = min(self.delay_min, delay)
        if len(self.kept) < SAMPLES_MAX:
            self.kept.append(delay)
        elif (place := random.randrange(self.count)) < SAMPLES_MAX:  # noqa: S311 - a fair sample
            self.kept[place] = delay


class Clocks:
    """One process's samples, taken by its sectors' threads, written by its keeper."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: dict[str, _Gateway] = {}

    def hear(self, gateway: str, received_at: int, decoded: Decoded) -> None:
        """Take a sample of one message; one that names no time of its own says nothing."""
        newest = newest_time(decoded)
        # A time to the very µs of the receipt is the receiver's own, given to what had none.
        delay = None if newest in (None, received_at) else received_at - (newest or 0)
        self.sample(gateway, received_at, delay)

    def sample(self, gateway: str, received_at: int, delay_us: int | None) -> None:
        """Take a sample; `delay_us` is None where no time was named."""
        with self._lock:
            known = self._heard.get(gateway)
            if known is None:
                if len(self._heard) >= GATEWAYS_MAX:
                    return
                known = self._heard[gateway] = _Gateway(received_at, received_at)
            known.last_at = max(known.last_at, received_at)
            if delay_us is not None:
                known.take(delay_us / MICROSECONDS)

    def write(self, session: Session) -> None:
        """Write what was heard since the last time; the caller commits."""
        with self._lock:
            heard, self._heard = self._heard, {}
        if heard:
            clocks.write(session, [_summary(name, each) for name, each in heard.items()])


def newest_time(decoded: Decoded) -> int | None:
    """The newest phenomenon time that a message holds, in µs; None if it holds none."""
    times = [heard.phenomenon_time for heard in decoded.heard]
    for columns, _ in kinds_of(decoded):
        column = columns.phenomenon_time
        if len(column):
            times.append(column.item(0) if len(column) == 1 else int(column.max()))
    return max(times, default=None)


def _summary(name: str, heard: _Gateway) -> Heard:
    median = statistics.median(heard.kept) if heard.kept else 0.0
    return Heard(name, heard.first_at, heard.last_at, heard.count, heard.delay_min, median)
