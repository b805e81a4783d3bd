"""Gives records of deliveries their places in the tree, about once a second, beside the API."""

import logging
import threading

from consent.gate import Gate
from consent.proofs import LEAVES_MAX
from consent.receipts import Signer
from consent.subject_keys import SubjectKeys
from core.errors import brief

log = logging.getLogger("chimata.consent")

TURN_SECONDS = 1.0


class Sequencer(threading.Thread):
    """Any number of processes may run one; one at a time does the work."""

    def __init__(self, gate: Gate, signer: Signer, secret: bytes, keys: SubjectKeys) -> None:
        super().__init__(name="sequencer", daemon=True)
        self._gate, self._signer, self._secret, self._keys = gate, signer, secret, keys
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`; what fails is tried again at the next turn, and nobody waits for it."""
        more = False
        while more or not self._stopping.wait(TURN_SECONDS):
            try:
                more = self._turn() == LEAVES_MAX
            except Exception as error:  # noqa: BLE001 - without this thread nothing is provable
                more = False
                log.warning("disclosures have no places yet, will retry: %s", brief(error))

    def _turn(self) -> int:
        return self._gate.sequence(self._signer, self._secret, self._keys)

    def stop(self) -> None:
        """Let it end, and wait for that."""
        self._stopping.set()
        self.join()
