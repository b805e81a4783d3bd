"""What runs beside the appends, as an installation has it: old identities go, figures are told."""

import psycopg
import pytest

from core.settings import Settings
from core.storage.figures import figures
from tests.ingest.helpers import Channel, Database, changed, payload, running, until

pytestmark = pytest.mark.timeout(120)


def test_identities_are_forgotten_after_their_days(settings: Settings, database: Database) -> None:
    body = payload(1.0, 2.0)
    with running(settings) as channel:
        assert channel.outcome(body, boot="b", seq="0").result == "stored"
    for table, column in (("batch", "received_at"), ("boot", "oldest"), ("boot", "last_seen")):
        database.run(f"UPDATE {table} SET {column} = {column} - interval '3 days'")
    with running(changed(settings, ledger_days=2)) as channel:
        until(lambda: database.query("SELECT seq FROM batch") == [])
        again = channel.outcome(body, boot="b", seq="0")
        assert (again.result, again.counts.stored, again.counts.duplicate) == ("stored", 0, 2)
    (line,) = database.account()
    assert line.adds_up and (line.received, line.stored, line.missing) == (4, 2, 0)


def test_a_process_tells_its_figures(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.pipeline.TELL_SECONDS", 0.0)
    for number in range(3):
        channel.outcome(payload(float(number)), boot="b", seq=str(number))

    def told() -> bool:
        with psycopg.connect(channel.database.url) as connection:
            processes = figures(connection).processes
        return [sum(p.append_seconds.counts) for p in processes] == [3]

    until(told)
    with psycopg.connect(channel.database.url) as connection:
        (process,) = figures(connection).processes
    assert (process.decoded, process.queue_bytes, process.storage_failures) == (3, 0, 0)
    assert 0 < process.decode_seconds < 10 and 0 < process.append_seconds.sum < 10
