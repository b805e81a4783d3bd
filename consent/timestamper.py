"""Has checkpoints timestamped by an authority, beside the API; nothing ever waits for it.

Only the newest checkpoint is sent, so there is no queue when the authority is away: proofs of
consistency tie the older ones to it, and receipts are made under the earliest timestamped
checkpoint that covers them.
"""

import logging
import threading
from typing import Any

from consent.gate import Gate
from consent.log import Session
from consent.timestamps import Authority
from core.errors import brief

log = logging.getLogger("chimata.consent")

RETRY_SECONDS_MAX = 900.0
END_SECONDS_MAX = 1.0

SELECT_UNSTAMPED = """
SELECT size, note FROM audit.checkpoint
WHERE size > coalesce((SELECT max(size) FROM audit.timestamp), 0) ORDER BY size DESC LIMIT 1
"""
# Another process may have been faster: one token is enough.
INSERT_TIMESTAMP = """
INSERT INTO audit.timestamp (size, at, token) VALUES (%(size)s, %(at)s, %(token)s)
ON CONFLICT (size) DO NOTHING
"""


class Timestamper(threading.Thread):
    """Has the newest checkpoint timestamped every so often, until `stop`."""

    def __init__(self, gate: Gate, authority: Authority, seconds: float) -> None:
        super().__init__(name="timestamper", daemon=True)
        self._gate, self._authority, self._seconds = gate, authority, seconds
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`; what fails is tried again, each time a little later."""
        failures = 0
        while not self._stopping.wait(
            min(self._seconds * 2 ** min(failures, 30), max(self._seconds, RETRY_SECONDS_MAX))
        ):
            try:
                self._turn()
                failures = 0
            except Exception as error:  # noqa: BLE001 - without this thread there are no timestamps
                failures += 1
                if not self._stopping.is_set():
                    log.warning("a checkpoint has no timestamp, will retry: %s", brief(error))

    def stop(self) -> None:
        """Let it end; an answer that is under way is not waited for."""
        self._stopping.set()
        self.join(END_SECONDS_MAX)

    def _turn(self) -> None:
        with self._gate.working() as connection:
            newest = _unstamped(connection)
        if newest is None:
            return
        size, note = newest
        at, token = self._authority.stamp(note)
        with self._gate.working() as connection:
            connection.execute(INSERT_TIMESTAMP, {"size": size, "at": at, "token": token})


def _unstamped(connection: Session) -> tuple[int, str] | None:
    found: Any = connection.execute(SELECT_UNSTAMPED).fetchone()
    return (found[0], found[1]) if found else None
