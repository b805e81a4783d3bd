"""A thread that takes turns until it is stopped: what has to be done beside the API."""

import logging
import threading
from collections.abc import Callable

from core.errors import brief

log = logging.getLogger("chimata.consent")

TURN_SECONDS = 1.0


class Worker(threading.Thread):
    """Calls `step` about once a second, and at once again while it says that there is more."""

    def __init__(self, name: str, step: Callable[[], bool], complaint: str) -> None:
        super().__init__(name=name, daemon=True)
        self._step, self._complaint = step, complaint
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`; what fails is tried again at the next turn, and nobody waits for it."""
        more = False
        while not self._stopping.wait(0 if more else TURN_SECONDS):
            try:
                more = self._step()
            except Exception as error:  # noqa: BLE001 - without this thread nothing would go on
                more = False
                log.warning("%s: %s", self._complaint, brief(error))

    def stop(self) -> None:
        """Let it end, and wait for that."""
        self._stopping.set()
        self.join()
