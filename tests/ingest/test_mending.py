"""Replay, fix, discard and re-decode: each once, whatever breaks, and the account stays true."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import domains
from core import seal
from core.clock import to_iso
from core.errors import CityError
from core.formats import DECODERS
from core.sector import Context
from core.sensorthings import DataClass, Decoded, Rejected
from core.settings import Settings
from core.storage.account import Wanted, account
from core.storage.message import Outcome
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session
from core.storage.rejections import Keeping
from core.tokens import load_keys
from ingest.clocks import Clocks
from ingest.decoding import Decoder
from ingest.mending import Mender
from ingest.raw import Raw
from tests.ingest.helpers import SECOND

NOW = 1_790_000_000_000_000
WHO = "operator o"


class Town:
    """A database with a farms sector, its ingestor and its mender."""

    def __init__(self, url: str, data: Path, **changes: Any) -> None:
        self.url = url
        self.settings = Settings(database_url=url, data=data, **changes)
        self.mender = Mender(self.settings)
        self._store: SectorStore | None = None

    def send(
        self, payload: bytes, form: str = "json", gateway: str = "g1", at: int = NOW
    ) -> Outcome:
        """As an ingestor takes it."""
        sector = domains.sector("farms")
        if self._store is None or self._store.sector is not sector:
            self._store = SectorStore(sector, Keeping.of(self.settings))
        raw = Raw("test", "farms", gateway, form, payload, received_at=at)
        message = Decoder(sector, self.settings, Clocks()).message(raw)
        with open_session(self.url, DatabaseRole.INGEST) as session:
            return self._store.append(session, [message])[0]

    def query(self, sql: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql.encode(), values).fetchall()

    def ids(self, state: str = "open") -> list[int]:
        return [row[0] for row in self.query(
            "SELECT id FROM rejection WHERE state = %s ORDER BY id", state)]  # fmt: skip

    def results(self) -> list[float]:
        return [row[0] for row in self.query("SELECT result FROM observation ORDER BY 1")]

    def counts(self) -> tuple[int, ...]:
        """received, stored, duplicate, rejected, recovered; after a look whether all adds up."""
        with psycopg.connect(self.url) as connection:
            lines = account(connection)
            assert all(line.adds_up for line in lines)
            hours = account(connection, Wanted(by_hour=True))
            recovered = sum(line.recovered for line in lines)
            assert recovered == sum(line.recovered for line in hours)
            assert all(line.recovered <= line.rejected for line in hours)
        check_sums(self.url)
        (row,) = self.query(
            "SELECT coalesce(sum(received), 0)::int, coalesce(sum(stored), 0)::int,"
            " coalesce(sum(duplicate), 0)::int, coalesce(sum(rejected), 0)::int"
            " FROM account"
        )
        return (*row, recovered)

    def acts(self) -> list[Any]:
        return self.query(
            "SELECT rejection_id, who, act, done, stored FROM rejection_act ORDER BY id"
        )


def check_sums(url: str) -> None:
    """By source and hour: rejections are the account's rejected, those taken in its recovered."""
    kept = """
    SELECT gateway, sector, format, hour, sum(count)::bigint,
           coalesce(sum(count) FILTER (WHERE state IN ('replayed', 'fixed')), 0)::bigint
    FROM rejection GROUP BY 1, 2, 3, 4"""
    said = """
    SELECT gateway, sector, format, hour, rejected, coalesce(items, 0)
    FROM account LEFT JOIN recovered USING (gateway, sector, format, hour)
    WHERE rejected > 0 OR items > 0"""
    with psycopg.connect(url) as connection:
        assert set(connection.execute(kept.encode())) == set(connection.execute(said.encode()))
        quota = """
        SELECT sector, gateway, count(*) FILTER (WHERE state = 'open' AND NOT folded),
          coalesce(sum(length(payload)) FILTER (WHERE state = 'open'), 0)::bigint
        FROM rejection GROUP BY 1, 2"""
        stored = connection.execute("SELECT sector, gateway, items, bytes FROM rejection_quota")
        assert set(connection.execute(quota.encode())) == set(stored)


@pytest.fixture
def town(storage_url: str, tmp_path: Path) -> Town:
    return Town(storage_url, tmp_path)


def body(*results: Any, at: int = NOW, **more: Any) -> bytes:
    """The `json` format: soil moisture, one a second."""
    return orjson.dumps([
        {"thing": "t1", "property": "soil-moisture", "result": result,
         "phenomenon_time": to_iso(at + i * SECOND), **more}
        for i, result in enumerate(results)
    ])  # fmt: skip


def refuse_all(payload: bytes, _context: Context) -> Decoded:
    rejected = Rejected("bad-json", "json: this decoder is broken", payload)
    return Decoded(rejected=(rejected,), messages=1)


@contextmanager
def broken() -> Iterator[None]:
    """The decoder of `json` before it was mended."""
    mended, DECODERS["json"] = DECODERS["json"], refuse_all
    try:
        yield
    finally:
        DECODERS["json"] = mended


def send_broken(town: Town, *payloads: bytes, **more: Any) -> list[int]:
    with broken():
        for each in payloads:
            assert town.send(each, **more).result == "refused"
    return town.ids()


def test_a_message_is_replayed_once_its_decoder_is_mended(town: Town) -> None:
    (one,) = send_broken(town, body(1, 2, 3))
    assert town.counts() == (1, 0, 0, 1, 0)
    result = town.mender.replay(one, WHO)
    assert (result.done, result.state, result.stored) == (True, "replayed", 3)
    assert town.results() == [1, 2, 3]
    # Received anew and stored; of the one rejected, one was recovered.
    assert town.counts() == (4, 3, 0, 1, 1)
    with pytest.raises(CityError, match="is replayed") as told:
        town.mender.replay(one, WHO)
    assert told.value.slug == "conflict"
    assert town.counts() == (4, 3, 0, 1, 1)
    assert town.acts() == [(one, WHO, "replay", True, 3)]
    assert town.query("SELECT payload FROM rejection") == [(None,)]
    assert town.query("SELECT messages, unchanged FROM account") == [(1, 0)], "one message came"
    assert town.query("SELECT result FROM latest") == [(3,)], "and it is the latest"


def test_one_that_comes_again_after_its_replay_is_another(town: Town) -> None:
    (one,) = send_broken(town, body(1), body(1))
    assert town.query("SELECT count FROM rejection") == [(2,)]
    town.mender.replay(one, WHO)
    assert town.counts() == (3, 1, 0, 2, 2)
    (two,) = send_broken(town, body(1))
    assert two != one
    assert town.mender.replay(two, WHO).duplicate == 1
    assert town.counts() == (5, 1, 1, 3, 3)


def test_what_is_still_rejected_stays_open_and_is_noted_once(town: Town) -> None:
    (one,) = send_broken(town, b"{ no json")
    for _ in range(2):
        with pytest.raises(CityError, match="still rejected: invalid-json"):
            town.mender.replay(one, WHO)
    assert town.ids() == [one]
    assert town.acts() == [(one, WHO, "replay", False, 0)]
    assert town.counts() == (1, 0, 0, 1, 0)


def test_one_bad_item_is_fixed_alone(town: Town) -> None:
    town.send(
        orjson.dumps([*orjson.loads(body(1)), *orjson.loads(body(2, at=NOW + SECOND, unit="?"))])
    )
    (one,) = town.ids()
    with pytest.raises(CityError, match="still rejected"):
        town.mender.replay(one, WHO)
    with pytest.raises(CityError, match="payload: ") as told:
        town.mender.fix(one, WHO, "a typo", b"[")
    assert told.value.slug == "invalid"
    fixed = body(2, at=NOW + SECOND)
    assert town.mender.fix(one, WHO, "a typo", fixed).stored == 1
    assert town.results() == [1, 2]
    assert town.counts() == (3, 2, 0, 1, 1)
    ((state, payload, corrected),) = town.query("SELECT state, payload, corrected FROM rejection")
    assert (state, bytes(corrected)) == ("fixed", fixed)
    assert b'"?"' in bytes(payload), "the original stays beside it"
    hashes = town.query("SELECT sha256, corrected_sha256 FROM rejection_act WHERE done")
    assert hashes == [(hashlib.sha256(payload).digest(), hashlib.sha256(fixed).digest())]


def test_a_native_item_is_replayed_in_its_own_format(town: Town) -> None:
    head = b"time,device,soil moisture [%]\n"
    town.send(head + b"2026-09-21T00:00:00Z,d1,10\n2026-09-21 00:00,d1,\n,d1,x\n", "csv")
    kept = town.query("SELECT id, item_format, payload FROM rejection")
    assert kept, "the row is rejected"
    assert {row[1] for row in kept} == {"csv"}
    assert all(bytes(row[2]).startswith(head.strip()) for row in kept)
    town.mender.fix(kept[0][0], WHO, "typo", head + b"2026-09-21T00:00:01Z,d1,11\n")
    assert town.results() == [10, 11]
    town.counts()


def test_a_format_may_be_named_for_the_fix(town: Town) -> None:
    (one,) = send_broken(town, body(1))
    with pytest.raises(CityError, match="format: farms takes no 'nmea'"):
        town.mender.fix(one, WHO, "r", b"x", "nmea")
    senml = b'[{"n":"t1/soil-moisture","t":1790000000,"v":5}]'
    assert town.mender.fix(one, WHO, "r", senml, "senml-json").stored == 1


def test_a_batch_of_which_something_is_still_bad(town: Town) -> None:
    good, bad = orjson.loads(body(1, 2)), orjson.loads(body(3, unit="?"))
    (one,) = send_broken(town, orjson.dumps([*good, *bad]))
    result = town.mender.replay(one, WHO)
    assert (result.stored, result.rejected) == (2, 1)
    (rest,) = town.ids()
    assert town.query("SELECT reason, channel FROM rejection WHERE id = %s", rest) == [
        ("invalid-unit", "replay")
    ]
    assert town.counts() == (4, 2, 0, 2, 1)


def test_what_holds_nothing_stays_open(town: Town) -> None:
    (one,) = send_broken(town, b"[]")
    with pytest.raises(CityError, match="nothing-in-it"):
        town.mender.replay(one, WHO)
    assert town.ids() == [one]


def test_storage_may_refuse_what_decodes(town: Town) -> None:
    town.send(body(1, at=NOW - SECOND, property="own", unit="m"))
    (one,) = send_broken(town, body(2, property="own", unit="kg"))
    with pytest.raises(CityError, match="datastream-conflict"):
        town.mender.replay(one, WHO)
    assert town.ids() == [one]
    assert town.counts() == (2, 1, 0, 1, 0)


def test_discarding_lets_the_payload_go_and_keeps_the_count(town: Town) -> None:
    one, two = send_broken(town, body(1), body(2))
    town.mender.discard(one, WHO, "a test")
    assert town.ids("discarded") == [one]
    assert town.query(
        "SELECT payload, length(sha256), count FROM rejection WHERE id = %s", one
    ) == [(None, 32, 1)]
    for act in (town.mender.replay, lambda i, w: town.mender.discard(i, w, "again")):
        with pytest.raises(CityError, match="is discarded"):
            act(one, WHO)
    assert town.counts() == (2, 0, 0, 2, 0)
    with pytest.raises(CityError, match="no rejection"):
        town.mender.replay(two + 1, WHO)


def test_a_count_of_many_can_only_be_discarded(storage_url: str, tmp_path: Path) -> None:
    town = Town(storage_url, tmp_path, rejection_items_max=1, rejection_bytes_max=0)
    one, fold = send_broken(town, body(1), body(2), body(3))
    for rejection, told in ((one, "was let go"), (fold, "was let go")):
        with pytest.raises(CityError, match=told):
            town.mender.replay(rejection, WHO)
    with pytest.raises(CityError, match="count of many"):
        town.mender.fix(fold, WHO, "r", body(1))
    assert town.mender.fix(one, WHO, "sent again by hand", body(1)).stored == 1
    town.mender.discard(fold, WHO, "garbage")
    assert town.counts() == (4, 1, 0, 3, 1)


def test_what_a_channel_refused_is_never_believed_by_a_replay(town: Town) -> None:
    """A batch with a bad signature may decode well; that it is true nobody has said."""
    with open_session(town.url, DatabaseRole.INGEST) as session:
        forged = Raw("kafka", "farms", "g1", "json", body(1), refuse=("bad-signature", "no match"))
        sector = domains.sector("farms")
        message = Decoder(sector, town.settings, Clocks()).message(forged)
        SectorStore(sector).append(session, [message])
    (one,) = town.ids()
    with pytest.raises(CityError, match="only be fixed or discarded"):
        town.mender.replay(one, WHO)
    assert list(town.mender.redecode("farms", WHO)) == []
    assert town.results() == []


def test_a_crash_at_the_commit_stores_nothing_and_the_next_try_once(town: Town) -> None:
    (one,) = send_broken(town, body(1, 2))
    with psycopg.connect(town.url) as owner:
        owner.execute(
            "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
        )
        owner.execute(
            "CREATE CONSTRAINT TRIGGER crash AFTER INSERT ON rejection_act"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION crash()"
        )
    with pytest.raises(CityError, match="does not answer"):
        town.mender.replay(one, WHO)
    assert town.counts() == (1, 0, 0, 1, 0)
    assert town.results() == []
    with psycopg.connect(town.url) as owner:
        owner.execute("DROP TRIGGER crash ON rejection_act")
    assert town.mender.replay(one, WHO).stored == 2
    assert town.results() == [1, 2]
    assert town.counts() == (3, 2, 0, 1, 1)


def test_of_many_at_once_one_takes_it_in(town: Town) -> None:
    (one,) = send_broken(town, body(1, 2))
    start, done, refused = threading.Barrier(4), [], []

    def replay() -> None:
        mender = Mender(town.settings)
        start.wait()
        try:
            done.append(mender.replay(one, WHO).stored)
        except CityError as error:
            refused.append(error.slug)

    threads = [threading.Thread(target=replay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (done, refused) == ([2], ["conflict"] * 3)
    assert town.counts() == (3, 2, 0, 1, 1)


def test_redecoding_goes_by_pages_and_may_be_ended_and_run_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.mending.A_PAGE_MAX", 10)
    with broken():
        for number in range(25):
            whole = number % 5
            town.send(body(number, at=NOW + number * SECOND) if whole else f"[{number}".encode())
    town.send(b"{ other reason")
    pages = town.mender.redecode("farms", WHO, "bad-json")
    assert len(next(pages)) == 10
    pages.close()  # ended in the middle
    again = list(town.mender.redecode("farms", WHO, "bad-json"))
    assert [len(page) for page in again] == [10, 7]
    assert sum(not result.done for page in again for result in page) == 5
    assert town.results() == [float(n) for n in range(25) if n % 5]
    assert town.counts() == (46, 20, 0, 26, 20)
    third = list(town.mender.redecode("farms", WHO, "bad-json"))
    assert [[result.done for result in page] for page in third] == [[False] * 5]
    assert len(town.acts()) == 25, "what was tried in vain by the same is noted once"
    assert list(town.mender.redecode("farms", WHO, gateway="nobody")) == []


def test_a_payload_that_the_database_refuses_spoils_no_other(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = send_broken(town, *(body(number, at=NOW + number * SECOND) for number in range(5)))
    with psycopg.connect(town.url) as owner:
        owner.execute("ALTER TABLE observation ADD CONSTRAINT unlucky CHECK (result <> 3)")
    (page,) = town.mender.redecode("farms", WHO)
    refused = [result for result in page if not result.done]
    assert [(result.id, result.reason) for result in refused] == [(ids[3], "storage-refused")]
    assert town.results() == [0, 1, 2, 4]
    town.counts()


@pytest.fixture
def personal(monkeypatch: pytest.MonkeyPatch, town: Town) -> Town:
    """The same town where farms are a personal sector, and its key is at hand."""
    module = domains.load("farms", "sector")
    sector = replace(module.SECTOR, data_class=DataClass.PERSONAL)
    monkeypatch.setattr(module, "SECTOR", sector)
    load_keys(town.settings.data / "keys", create=True)
    return Town(town.url, town.settings.data)


def test_a_sealed_rejection_is_mended_by_the_keys_holder_alone(personal: Town) -> None:
    one, two, three, four = send_broken(personal, *(body(n) for n in range(4)))
    acts: list[Any] = [
        lambda m: m.replay(one, WHO),
        lambda m: m.fix(two, WHO, "r", body(5, at=NOW + SECOND)),
        lambda m: m.discard(three, WHO, "r"),
        lambda m: m.open_sealed(four, WHO),
    ]
    for act in acts:
        with pytest.raises(CityError, match="sealed") as told:
            act(personal.mender)
        assert told.value.slug == "forbidden"
    assert len(personal.ids()) == 4
    holder = Mender(personal.settings, seal.load_private_key(personal.settings.data / "keys"))
    for act in acts:
        act(holder)
    assert acts[3](holder)[1] == body(3)
    assert personal.ids() == [four]
    assert personal.query("SELECT result FROM personal.observation ORDER BY 1") == [(0,), (5,)]
    everything = personal.query("SELECT to_jsonb(r)::text FROM rejection r")
    everything += personal.query("SELECT to_jsonb(a)::text FROM rejection_act a")
    for (text,) in everything:
        assert "soil-moisture" not in text
        assert b"soil-moisture".hex() not in text
    assert [row[2:4] for row in personal.acts()] == [
        ("replay", True), ("fix", True), ("discard", True), ("unseal", True), ("unseal", True),
    ]  # fmt: skip
    assert personal.counts() == (6, 2, 0, 4, 2)


def test_what_is_tried_in_vain_does_not_quote_a_sealed_payload(personal: Town) -> None:
    (one,) = send_broken(personal, b'[{"thing": "taro", "result": 1}]')
    holder = Mender(personal.settings, seal.load_private_key(personal.settings.data / "keys"))
    with pytest.raises(CityError, match="still rejected"):
        holder.replay(one, WHO)
    ((why,),) = personal.query("SELECT reason FROM rejection_act")
    assert why == "invalid-item"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("break"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.sampled_from(["replay", "fix", "discard"]), st.integers(0, 8), st.just(0)),
        st.tuples(st.just("redecode"), st.just(0), st.just(0)),
    ),
    max_size=14,
)  # fmt: skip


class Model:
    """Plain Python: which messages are open, and what the account must say."""

    def __init__(self) -> None:
        self.stored: set[tuple[int, int]] = set()
        self.open: dict[int, list[Any]] = {}  # id -> [key, gateway number, times]
        self.counts = [0, 0, 0, 0, 0]

    def receive(self, key: tuple[int, int]) -> None:
        new = key not in self.stored
        self.stored.add(key)
        self.add(1, int(new), int(not new), 0, 0)

    def add(self, *numbers: int) -> None:
        self.counts = [a + b for a, b in zip(self.counts, numbers, strict=True)]


def step(town: Town, model: Model, what: tuple[str, int, int]) -> None:
    act, number, gateway = what
    if act == "send":
        town.send(body(number, thing=f"t{number}"), gateway=f"g{gateway}")
        model.receive((number, number))
    elif act == "break":
        before = set(town.ids())
        with broken():
            town.send(body(number, thing=f"t{number}"), gateway=f"g{gateway}")
        model.add(1, 0, 0, 1, 0)
        again = [each for each in model.open.values() if each[:2] == [number, gateway]]
        if again:
            again[0][2] += 1
            assert set(town.ids()) == before
        else:
            (new,) = set(town.ids()) - before
            model.open[new] = [number, gateway, 1]
    elif act == "redecode":
        results = [each for page in town.mender.redecode("farms", WHO) for each in page]
        assert [each.id for each in results] == sorted(model.open)
        for rejection in sorted(model.open):
            recover(model, rejection, model.open[rejection][0])
    elif model.open:
        rejection = sorted(model.open)[number % len(model.open)]
        if act == "replay":
            town.mender.replay(rejection, WHO)
            recover(model, rejection, model.open[rejection][0])
        elif act == "fix":
            town.mender.fix(rejection, WHO, "r", body(9, thing="t9"))
            recover(model, rejection, 9)
        else:
            town.mender.discard(rejection, WHO, "r")
            del model.open[rejection]
        with pytest.raises(CityError, match=r"is (replayed|fixed|discarded)"):
            town.mender.replay(rejection, WHO)


def recover(model: Model, rejection: int, number: int) -> None:
    model.receive((number, number))
    model.add(0, 0, 0, 0, model.open.pop(rejection)[2])


@given(steps=STEPS)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_acts_agrees_with_a_model(
    town: Town, steps: list[tuple[str, int, int]]
) -> None:
    with psycopg.connect(town.url) as owner:
        owner.execute(
            "TRUNCATE rejection, rejection_quota, recovered, account, account_total, observation,"
            " latest"
        )
        owner.execute("UPDATE projection SET append_id = (SELECT max(append_id) FROM sector_log)")
    fresh = Town(town.url, town.settings.data)
    model = Model()
    for what in steps:
        step(fresh, model, what)
        assert list(fresh.counts()) == model.counts
        assert fresh.ids() == sorted(model.open)
    assert fresh.results() == sorted(float(number) for number, _ in model.stored)
