"""A thread that takes turns until it is stopped: what has to be done beside the API."""

import logging
import threading
from collections.abc import Callable

from core.errors import brief

log = logging.getLogger("chimata.consent")

TURN_SECONDS = 1.0
DOUBLINGS_MAX = 30


class Worker(threading.Thread):
    """Calls `step` every so often, and at once again while it says that there is more.

    Any number of processes may run one: a step sees to it that one at a time does the work.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], bool],
        complaint: str,
        *,
        seconds: float = TURN_SECONDS,
        retry_seconds_max: float = TURN_SECONDS,
        end_seconds_max: float | None = None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._step, self._complaint = step, complaint
        self._seconds, self._retry_seconds_max = seconds, max(seconds, retry_seconds_max)
        self._end_seconds_max = end_seconds_max
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`; what fails is tried again, each time a little later, if it may be."""
        more, failures = False, 0
        while not self._stopping.wait(0 if more else self._pause_seconds(failures)):
            try:
                more, failures = self._step(), 0
            except Exception as error:  # noqa: BLE001 - without this thread nothing would go on
                more, failures = False, min(failures + 1, DOUBLINGS_MAX)
                if not self._stopping.is_set():
                    log.warning("%s, will retry: %s", self._complaint, brief(error))

    def stop(self) -> None:
        """Let it end, and wait for that; no longer than `end_seconds_max` for what is under way."""
        self._stopping.set()
        self.join(self._end_seconds_max)

    def _pause_seconds(self, failures: int) -> float:
        return min(self._seconds * 2.0**failures, self._retry_seconds_max)
