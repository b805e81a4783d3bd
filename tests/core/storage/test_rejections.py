"""The rejection store on both servers: what is kept, what is let go, and counts that stay true."""

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from core.clock import now_us
from core.sensorthings import Decoded, Rejected
from core.storage.account import account
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session
from core.storage.rejections import Keeping, fold_old, unsealed
from tests.core.storage.test_append import NOW, PERSONAL, SECTOR

KEY = X25519PrivateKey.generate()
HOUR = 3_600_000_000


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with open_session(storage_url, DatabaseRole.INGEST) as session:
        yield session


def bad(*payloads: bytes, gateway: str = "g", at: int = NOW, form: str | None = "") -> Message:
    """A message of which these items were rejected."""
    lost = tuple(Rejected("bad-row", f"row: {p!r}", p, i, form) for i, p in enumerate(payloads))
    whole = b"".join(payloads)
    decoded = Decoded(rejected=lost, messages=1)
    return Message(gateway, "json", "test", at, whole, hashlib.sha256(whole).digest(), decoded)


def rows(connection: psycopg.Connection[Any], columns: str) -> list[Any]:
    found = connection.execute(f"SELECT {columns} FROM rejection ORDER BY id".encode()).fetchall()
    connection.commit()
    return found


def quota(connection: psycopg.Connection[Any]) -> list[Any]:
    found = connection.execute("SELECT * FROM rejection_quota ORDER BY 1, 2").fetchall()
    connection.commit()
    return found


def check_counts(connection: psycopg.Connection[Any]) -> None:
    """Of every source and hour the counts of its rejections are what its account says."""
    told = "SELECT gateway, sector, format, hour, sum({0})::bigint FROM {1} GROUP BY 1, 2, 3, 4"
    kept = set(connection.execute(told.format("count", "rejection").encode()).fetchall())
    said = set(connection.execute(told.format("rejected", "account").encode()).fetchall())
    assert kept == {each for each in said if each[4]}
    assert all(line.adds_up for line in account(connection))
    connection.commit()


def test_an_item_is_kept_with_what_it_can_be_taken_in_as(
    connection: psycopg.Connection[Any],
) -> None:
    store = SectorStore(SECTOR)
    messages = [bad(b"one"), bad(b"two", form="csv"), bad(b"three", form=None), bad(b"")]
    store.append(connection, messages)
    assert rows(connection, "payload, item_format, bytes, state, sealed, data_class") == [
        (b"one", "json", 3, "open", False, "open"),
        (b"two", "csv", 3, "open", False, "open"),
        (b"three", None, 5, "open", False, "open"),
        (b"", None, 0, "open", False, "open"),
    ]
    assert quota(connection) == [("toy", "g", 4, 11)]
    check_counts(connection)


def test_a_repeat_is_counted_within_its_hour(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)
    store.append(connection, [bad(b"x"), bad(b"x", b"x")])
    store.append(connection, [bad(b"x"), bad(b"x", gateway="h")])
    store.append(connection, [bad(b"x", at=NOW + HOUR)])
    assert rows(connection, "gateway, item, count") == [
        ("g", 0, 3), ("g", 1, 1), ("h", 0, 1), ("g", 0, 1),
    ]  # fmt: skip
    check_counts(connection)


def test_above_the_bytes_a_rejection_keeps_its_hash(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR, Keeping(items_max=10, bytes_max=10))
    store.append(connection, [bad(b"12345678"), bad(b"abc"), bad(b"de")])
    store.append(connection, [bad(b"abc"), bad(b"abcdefgh", gateway="other")])
    assert rows(connection, "payload, sha256, bytes, count, gateway") == [
        (b"12345678", hashlib.sha256(b"12345678").digest(), 8, 1, "g"),
        (None, hashlib.sha256(b"abc").digest(), 3, 2, "g"),
        (b"de", hashlib.sha256(b"de").digest(), 2, 1, "g"),
        (b"abcdefgh", hashlib.sha256(b"abcdefgh").digest(), 8, 1, "other"),
    ]
    check_counts(connection)


def chain_of(*payloads: bytes) -> bytes:
    """What docs/rejections.md says that a chain is."""
    chain = b""
    for payload in payloads:
        link = hashlib.sha256(payload).digest() + (1).to_bytes(8, "big")
        chain = hashlib.sha256(chain + link).digest()
    return chain


def test_a_flood_of_distinct_garbage_does_not_fill_the_disk(
    connection: psycopg.Connection[Any],
) -> None:
    store = SectorStore(SECTOR, Keeping(items_max=20, bytes_max=1000))
    flood = [f"garbage {number}".encode() * 10 for number in range(5000)]
    for start in range(0, len(flood), 1000):
        store.append(connection, [bad(each) for each in flood[start : start + 1000]])
    store.append(connection, [bad(b"quiet", gateway="other")])
    kept = rows(connection, "gateway, folded, count, sha256, payload")
    assert len(kept) == 22
    assert sum(len(row[4] or b"") for row in kept if row[0] == "g") <= 1000
    (fold,) = (row for row in kept if row[1])
    assert (fold[0], fold[2], fold[4]) == ("g", 4980, None)
    assert bytes(fold[3]) == chain_of(*flood[20:])
    assert kept[-1][4] == b"quiet", "a flood costs no other gateway anything"
    store.append(connection, [bad(b"x" * 10, at=NOW + HOUR)])
    assert rows(connection, "folded, count")[-1] == (True, 1)
    check_counts(connection)


def test_what_a_personal_sector_rejects_is_sealed(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(PERSONAL, Keeping(key=KEY.public_key()))
    store.append(connection, [bad(b"secret"), bad(b"secret")])
    kept = rows(connection, "to_jsonb(rejection)::text, payload, sha256, gateway")
    assert len(kept) == 2
    for everything, payload, digest, gateway in kept:
        assert "secret" not in everything
        assert b"secret".hex() not in everything
        assert hashlib.sha256(b"secret").digest() not in (bytes(digest), bytes(payload))
        assert unsealed(KEY, "private", gateway, bytes(payload)) == ("row: b'secret'", b"secret")
    check_counts(connection)


def test_without_a_key_nothing_personal_is_kept(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(PERSONAL)
    store.append(connection, [bad(b"secret"), bad(b"secrets")])
    assert rows(connection, "payload, detail, item_format, folded, count, bytes") == [
        (None, "", None, True, 2, 13)
    ]
    check_counts(connection)


def test_a_flood_of_personal_garbage_is_bounded_too(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(PERSONAL, Keeping(items_max=5, bytes_max=10_000, key=KEY.public_key()))
    store.append(connection, [bad(f"secret {n}".encode()) for n in range(100)])
    assert [row[0] for row in rows(connection, "count")] == [1] * 5 + [95]
    check_counts(connection)


def age(connection: psycopg.Connection[Any], url: str, days: int) -> None:
    """As if everything had come so many days ago."""
    connection.rollback()
    with psycopg.connect(url) as owner:
        for table, columns in (
            ("rejection", ("first_seen", "last_seen", "hour")),
            ("account", ("hour",)),
        ):
            moved = ", ".join(f"{column} = {column} - interval '{days} days'" for column in columns)
            owner.execute(f"UPDATE {table} SET {moved}".encode())


def test_old_rejections_let_their_payload_go_and_stay_counted(
    connection: psycopg.Connection[Any], storage_url: str
) -> None:
    now = now_us()
    store = SectorStore(SECTOR, Keeping(items_max=3))
    many = [f"{number}".encode() for number in range(6)]
    store.append(connection, [bad(each, at=now) for each in many])
    store.append(connection, [bad(b"h", gateway="h", at=now), bad(b"0", at=now)])
    age(connection, storage_url, 40)
    store.append(connection, [bad(b"new", gateway="h", at=now)])
    assert fold_old(connection, 30) == 3
    assert fold_old(connection, 30) == 1
    assert fold_old(connection, 30) == 0
    connection.commit()
    assert sorted(rows(connection, "gateway, folded, count, payload")) == [
        ("g", True, 7, None), ("h", False, 1, b"new"), ("h", True, 1, None),
    ]  # fmt: skip
    assert quota(connection) == [("toy", "g", 0, 0), ("toy", "h", 1, 3)]
    check_counts(connection)
    store.append(connection, [bad(each, at=now) for each in many])
    assert len(rows(connection, "id")) == 7, "there is room again"
    check_counts(connection)


def test_two_gateways_fold_beside_appends(
    connection: psycopg.Connection[Any], storage_url: str
) -> None:
    """Folding waits for no quota but its own, so that an append never waits for it in a circle."""
    store = SectorStore(SECTOR)
    store.append(connection, [bad(b"1", gateway="a"), bad(b"2", gateway="b")])  # long ago
    age(connection, storage_url, 40)
    with open_session(storage_url, DatabaseRole.INGEST) as other:
        assert fold_old(other, 30) == 1
        connection.execute("SET lock_timeout = '5s'")
        store.append(connection, [bad(b"3", gateway="b", at=now_us())])
        other.commit()
        assert fold_old(other, 30) == 1
        other.commit()
    check_counts(connection)


def test_the_history_is_append_only(storage_url: str) -> None:
    with psycopg.connect(storage_url) as owner:
        owner.execute(
            "INSERT INTO rejection_act (rejection_id, who, act, done, reason, sha256)"
            " VALUES (1, 'w', 'discard', true, 'r', 'x')"
        )
        owner.commit()
        for statement in (
            "UPDATE rejection_act SET who = 'another'",
            "DELETE FROM rejection_act",
            "TRUNCATE rejection_act",
            "SET session_replication_role = replica; DELETE FROM rejection_act",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                owner.execute(statement.encode())
            owner.rollback()
