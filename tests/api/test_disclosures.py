"""Proofs of disclosures: to whom it concerns, offline, and no forged one holds."""

import base64
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consent import checks, merkle, proofs, receipts
from consent.gate import Gate
from consent.subject_keys import SubjectKeys
from core.errors import CityError
from core.settings import Settings
from core.tokens import Principal, Role, signing_key
from tests.api.conftest import Served
from tests.api.town import DAY, PATH, Town
from tests.consent.oracle import Row
from tests.platform import CHIMATA

SECONDS_MAX = 10.0
SELECT_LEAVES = """
SELECT l.index, p.decision, l.record FROM audit.leaf l JOIN audit.provision p ON p.id = l.provision
ORDER BY l.index
"""


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    """Ai and Ken let the clinic read; the gym may read Ken alone."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Town(served, connection)
        for recipient in ("clinic", "gym"):
            town.register(recipient)
        for person, thing in (("ai", "band"), ("ken", "watch")):
            town.bind(thing, [person], (DAY, None))
            assert town.grant(person).status_code == 200
            for n in range(3):
                town.store(Row((thing, "heart-rate"), DAY + timedelta(minutes=n), float(n)))
        assert town.grant("ken", recipient="gym").status_code == 200
        yield town


def disclose(town: Town, recipient: str) -> str:
    path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth"
    answer = town.send("GET", path, Role.RECIPIENT, recipient)
    assert answer.status_code == 200
    return str(answer.json()["disclosure"])


def receipts_of(town: Town, disclosure: str, role: Role, who: str) -> list[dict[str, Any]]:
    """Once the sequencer has been there."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        answer = town.send("GET", f"/v1/disclosures/{disclosure}/receipts", role, who)
        if answer.status_code != 503:
            break
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["receipts"]
    return found


def test_a_receipt_is_for_whom_it_concerns(town: Town) -> None:
    clinic, gym = disclose(town, "clinic"), disclose(town, "gym")
    both = receipts_of(town, clinic, Role.RECIPIENT, "clinic")
    assert [orjson.loads(r["record"])["rows"] for r in both] == [3, 3]
    for person in ("ai", "ken"):
        (one,) = receipts_of(town, clinic, Role.CITIZEN, person)
        assert one in both
        record = orjson.loads(one["record"])
        assert (record["recipient"], record["disclosure"]) == ("clinic", clinic)
        assert f'"{person}"' not in one["record"], "it has the names that its recipient was told"
    for disclosure, role, who in (
        (clinic, Role.RECIPIENT, "gym"),
        (gym, Role.CITIZEN, "ai"),
        (clinic, Role.CITIZEN, "mio"),
        (str(uuid4()), Role.RECIPIENT, "clinic"),
    ):
        path = f"/v1/disclosures/{disclosure}/receipts"
        assert town.send("GET", path, role, who).status_code == 404
    path = f"/v1/disclosures/{clinic}/receipts"
    assert town.send("GET", path, Role.OPERATOR, "office").status_code == 403


def test_it_holds_offline_and_nothing_forged_does(town: Town) -> None:
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    key = receipts.public_key(told["key"])
    disclosure = disclose(town, "clinic")
    receipt, other = receipts_of(town, disclosure, Role.RECIPIENT, "clinic")
    checked = receipts.check_receipt(receipt, key)
    assert checked.text == receipt["record"]
    note = receipt["checkpoint"]
    size = int(note.split("\n")[1])
    forged_note = receipts.Signer(Ed25519PrivateKey.generate()).sign(size, bytes(32))
    for change in (
        {"record": receipt["record"].replace('"rows":3', '"rows":2')},
        {"record": other["record"]},
        {"salt": other["salt"]},
        {"index": other["index"]},
        {"index": -1},
        {"proof": receipt["proof"][:-1]},
        {"proof": ["00" * 31]},
        {"proof": None},
        {"checkpoint": note.replace(f"\n{size}\n", f"\n{size + 1}\n")},
        {"checkpoint": forged_note},
        {"checkpoint": ""},
        {"checkpoint": note.rpartition("\n\n")[0]},
        {"salt": "zz"},
        {"index": 1e400},
    ):
        with pytest.raises(CityError) as caught:
            receipts.check_receipt({**receipt, **change}, key)
        assert caught.value.slug == "invalid", change
    with pytest.raises(CityError):
        receipts.check_receipt(receipt, Ed25519PrivateKey.generate().public_key())
    for content in (b"", b"[]", b"{}", b'{"receipts": [1]}', b"\xff"):
        with pytest.raises(CityError):
            assert list(checks.check(content, checks.Known(key))) == "nothing"


def test_the_command_checks_without_a_server(town: Town, tmp_path: Path) -> None:
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    file = tmp_path / "receipts.json"
    found = receipts_of(town, disclose(town, "clinic"), Role.RECIPIENT, "clinic")
    for change, code in (({}, 0), ({"index": 10**6}, 1)):
        file.write_bytes(orjson.dumps({"receipts": [{**each, **change} for each in found]}))
        done = subprocess.run(
            [str(CHIMATA), "verify", str(file), "--key", told["key"]],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
    assert "proof" in done.stderr


def test_the_tree_only_grows(town: Town) -> None:
    """Each checkpoint is the beginning of the next, over all batches of leaves."""
    for _ in range(4):
        receipts_of(town, disclose(town, "clinic"), Role.RECIPIENT, "clinic")
        receipts_of(town, disclose(town, "gym"), Role.RECIPIENT, "gym")
    connection = town.connection
    notes = connection.execute("SELECT note FROM audit.checkpoint ORDER BY size").fetchall()
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    key = receipts.public_key(told["key"])
    trees = [receipts.open_checkpoint(note, key) for (note,) in notes]
    assert len(trees) > 2
    assert told["checkpoint"] == notes[-1][0]
    nodes = proofs.nodes_of(connection)
    for (old, before), (size, after) in itertools.pairwise(trees):
        proof = merkle.consistency_proof(old, size, nodes)
        assert merkle.is_consistent(old, size, before, after, proof)
        path = f"/v1/disclosures/consistency?from={old}&to={size}"
        answer = town.send("GET", path, Role.CITIZEN, "ai")
        assert answer.json()["proof"] == [hashed.hex() for hashed in proof]
        (held,) = checks.check(answer.content, checks.Known(key))
        assert held == f"holds: the tree of {old} leaves is the beginning of the one of {size}"
    assert connection.execute("SELECT count(*) FROM audit.leaf").fetchone() == (trees[-1][0],)
    assert trees[-1][0] == 4 * 3


def test_a_checkpoint_that_was_kept_is_the_beginning_of_the_newest(
    town: Town, tmp_path: Path
) -> None:
    """By the command, without a server; another tree's is not, nor is a forged proof."""
    receipts_of(town, disclose(town, "clinic"), Role.RECIPIENT, "clinic")
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    receipts_of(town, disclose(town, "gym"), Role.RECIPIENT, "gym")
    answer = town.send("GET", "/v1/disclosures/consistency", Role.CITIZEN, "ai").json()
    assert answer["old"] == told["checkpoint"]
    signer = receipts.Signer(signing_key(town.served.app.state.settings))
    other = signer.sign(2, bytes(32))
    key = receipts.public_key(told["key"])
    for change, kept, reason in (
        ({}, told["checkpoint"], None),
        ({}, answer["new"], "kept"),
        ({}, other, "kept"),
        ({"proof": []}, None, "proof"),
        ({"proof": [*answer["proof"], "00" * 32]}, None, "proof"),
        ({"proof": ["z"]}, None, "proof"),
        ({"proof": 7}, None, "proof"),
        ({"old": other}, None, "proof"),
        ({"new": answer["old"], "old": answer["new"]}, None, "proof"),
        ({"new": "no note"}, None, "checkpoint"),
    ):
        content = orjson.dumps({**answer, **change})
        known = checks.Known(key, kept=kept)
        if reason is None:
            assert "nothing of the 2 leaves" in next(checks.check(content, known))
            continue
        with pytest.raises(CityError) as caught:
            list(checks.check(content, known))
        assert caught.value.fields[0].name == reason, change
    file, note = tmp_path / "proof.json", tmp_path / "kept.txt"
    file.write_bytes(orjson.dumps(answer))
    note.write_text(told["checkpoint"])
    done = subprocess.run(
        [str(CHIMATA), "verify", str(file), "--key", told["key"], "--kept", str(note)],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for query in ("?from=1", "?from=2&to=1", "?from=2&to=99"):
        path = f"/v1/disclosures/consistency{query}"
        assert town.send("GET", path, Role.CITIZEN, "ai").status_code == 404


def pages(town: Town, limit: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every chunk that the clinic gets: its disclosure and its rows."""
    path = f"{PATH}?purpose=dpv:ServiceManagement&category=pd:MedicalHealth&limit={limit}"
    while path:
        page = town.send("GET", path, Role.RECIPIENT, "clinic").json()
        yield page["disclosure"], page["observations"]
        path = page["next"]


def folded(town: Town) -> dict[str, list[Any]]:
    """All state that the log makes."""
    names = town.connection.execute("SELECT name FROM consent.folded ORDER BY number").fetchall()
    return {
        name: town.connection.execute(
            f"SELECT * FROM consent.{name} ORDER BY {name}::text".encode()
        ).fetchall()
        for (name,) in names
    }


LIVE_AT = """
SELECT count(*), bool_and(g.event @> %(first)s::timestamptz AND g.event @> %(last)s::timestamptz),
       array_agg(DISTINCT g.subject ORDER BY g.subject)
FROM consent.granted g JOIN consent.recipient r ON r.id = g.recipient
WHERE g.grant_id = ANY(%(grants)s) AND r.key = %(recipient)s
  AND g.sigma <= %(sigma)s AND coalesce(g.ended > %(sigma)s, true)
"""


def test_property_21_every_row_leads_to_one_record_its_grants_and_a_leaf(town: Town) -> None:
    """Row -> the one record that counts it -> grants live at its number -> a signed leaf."""
    town.bind("tandem", ["ai", "ken"], (DAY, None))
    for n in range(5):
        town.store(Row(("tandem", "heart-rate"), DAY + timedelta(minutes=n), float(n)))
    got = [each for _ in range(2) for each in pages(town, 4)]
    listed = town.send("GET", "/v1/consent/grants", Role.CITIZEN, "ken").json()["grants"]
    (given,) = [each["id"] for each in listed if each["recipient"] == "clinic"]
    assert town.grant("ken", given, resolution="minute").status_code == 200
    got += pages(town, 3)
    assert town.revoke("ken", given).status_code == 200
    got += pages(town, 50)
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    key = receipts.public_key(told["key"])
    leaves: set[int] = set()
    for disclosure, rows in got:
        records = []
        for receipt in receipts_of(town, disclosure, Role.RECIPIENT, "clinic"):
            checked = receipts.check_receipt(receipt, key)
            assert checked.index not in leaves, "one leaf a record"
            leaves.add(checked.index)
            records.append(orjson.loads(checked.text))
        for row in rows:
            leading = [
                each
                for each in records
                if (each["thing"], each["property"]) == (row["thing"], row["property"])
                and sorted(each["persons"]) == sorted(row["persons"])
                and each["time_min"] <= row["phenomenon_time"] <= each["time_max"]
            ]
            assert len(leading) == 1
        assert sum(each["rows"] for each in records) == len(rows), "and none counts another"
        for each in records:
            scope = {
                "grants": [UUID(grant) for grant in each["grants"]], "sigma": each["sigma"],
                "recipient": each["recipient"], "first": each["time_min"],
                "last": each["time_max"],
            }  # fmt: skip
            live = town.connection.execute(LIVE_AT, scope).fetchone()
            assert live is not None
            assert live[:2] == (len(each["grants"]), True)
            assert len(live[2]) == len(each["persons"]), "a grant of each person"
    assert sum(len(rows) for _, rows in got) == 3 * 11 + 3
    before = folded(town)
    assert len(before["granted"]) > 3
    acts = town.connection.execute("SELECT count(*) FROM consent.log").fetchone()
    assert town.connection.execute("SELECT consent.replay()").fetchone() == acts
    assert folded(town) == before


def test_receipts_look_the_tree_up_once(town: Town) -> None:
    """However many records a disclosure has."""
    disclosure = disclose(town, "clinic")
    assert len(receipts_of(town, disclosure, Role.RECIPIENT, "clinic")) == 2
    asked: list[str] = []

    class Counting:
        def execute(self, query: Any, *rest: Any) -> Any:
            asked.append(str(query))
            return town.connection.execute(query, *rest)

    clinic = Principal(Role.RECIPIENT, "clinic", None, None, frozenset(), 0)
    keys = SubjectKeys.of(town.served.app.state.settings)
    found = proofs.receipts(Counting(), clinic, UUID(disclosure), keys)  # type: ignore[arg-type]
    assert found is not None
    assert len(found) == 2
    assert len([query for query in asked if "audit.node" in query]) == 1


def test_each_record_gets_one_place_whoever_sequences(database_url: str, tmp_path: Path) -> None:
    """Several processes at once, and one that fails before its commit."""
    from tests.api.conftest import serving

    settings = Settings(database_url=database_url, data=tmp_path, page_rows_max=50)
    with serving(settings) as served, psycopg.connect(database_url, autocommit=True) as connection:
        town = Town(served, connection)
        town.register("clinic")
        town.bind("band", ["ai"], (DAY, None))
        town.grant("ai")
        town.store(Row(("band", "heart-rate"), DAY, 1.0))
        gates = [Gate(settings) for _ in range(3)]
        keys = SubjectKeys.of(settings)
        signer, stop = receipts.Signer(Ed25519PrivateKey.generate()), threading.Event()

        class Failing(receipts.Signer):
            def sign(self, size: int, root: bytes) -> str:
                raise CityError("unavailable", "no key today")

        def sequence(gate: Gate, by: receipts.Signer) -> None:
            while not stop.is_set():
                try:
                    gate.sequence(by, town.keys.secret, keys)
                except CityError:
                    continue

        signers = (signer, signer, Failing(Ed25519PrivateKey.generate()))
        threads = [
            threading.Thread(target=sequence, args=each)
            for each in zip(gates, signers, strict=True)
        ]
        for thread in threads:
            thread.start()
        made = {disclose(town, "clinic") for _ in range(60)}
        deadline = time.monotonic() + SECONDS_MAX
        while connection.execute("SELECT count(*) FROM audit.unsequenced").fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        for gate in gates:
            gate.close()
        rows = connection.execute(SELECT_LEAVES).fetchall()
        assert [index for index, _, _ in rows] == list(range(60))
        assert {str(decision) for _, decision, _ in rows} == made
        assert not any(record.startswith("{") for _, _, record in rows), "they are sealed"


def test_a_commitment_tells_nothing_without_its_salt() -> None:
    record = '{"rows":3}'
    one, other = receipts.commitment(b"a" * 32, record), receipts.commitment(b"b" * 32, record)
    assert one != other


def test_a_person_sees_who_got_what(town: Town) -> None:
    first, second = disclose(town, "clinic"), disclose(town, "gym")
    listed = town.send("GET", "/v1/me/disclosures?limit=1", Role.CITIZEN, "ken").json()
    (newest,) = listed["deliveries"]
    assert (newest["disclosure"], newest["recipient"], newest["rows"]) == (second, "gym", 3)
    assert (newest["thing"], newest["property"]) == ("watch", "heart-rate")
    assert newest["purpose"] == "dpv:ServiceManagement"
    rest = town.send("GET", listed["next"], Role.CITIZEN, "ken").json()
    assert [each["disclosure"] for each in rest["deliveries"]] == [first]
    assert rest["next"] is None
    assert town.send("GET", "/v1/me/disclosures", Role.CITIZEN, "mio").json()["deliveries"] == []
    assert town.send("GET", "/v1/me/disclosures", Role.RECIPIENT, "gym").status_code == 403
    bad = base64.urlsafe_b64encode(b"yesterday").decode()
    answer = town.send("GET", f"/v1/me/disclosures?after={bad}", Role.CITIZEN, "ken")
    assert answer.status_code == 422


def test_a_recipient_keeps_the_same_records(town: Town) -> None:
    """Its own alone, by the names it knows, page after page."""
    shown = [r for _ in range(2) for r in town.ask("clinic")]
    town.ask("gym")
    found: list[dict[str, Any]] = []
    path = "/v1/disclosures?limit=3"
    while path:
        page = town.send("GET", path, Role.RECIPIENT, "clinic").json()
        found, path = found + page["received"], page["next"]
    assert len(found) == 4
    assert sum(each["rows"] for each in found) == len(shown)
    assert {each["thing"] for each in found} == {r["thing"] for r in shown}
    assert {tuple(e["persons"]) for e in found} == {tuple(r["persons"]) for r in shown}
    assert all(each["grants"] for each in found)
    for role, who in ((Role.CITIZEN, "ai"), (Role.OPERATOR, "office")):
        assert town.send("GET", "/v1/disclosures", role, who).status_code == 403


@pytest.mark.parametrize("table", ["leaf", "node", "checkpoint"])
def test_the_tree_is_append_only(town: Town, table: str) -> None:
    receipts_of(town, disclose(town, "clinic"), Role.RECIPIENT, "clinic")
    changes = (f"DELETE FROM audit.{table}", f"TRUNCATE audit.{table}")
    for change in (*changes, "UPDATE audit.leaf SET record = 'another'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            town.connection.execute(change.encode())
