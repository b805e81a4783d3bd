"""Erasure over the real server: at once, whole, for good, and in every copy."""

import hashlib
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

import domains
from consent import receipts
from consent.personal import Question, span_of
from consent.vocabulary import Operation
from core.clock import from_datetime, now_us
from core.errors import CityError
from core.formats import plain
from core.sector import Context
from core.settings import Settings
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session
from core.tokens import Principal, Role
from deploy import postgres
from tests.api.conftest import Served, serving
from tests.api.test_disclosures import disclose, receipts_of
from tests.api.town import DAY, Town
from tests.consent.oracle import Row

SECONDS_MAX = 30.0


def peopled(served: Served, connection: psycopg.Connection[Any]) -> Town:
    """Ai has a band, Ken a watch, both a scale; the clinic reads all of it."""
    town = Town(served, connection)
    town.register("clinic")
    for thing, persons in (("band", ["ai"]), ("watch", ["ken"]), ("scale", ["ai", "ken"])):
        town.bind(thing, persons, (DAY, None))
        for n in range(4):
            town.store(Row((thing, "heart-rate"), DAY + timedelta(minutes=n), n + 0.5))
    for person in ("ai", "ken"):
        assert town.grant(person).status_code == 200
    return town


@pytest.fixture
def town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """On either kind of server."""
    settings = Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)
    with serving(settings) as served, psycopg.connect(storage_url, autocommit=True) as connection:
        yield peopled(served, connection)


def value(town: Town, query: str, *values: Any) -> Any:
    found = town.connection.execute(query.encode(), values).fetchone()
    assert found is not None
    return found[0]


def erase(town: Town, person: str, erasure: str | None = None) -> str:
    erasure = erasure or str(uuid4())
    answer = town.send("PUT", f"/v1/me/erasure/{erasure}", Role.CITIZEN, person)
    assert answer.status_code == 200, answer.text
    return erasure


def state(town: Town, erasure: str, person: str = "ai") -> dict[str, Any]:
    answer = town.send("GET", f"/v1/me/erasure/{erasure}", Role.CITIZEN, person)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def finished(town: Town, erasure: str) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := state(town, erasure))["done_at"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_property_22_erase_deletes_all_that_is_theirs(town: Town) -> None:
    assert len(town.ask("clinic")) == 12
    number = town.number("ai")
    erasure = erase(town, "ai")
    assert {row["result"] for row in town.ask("clinic")} == {0.5, 1.5, 2.5, 3.5}
    assert len(town.ask("clinic")) == 4, "what describes others too goes with it"
    assert erase(town, "ai", erasure) == erasure, "the same act again"
    finished(town, erasure)
    assert value(town, "SELECT count(*) FROM personal.observation") == 4
    assert value(town, "SELECT key FROM consent.subject WHERE id = %s", number) is None
    names = "SELECT count(*) FROM {} AS t WHERE t::text ~ '(^|[(,\"])ai([),\"]|$)'"
    for table in ("consent.log", "audit.decision", "consent.subject", "audit.provision"):
        assert value(town, names.format(table)) == 0, table
    assert value(town, "SELECT count(*) FROM consent.log WHERE actor = %s", f"person/{number}") == 2
    before = value(town, "SELECT array_agg(g ORDER BY g::text) FROM consent.granted g")
    town.connection.execute("SELECT consent.replay()")
    assert before == value(town, "SELECT array_agg(g ORDER BY g::text) FROM consent.granted g")
    assert town.grant("ai").status_code == 200, "who comes back begins anew"
    assert town.number("ai") != number
    assert len(town.ask("clinic")) == 4


def test_property_22_an_answer_under_way_is_not_handed_over(town: Town) -> None:
    """A chunk that was read before ERASE answered is read anew, like after a revoke."""
    gate = town.served.app.state.gate
    clinic = Principal(Role.RECIPIENT, "clinic", None, None, frozenset({"read:personal"}), 0)
    health = domains.sector("health")
    question = Question(
        health, "dpv:ServiceManagement", "pd:MedicalHealth", Operation.READ, span_of("", ""), 50
    )
    chunk = gate.disclose(clinic, question)
    assert len(chunk.rows) == 12
    erase(town, "ai")
    assert gate.lease(chunk) is None


def test_property_22_proofs_still_hold_and_tell_no_more(town: Town) -> None:
    key = receipts.public_key(
        town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()["key"]
    )
    disclosure = disclose(town, "clinic")
    before = receipts_of(town, disclosure, Role.RECIPIENT, "clinic")
    erase(town, "ai")
    after = receipts_of(town, disclosure, Role.RECIPIENT, "clinic")
    assert len(before) == len(after) == 3
    for old, new in zip(before, after, strict=True):
        assert receipts.check_receipt(old, key).text == old["record"], "what was told holds still"
        assert receipts.check_receipt(new, key).index == old["index"]
    erased = [each for each in after if each["record"] is None]
    assert len(erased) == 2, "hers, and the one that she shares; Ken's own is read as before"
    assert all(each["salt"] is None for each in erased)
    for each in erased:
        forged = {**each, "leaf": "00" * 32}
        with pytest.raises(CityError):
            receipts.check_receipt(forged, key)
    stored = value(town, "SELECT string_agg(record, ' ') FROM audit.leaf")
    assert "clinic" not in stored, "the database has them sealed"
    # What has no place yet when the key is gone gets one, and no text.
    town.bind("band-2", ["mio"], (DAY, None))
    town.store(Row(("band-2", "heart-rate"), DAY, 9.5))
    town.grant("mio")
    late = disclose(town, "clinic")
    erase(town, "mio")
    found = receipts_of(town, late, Role.RECIPIENT, "clinic")
    assert [each["record"] is None for each in found].count(True) == 1
    assert all(receipts.check_receipt(each, key) for each in found)


def append(town: Town, observations: list[dict[str, Any]]) -> None:
    """As an ingestor appends."""
    payload, sector = plain.encode(observations), domains.sector("health")
    decoded = plain.decode(payload, Context("g", now_us()))
    message = Message("g", "json", "", now_us(), payload, hashlib.sha256(payload).digest(), decoded)
    with open_session(town.served.database_url, DatabaseRole.INGEST) as session:
        (outcome,) = SectorStore(sector).append(session, [message])
    assert (outcome.result, outcome.counts.stored) == ("stored", len(observations))


def test_property_22_late_rows_stay_away(town: Town) -> None:
    def observed(minutes: int, result: float, thing: str = "band") -> dict[str, Any]:
        moment = from_datetime(DAY + timedelta(minutes=minutes))
        return {
            "thing": thing, "property": "heart-rate", "result": result,
            "phenomenon_time": moment, "unit": "1",
        }  # fmt: skip

    count = "SELECT count(*) FROM personal.observation o"
    append(town, [observed(30, 61.0), observed(31, 62.0)])
    append(town, [observed(30, 63.0)])
    assert value(town, count) == 14
    assert value(town, "SELECT count(*) FROM personal.superseded") == 1
    finished(town, erase(town, "ai"))
    assert value(town, count) == 4
    assert value(town, "SELECT count(*) FROM personal.superseded") == 0
    # Of a time in which it was hers, also as a correction, and of a series that is new.
    append(town, [observed(0, 99.5), observed(40, 98.5), observed(41, 97.5, "scale")])
    assert value(town, count) == 4
    append(town, [observed(50, 70.0, "watch")])
    assert value(town, count) == 5, "others' come late as ever"
    assert len(town.ask("clinic")) == 5


NAME = "quite-unmistakable-person"
NUMBER, LONGITUDE = 61.123456789012345, 139.12345678901234
TEXT = "a document that tells of her"
MARKS = (
    NAME.encode(), TEXT.encode(), struct.pack("<d", NUMBER), struct.pack("<d", LONGITUDE),
)  # fmt: skip


def test_property_22_no_file_holds_it_any_more(
    database_template: postgres.Server, database_url: str, tmp_path: Path
) -> None:
    """The files of the database, byte by byte: rows, corrected rows, names, statistics."""
    cluster = database_template.folder / "cluster"
    settings = Settings(database_url=database_url, data=tmp_path / "data", page_rows_max=50)
    with (
        serving(settings) as served,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        town = Town(served, connection)
        folder = cluster / "base" / str(value(town, OID))

        def held() -> list[bool]:
            with database_template.connect_as_admin() as admin:
                admin.autocommit = True
                admin.execute("CHECKPOINT")
            content = b"".join(p.read_bytes() for p in folder.iterdir() if p.is_file())
            return [mark in content for mark in MARKS]

        town.register("clinic")
        town.bind("band", [NAME], (DAY, None))
        town.bind("watch", ["ken"], (DAY, None))
        town.grant(NAME)
        for n in range(300):
            moment = DAY + timedelta(minutes=n)
            town.insert(("band", "heart-rate"), "number", "observation", moment, NUMBER)
            town.insert(("band", "place"), "position", "observation_position", moment,
                        LONGITUDE, 35.0, None, None)  # fmt: skip
            town.insert(("band", "note"), "document", "observation_document", moment, Jsonb(TEXT))
        town.store(Row(("watch", "heart-rate"), DAY, 77.0))
        connection.execute(SUPERSEDE, {"text": TEXT})
        assert len(town.ask("clinic")) == 300
        connection.execute("ANALYZE")
        assert held() == [True] * len(MARKS), "the test finds them while they are there"
        finished(town, erase(town, NAME))
        assert held() == [False] * len(MARKS)
        assert value(town, "SELECT result FROM personal.observation") == 77.0
    keys = (tmp_path / "data" / "keys" / "subjects").read_bytes()
    assert NAME.encode() not in keys


OID = "SELECT oid FROM pg_database WHERE datname = current_database()"
SUPERSEDE = """
INSERT INTO personal.superseded
SELECT id, now(), to_jsonb(%(text)s::text), 1, 2 FROM datastream WHERE property = 'note'
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from consent import erasure
from consent.gate import Gate
from consent.subject_keys import SubjectKeys
from core.settings import Settings

gate = Gate(Settings(database_url=sys.argv[1], data=Path(sys.argv[2])))
erasure.ROWS_A_STEP = 2
delete, left = erasure.DELETE_SPAN, 3
class Dying(str):
    def format(self, **parts):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return delete.format(**parts)
erasure.DELETE_SPAN = Dying(delete)
erasure.turn(gate, SubjectKeys(Path(sys.argv[2]) / "keys" / "subjects"))
"""


def test_property_22_a_killed_erasure_goes_on(database_url: str, tmp_path: Path) -> None:
    """The process dies after some rows: nothing is read meanwhile, and the next start finishes."""
    settings = Settings(database_url=database_url, data=tmp_path, page_rows_max=50)
    with psycopg.connect(database_url, autocommit=True) as connection:
        with serving(settings) as served:
            town = peopled(served, connection)
            for worker in served.app.state.workers:
                worker.stop()
            erasure = erase(town, "ai")
            script = [sys.executable, "-c", KILLED, database_url, str(tmp_path)]
            assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
            left = value(town, "SELECT count(*) FROM personal.observation")
            assert 4 < left < 12, "some are gone, some are not"
            assert len(town.ask("clinic")) == 4
            assert state(town, erasure)["rows_at"] is None
        with serving(settings) as served:
            town = Town(served, connection)
            told = finished(town, erasure)
            assert told["at"] <= told["rows_at"] <= told["done_at"]
            assert value(town, "SELECT count(*) FROM personal.observation") == 4


def as_admin(server: postgres.Server, name: str) -> str:
    """A copy is restored by the server's administrator: it has tables of several owners."""
    with server.connect_as_admin() as connection:
        info = connection.info
        return make_conninfo(host=info.host, user=info.user, password=info.password, dbname=name)


def test_property_22_a_restored_copy_forgets_again(
    database_template: postgres.Server, database_url: str, tmp_path: Path
) -> None:
    """Dump, erase, restore, start: nothing of the person is served, and nothing stays."""
    name = f"{database_url.rpartition('/')[2].partition('?')[0]}_copy"
    tools, dump = postgres.wheel() / "bin", tmp_path / "dump"
    settings = Settings(database_url=database_url, data=tmp_path, page_rows_max=50)
    with (
        serving(settings) as served,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        town = peopled(served, connection)
        subprocess.run([tools / "pg_dump", "-Fc", "-f", dump, database_url], check=True)
        erasure = erase(town, "ai")
        # Born after the dump: the copy will give her number to somebody else.
        assert town.grant("mio").status_code == 200
        erase(town, "mio")
    copy = database_template.create_database(name)
    try:
        subprocess.run(
            [tools / "pg_restore", "-d", as_admin(database_template, name), dump], check=True
        )
        with psycopg.connect(copy, autocommit=True) as connection:
            restored = Settings(database_url=copy, data=tmp_path, page_rows_max=50)
            count = "SELECT count(*) FROM personal.observation"
            assert connection.execute(count).fetchone() == (12,), "the dump holds them"
            with serving(restored) as served:
                town = Town(served, connection)
                assert value(town, count) == 4, "before it serves"
                assert len(town.ask("clinic")) == 4
                assert state(town, erasure)["at"], "the same act"
                assert town.send("GET", "/v1/me/disclosures", Role.CITIZEN, "ai").json() == {
                    "deliveries": [], "next": None
                }  # fmt: skip
                assert town.grant("new").status_code == 200
            with serving(restored) as served:
                assert Town(served, connection).number("new"), "whoever has mio's number is another"
    finally:
        database_template.drop_database(name)
