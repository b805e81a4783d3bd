"""Has checkpoints timestamped by an authority, beside the API; nothing ever waits for it.

Only the newest checkpoint is sent, so there is no queue when the authority is away: proofs of
consistency tie the older ones to it, and receipts are made under the earliest timestamped
checkpoint that covers them.
"""

from typing import Any

from consent.gate import Gate
from consent.log import Session
from consent.timestamps import Authority
from consent.worker import Worker

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


def timestamper(gate: Gate, authority: Authority, seconds: float) -> Worker:
    """Has the newest checkpoint timestamped every so often; who stops waits for no answer."""

    def step() -> bool:
        with gate.working() as connection:
            newest = _unstamped(connection)
        if newest is not None:
            size, note = newest
            at, token = authority.stamp(note)
            with gate.working() as connection:
                connection.execute(INSERT_TIMESTAMP, {"size": size, "at": at, "token": token})
        return False

    return Worker(
        "timestamper", step, "a checkpoint has no timestamp", seconds=seconds,
        retry_seconds_max=RETRY_SECONDS_MAX, end_seconds_max=END_SECONDS_MAX,
    )  # fmt: skip


def _unstamped(connection: Session) -> tuple[int, str] | None:
    found: Any = connection.execute(SELECT_UNSTAMPED).fetchone()
    return (found[0], found[1]) if found else None
