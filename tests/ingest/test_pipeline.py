"""The pipeline on a real database: settled means committed, and nothing is lost or stuck."""

import threading
import time
from typing import Any

import psycopg
import pytest

import domains
from core.clock import now_us
from core.errors import CityError
from core.seal import load_private_key
from core.sensorthings import Decoded, Heard, ObservationsBuilder, ThingUpdate
from core.settings import Settings
from core.storage.rejections import unsealed
from tests.ingest.helpers import SECOND, Channel, Database, changed, payload, running, until

pytestmark = pytest.mark.timeout(120)


def counts(outcome: Any) -> tuple[int, int, int, int]:
    c = outcome.counts
    return (c.received, c.stored, c.duplicate, c.rejected)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the farms' decoder of `csv` by a function of the payload, for what none may do."""

    def use(function: Any) -> None:
        module = domains.load("farms", "decode")
        monkeypatch.setattr(module, "decode", lambda form, body, context: function(body))

    return use


# -- settled means committed ----


def test_settled_only_once_another_connection_sees_it(channel: Channel) -> None:
    for number in range(20):
        assert channel.send(payload(float(number), thing=f"t{number}"))
        time.sleep(0.01)
    outcomes = channel.outcomes(20)
    assert {outcome.result for outcome in outcomes} == {"stored"}
    assert [counts(outcome) for outcome in outcomes] == [(1, 1, 0, 0)] * 20
    # At each settling at least as many rows were visible as messages were settled by then.
    settled_by_then = 0
    for number, seen in enumerate(channel.stored_then):
        settled_by_then = max(settled_by_then, number + 1)
        assert seen >= settled_by_then
    assert channel.stored_then[-1] == 20


def test_a_repeat_of_a_batch_is_a_duplicate_and_other_bytes_are_refused(channel: Channel) -> None:
    body = payload(1.0, 2.0)
    assert channel.outcome(body, boot="b", seq="0").result == "stored"
    again = channel.outcome(body, boot="b", seq="0")
    assert (again.result, counts(again)) == ("duplicate", (2, 0, 2, 0))
    other = channel.outcome(payload(3.0), boot="b", seq="0")
    assert (other.result, other.reason) == ("refused", "batch-conflict")
    assert channel.database.results() == [1.0, 2.0]
    (line,) = channel.database.account()
    assert line.adds_up and (line.received, line.stored, line.missing) == (5, 2, 0)


def test_an_acknowledgement_that_fails_stops_nothing(channel: Channel) -> None:
    channel.fails = 1
    channel.outcome(payload(1.0))
    assert channel.outcome(payload(2.0)).result == "stored"
    assert not channel.pipeline.budget.full
    until(lambda: channel.pipeline.budget._held == 0)


def test_many_threads_share_one_line_a_sector(channel: Channel) -> None:
    """HTTP submits from many threads at once: a second line would neither be told nor stopped."""
    barrier = threading.Barrier(12)

    def send(number: int) -> None:
        barrier.wait()
        channel.send(payload(float(number), thing=f"t{number}"))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    channel.outcomes(12)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("store-farms") == 1
    until(lambda: channel.database.query("SELECT count(*) FROM latest") == [(12,)])


# -- the database goes away ----


def test_cut_connections_cost_nothing(channel: Channel, database: Database) -> None:
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.15):
            database.end_sessions()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        for number in range(60):
            assert channel.send(
                payload(float(number), thing=f"t{number}"), boot="b", seq=str(number)
            )
            time.sleep(0.02)
    finally:
        stop.set()
        cutter.join()
    # The connection of the test's own look into the database may have been cut: that look failed.
    until(lambda: len(database.query("SELECT seq FROM batch")) == 60)
    assert database.results() == [float(number) for number in range(60)]
    line = until(lambda: [row for row in database.account() if not row.held])[0]
    assert line.adds_up
    assert (line.stored, line.missing) == (60, 0)


def test_held_while_the_database_takes_no_one_and_stored_when_it_does(
    settings: Settings, database: Database
) -> None:
    with running(settings) as channel:
        channel.outcome(payload(0.0, thing="t0"), boot="b", seq="0")
        with database.locked("observation"):
            for number in range(1, 4):
                assert channel.send(
                    payload(float(number), thing=f"t{number}"), boot="b", seq=str(number)
                )
            (line,) = until(lambda: [row for row in database.account() if row.held == 3])
            assert line.adds_up
            assert (line.received, line.stored) == (4, 1)
            assert len(channel.settled) == 1
        channel.outcomes(4)
        (line,) = until(lambda: [row for row in database.account() if not row.held])
        assert line.adds_up
        assert (line.received, line.stored, line.missing) == (4, 4, 0)


def test_a_database_not_yet_migrated_is_waited_for(settings: Settings, database: Database) -> None:
    """No table is no fault of the message: it is held, and stored once the table is there."""
    database.run("ALTER TABLE sector_log RENAME TO hidden")
    with running(settings) as channel:
        assert channel.send(payload(1.0), boot="b", seq="0")
        time.sleep(1.0)
        assert channel.settled == []
        database.run("ALTER TABLE hidden RENAME TO sector_log")
        assert channel.outcomes(1)[0].result == "stored"
    assert database.rejections() == []


def test_a_read_only_database_is_waited_for(settings: Settings, database: Database) -> None:
    """A failover in the middle: the standby refuses to write for a while."""
    ((name,),) = database.query("SELECT current_database()")
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        with running(settings) as channel:
            assert channel.send(payload(1.0), boot="b", seq="0")
            time.sleep(1.0)
            assert channel.settled == []
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            assert channel.outcomes(1)[0].result == "stored"
    assert database.rejections() == []


# -- bounds ----


def test_a_full_pipeline_makes_submit_wait_and_lets_it_on(
    settings: Settings, database: Database
) -> None:
    tight = changed(settings, queue_bytes_max=8_000)
    with running(tight) as channel:
        done = threading.Event()

        def send_all() -> None:
            for number in range(20):
                assert channel.send(payload(float(number), thing=f"t{number}"))
            done.set()

        with database.locked("observation"):
            sender = threading.Thread(target=send_all)
            sender.start()
            assert not done.wait(1.0)
            assert channel.pipeline.budget._held <= 8_000
            began = time.monotonic()
            assert not channel.pipeline.submit(_raw(payload(1.0)), 0.2)
            assert time.monotonic() - began < 2.0
        assert done.wait(20)
        sender.join()
        channel.outcomes(20)
    assert len(database.results()) == 20


def test_a_message_larger_than_the_budget_is_let_in_alone(settings: Settings) -> None:
    with running(changed(settings, queue_bytes_max=100)) as channel:
        assert channel.outcome(payload(*map(float, range(50)))).result == "stored"


def test_a_payload_over_the_limit_is_a_rejection(settings: Settings, database: Database) -> None:
    with running(changed(settings, body_bytes_max=100)) as channel:
        assert channel.outcome(b"x" * 101).reason == "too-large"
    ((kept,),) = database.query("SELECT payload FROM rejection")
    assert kept == b"x" * 101


def _raw(body: bytes) -> Any:
    from ingest.pipeline import Raw

    return Raw("test", "farms", "g1", "json", body)


def test_stop_leaves_nothing_half_settled(settings: Settings, database: Database) -> None:
    """What was not settled is not stored, what was stored is settled; and it ends soon."""
    channel = Channel(settings)
    channel.pipeline.start()
    for number in range(300):
        channel.send(payload(float(number), thing=f"t{number}"), boot="b", seq=str(number))
    until(lambda: len(channel.settled) > 0)
    began = time.monotonic()
    channel.pipeline.stop()
    assert time.monotonic() - began < 5
    assert channel.send(payload(1.0)) is False
    settled = {int(raw.seq) for raw, _ in channel.settled if raw.seq}
    stored = {row[0] for row in database.query("SELECT seq FROM batch")}
    assert settled == stored
    assert len(database.results()) == len(stored)
    # The sender sends again what it heard nothing of: the same end as without the stop.
    with running(settings) as heir:
        for number in range(300):
            heir.send(payload(float(number), thing=f"t{number}"), boot="b", seq=str(number))
        results = [outcome.result for outcome in heir.outcomes(300)]
    # Times differ between the two, so that a settled batch is a conflict and is not stored twice.
    assert results.count("refused") == len(stored)
    assert len(database.results()) == 300


def test_stop_ends_while_the_database_is_away(settings: Settings) -> None:
    away = changed(settings, database_url="postgresql://127.0.0.1:1/none")
    channel = Channel(away)
    channel.pipeline.start()
    channel.send(payload(1.0))
    time.sleep(0.3)
    began = time.monotonic()
    channel.pipeline.stop()
    assert time.monotonic() - began < 5
    assert channel.settled == []
    until(lambda: not any(t.name.endswith("-farms") for t in threading.enumerate()))


# -- what cannot be taken ----


@pytest.mark.parametrize(
    "update",
    [
        ThingUpdate("bad", name="a\0b"),
        ThingUpdate("bad", properties={"text": "a\0b"}),
        ThingUpdate("bad", properties={"object": object()}),
        ThingUpdate("bad", name="\ud800"),
        ThingUpdate("bad", location=(float("inf"), "x")),  # type: ignore[arg-type]
    ],
    ids=["nul-name", "nul-property", "no-json", "surrogate", "no-number"],
)
def test_whatever_storage_refuses_is_split_out_with_its_reason(
    channel: Channel, database: Database, decoder: Any, update: ThingUpdate
) -> None:
    def decode(body: bytes) -> Decoded:
        builder = ObservationsBuilder()
        builder.messages = 3
        builder.add(body.decode(), "battery", now_us(), 1.0)
        if body == b"bad":
            builder.describe(update)
        return builder.build()

    decoder(decode)
    names = (b"t1", b"t2", b"bad", b"t3", b"t4")
    for seq, name in enumerate(names):
        assert channel.send(name, form="csv", boot="b", seq=str(seq))
    channel.outcomes(5)
    by_payload = {raw.payload: outcome for raw, outcome in channel.settled}
    assert by_payload[b"bad"].result == "refused"
    assert by_payload[b"bad"].reason == "storage-refused"
    assert {by_payload[name].result for name in names if name != b"bad"} == {"stored"}
    assert len(database.results()) == 4
    ((reason, kept),) = database.query("SELECT reason, payload FROM rejection")
    assert (reason, kept) == ("storage-refused", b"bad")
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up
    assert (line.messages, line.received, line.stored, line.rejected) == (15, 5, 4, 1)
    # And the sector goes on.
    assert channel.outcome(b"t5", form="csv").result == "stored"


def test_a_document_with_a_nul_is_rejected_as_an_item(channel: Channel, database: Database) -> None:
    body = (
        b'[{"thing":"t","property":"battery","result":1},'
        b'{"thing":"t","property":"note","result":{"a":"x\\u0000"}},'
        b'{"thing":"t","property":"other","result":{"a":"\\\\u0000"}}]'
    )
    outcome = channel.outcome(body)
    assert counts(outcome) == (3, 2, 0, 1)
    assert "U+0000" in database.rejections()[0][1]


def test_a_decoder_that_raises_is_a_rejection(
    channel: Channel, database: Database, decoder: Any
) -> None:
    def decode(_body: bytes) -> Decoded:
        raise ZeroDivisionError("a\0b \ud800")

    decoder(decode)
    outcome = channel.outcome(b"\x00\xff", form="csv", boot="b", seq="1")
    assert (outcome.result, outcome.reason) == ("refused", "decoder-error")
    assert "ZeroDivisionError" in database.rejections()[0][1]
    assert channel.outcome(payload(1.0)).result == "stored"


@pytest.mark.parametrize(
    ("sector", "form", "reason"),
    [
        ("nowhere", "json", "unknown-sector"),
        ("farms", "nmea", "unknown-format"),
        ("farms", "x" * 500, "unknown-format"),
        ("farms", "\ud800", "unknown-format"),
    ],
)
def test_unknown_sectors_and_formats_are_kept_as_rejections(
    channel: Channel,
    settings: Settings,
    database: Database,
    sector: str,
    form: str,
    reason: str,
) -> None:
    outcome = channel.outcome(b"payload", sector=sector, form=form)
    assert (outcome.result, outcome.reason, counts(outcome)) == ("refused", reason, (1, 0, 0, 1))
    ((sealed, kept),) = database.query("SELECT sealed, payload FROM rejection")
    if sealed:  # of a sector that may be anything, a personal one too
        assert sector == "nowhere"
        key = load_private_key(settings.data / "keys")
        detail, kept = unsealed(key, "unknown", "g1", kept)
        assert "nowhere" in detail
    assert kept == b"payload"
    (line,) = database.account()
    assert line.adds_up and line.rejected == 1


@pytest.mark.parametrize(
    ("gateway", "boot", "seq", "field"),
    [
        ("g1", "B", "1", "boot"),
        ("g1", "b/1", "1", "boot"),
        ("g1", "b", None, "seq"),
        ("g1", None, "1", "boot"),
        ("g1", "b", "-1", "seq"),
        ("g1", "b", "1.0", "seq"),
        ("g1", "b", "", "seq"),
        ("g1", "b", "٣", "seq"),
        ("g1", "b", str(2**53), "seq"),
        ("g1", "b", "9" * 5000, "seq"),
        ("G 1", "b", "1", "gateway"),
        ("", "b", "1", "gateway"),
        ("G1", None, None, "gateway"),
    ],
)
def test_identities_of_another_form_are_refused(
    channel: Channel, database: Database, gateway: str, boot: Any, seq: Any, field: str
) -> None:
    outcome = channel.outcome(payload(1.0), gateway=gateway, boot=boot, seq=seq)
    assert (outcome.result, outcome.reason) == ("refused", "bad-identity")
    assert outcome.detail is not None and outcome.detail.startswith(field)
    assert database.query("SELECT count(*) FROM batch") == [(0,)]
    assert database.results() == []


def test_the_largest_sequence_is_taken(channel: Channel) -> None:
    assert channel.outcome(payload(1.0), boot="b", seq=str(2**53 - 1)).result == "stored"


def test_what_the_channel_refuses_is_kept_with_its_reason(
    channel: Channel, database: Database
) -> None:
    outcome = channel.outcome(payload(1.0), refuse=("bad-signature", "does not match"))
    assert (outcome.result, outcome.reason) == ("refused", "bad-signature")
    assert database.rejections() == [("bad-signature", "does not match")]


# -- what is seen ----


def test_latest_values_and_hearing_appear_within_a_second(
    channel: Channel, database: Database
) -> None:
    channel.outcome(payload(1.0, 2.0))
    settled_at = time.monotonic()
    until(lambda: database.query("SELECT 1 FROM latest JOIN thing_heard ON true"), 5)
    assert time.monotonic() - settled_at < 1.5  # 1 s, and this test's own noise
    assert database.query("SELECT result FROM latest") == [(2.0,)]
    ((gateway, silent),) = database.query(
        "SELECT gateway, extract(epoch FROM now() - heard_time) FROM thing_heard"
    )
    assert gateway == "g1"
    assert 0 <= silent < 10


@pytest.mark.parametrize("ahead", [3600 * SECOND, 10**18, 2**62, -(2**62)])
def test_a_thing_that_speaks_of_an_impossible_time_is_heard_later_all_the_same(
    channel: Channel, database: Database, decoder: Any, ahead: int
) -> None:
    """A wild clock must neither stop the projection nor make the Thing look alive for years."""

    def decode(body: bytes) -> Decoded:
        builder = ObservationsBuilder()
        builder.messages = 1
        if body == b"wild":
            builder.hear("t1", now_us() + ahead if ahead < 10**17 else ahead)
        else:
            builder.add("t1", "battery", now_us(), float(body))
            builder.hear("t1", now_us())
        return builder.build()

    decoder(decode)
    channel.outcome(b"1", form="csv")
    channel.outcome(b"wild", form="csv")
    time.sleep(1.2)
    channel.outcome(b"2", form="csv")
    until(lambda: database.query("SELECT result FROM latest") == [(2.0,)], 5)
    ((heard,),) = database.query("SELECT heard_time <= now() FROM thing_heard")
    assert heard is True


def test_heard_of_a_name_that_is_none(channel: Channel, database: Database, decoder: Any) -> None:
    def decode(_body: bytes) -> Decoded:
        long = "".join(map(chr, range(0x4E00, 0x4E00 + 5_000)))  # no index holds it
        return Decoded(
            things=(ThingUpdate(long), ThingUpdate("ok", name="n")),
            heard=(Heard(long, now_us()),),
            messages=1,
            unchanged=1,
        )

    decoder(decode)
    assert channel.outcome(b"1", form="csv").result == "stored"
    assert database.query("SELECT key, name FROM thing") == [("ok", "n")]


def test_no_database_url_is_said_so() -> None:
    from core.storage.pool import DatabaseRole, open_session

    with pytest.raises(CityError, match="CHIMATA_DATABASE_URL"):
        open_session("", DatabaseRole.INGEST)
