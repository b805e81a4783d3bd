"""A running pipeline computes its rollups."""

import psycopg

from core.clock import now_us
from tests.ingest.helpers import SECOND, Channel, payload, until


def test_the_rollups_follow_by_themselves(channel: Channel, database_url: str) -> None:
    """Rows of an hour ago: their minute is over, and so may be their hour."""
    assert channel.outcome(payload(1.0, 2.0, at=now_us() - 7200 * SECOND)).result == "stored"
    with psycopg.connect(database_url, autocommit=True) as connection:

        def summed() -> list[tuple[int, float]]:
            return connection.execute("SELECT count, last FROM rollup_hour").fetchall()

        until(lambda: sum(count for count, _ in summed()) == 2, 60)
        assert summed()[-1][1] == 2.0
