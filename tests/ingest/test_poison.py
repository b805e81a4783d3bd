"""A row that the database itself refuses ends alone as a rejection; its neighbours are stored."""

from collections.abc import Iterator

import orjson
import pytest

from core.clock import now_us, to_iso
from core.formats import arrow
from core.settings import Settings
from core.storage import careful
from domains.signals.wire import PHASE_STATES
from tests.ingest.helpers import Channel, Database, running

POISON = 666.0
CHECK = "ALTER TABLE observation ADD CONSTRAINT poison CHECK (result <> 666)"
ROWS = 1_000
START = now_us() - 4 * 3_600_000_000


@pytest.fixture
def channel(storage_url: str) -> Iterator[Channel]:
    Database(storage_url).run(CHECK)
    with running(Settings(database_url=storage_url, batch_seconds_max=0.02)) as started:
        yield started


def batch(results: list[float], start: int = START, thing: str = "node") -> bytes:
    """Arrow rows of one Thing, a second apart."""
    times = [start + index * 1_000_000 for index in range(len(results))]
    return arrow.encode([thing] * len(times), ["latency"] * len(times), times, results)


def kept(database: Database) -> list[tuple[str, dict[str, object]]]:
    rows = database.query("SELECT reason, payload FROM rejection ORDER BY item")
    return [(reason, orjson.loads(bytes(payload))) for reason, payload in rows]


def check_account(database: Database, stored: int, rejected: int) -> None:
    (row,) = database.account()
    assert row.adds_up
    assert (row.stored, row.rejected) == (stored, rejected)


@pytest.mark.parametrize("late", [False, True], ids=["copied", "merged"])
def test_one_row_of_a_batch(channel: Channel, late: bool) -> None:
    if late:  # what is older than the newest goes another way
        assert channel.outcome(
            batch([1.0], START + 2 * 10**9), sector="edge", form="arrow"
        ).counts.stored
    results = [float(index + 1_000) for index in range(ROWS)]
    results[517] = POISON
    body = batch(results)
    outcome = channel.outcome(body, sector="edge", form="arrow", boot="b", seq="0")
    assert (outcome.result, outcome.counts.stored, outcome.counts.rejected) == (
        "stored",
        ROWS - 1,
        1,
    )
    ((reason, item),) = kept(channel.database)
    assert reason == "storage-refused"
    assert item == {
        "thing": "node", "property": "latency", "result": POISON,
        "phenomenon_time": to_iso(START + 517_000_000), "unit": None,
    }  # fmt: skip
    assert sum(result != POISON for result in channel.database.results()) == ROWS - 1 + late
    check_account(channel.database, ROWS - 1 + late, 1)
    again = channel.outcome(body, sector="edge", form="arrow", boot="b", seq="0")
    assert again.result == "duplicate"


def test_rows_of_several_batches_among_many(channel: Channel) -> None:
    for seq in range(20):
        results = [float(1_000 * seq + index + 1_000) for index in range(40)]
        if seq in (4, 11):
            results[7] = results[39] = POISON
        channel.send(batch(results, START + seq * 10**8), sector="edge", form="arrow",
                     boot="b", seq=str(seq))  # fmt: skip
    outcomes = channel.outcomes(20)
    assert [outcome.result for outcome in outcomes] == ["stored"] * 20
    assert sum(outcome.counts.stored for outcome in outcomes) == 20 * 40 - 4
    assert len(kept(channel.database)) == 4
    check_account(channel.database, 20 * 40 - 4, 4)


def test_a_category_is_kept_by_its_word(channel: Channel) -> None:
    """It is stored as a code, which nobody could decode again."""
    words = PHASE_STATES[:5]
    database = channel.database
    database.query("INSERT INTO category (text) VALUES (%s) RETURNING code", words[3])
    ((code,),) = database.query("SELECT code FROM category WHERE text = %s", words[3])
    database.run(f"ALTER TABLE observation ADD CONSTRAINT word CHECK (result <> {code})")
    body = orjson.dumps([
        {"thing": "crossing", "property": "signal-state/1", "result": word,
         "phenomenon_time": to_iso(START + index * 1_000_000)}
        for index, word in enumerate(words)
    ])  # fmt: skip
    outcome = channel.outcome(body, sector="signals")
    assert (outcome.counts.stored, outcome.counts.rejected) == (4, 1)
    ((reason, item),) = kept(database)
    assert (reason, item["result"]) == ("storage-refused", words[3])


def test_a_message_with_too_many_is_refused_as_a_whole(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(careful, "ROWS_REFUSED_MAX", 5)
    outcome = channel.outcome(batch([POISON] * 20), sector="edge", form="arrow", boot="b", seq="0")
    assert (outcome.result, outcome.reason) == ("refused", "storage-refused")
    ((payload,),) = channel.database.query("SELECT payload FROM rejection")
    assert bytes(payload) == batch([POISON] * 20)
    check_account(channel.database, 0, 1)
