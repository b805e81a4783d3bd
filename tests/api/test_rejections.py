"""Reading the rejection store: who may, what is shown, and what of a personal sector never is."""

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from core.tokens import Role, issue, load_keys
from tests.api.city import START
from tests.api.conftest import Served

INSERT = """
INSERT INTO rejection (sector, gateway, format, channel, boot, seq, item, reason, detail, sha256,
                       payload, count, first_seen, last_seen, hour, data_class, sealed,
                       item_format, bytes, folded, state)
VALUES (%(sector)s, %(gateway)s, 'csv', 'mqtt', 'b', 1, %(item)s, %(reason)s, %(detail)s,
        sha256(%(payload)s), %(payload)s, %(count)s, %(seen)s, %(seen)s,
        date_trunc('hour', %(seen)s::timestamptz, 'UTC'), %(data_class)s, %(sealed)s, 'csv',
        coalesce(length(%(payload)s), 0), false, %(state)s)
RETURNING id
"""
SECRET = "taro-9876"
ITEMS = itertools.count()


@pytest.fixture
def connection(served: Served) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(served.database_url, autocommit=True) as session:
        yield session


def put(connection: psycopg.Connection[Any], **changed: Any) -> int:
    values = {
        "sector": "farms", "gateway": "g1", "reason": "bad-row", "detail": "row: bad",
        "payload": b"a,b\n", "count": 1, "seen": START, "data_class": "open", "sealed": False,
        "state": "open", "item": next(ITEMS), **changed,
    }  # fmt: skip
    row = connection.execute(INSERT, values).fetchone()
    assert row is not None
    return int(row[0])


def sealed(connection: psycopg.Connection[Any]) -> int:
    return put(
        connection, sector="health", gateway=f"home-{SECRET}", payload=SECRET.encode(),
        detail="", data_class="personal", sealed=True, seen=START + timedelta(minutes=17),
    )  # fmt: skip


def ids(served: Served, query: str = "", role: Role = Role.OPERATOR) -> list[int]:
    answer = served.get("/v1/rejections" + query, role)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["rejections"]]


def test_it_is_for_operators(served: Served, connection: psycopg.Connection[Any]) -> None:
    one = put(connection)
    for path in ("", "/summary", f"/{one}", f"/{one}/payload"):
        for role, status in (
            (None, 401), (Role.GATEWAY, 403), (Role.STAFF, 403), (Role.CITIZEN, 403),
            (Role.OPERATOR, 200),
        ):  # fmt: skip
            assert served.get("/v1/rejections" + path, role).status_code == status, (path, role)


def test_one_has_its_payload_reason_and_history(
    served: Served, connection: psycopg.Connection[Any]
) -> None:
    one = put(connection, count=3, item=7)
    connection.execute(
        "INSERT INTO rejection_act (rejection_id, who, act, done, reason, sha256)"
        " VALUES (%s, 'operator s', 'replay', false, 'bad-row: bad', 'x')",
        (one,),
    )
    body = served.get(f"/v1/rejections/{one}", Role.OPERATOR).json()
    assert (body["reason"], body["detail"], body["count"]) == ("bad-row", "row: bad", 3)
    assert (body["gateway"], body["boot"], body["seq"], body["item"]) == ("g1", "b", 1, 7)
    assert body["payload"] == {
        "encoding": "text", "text": "a,b\n", "bytes": 4, "truncated": False,
    }  # fmt: skip
    (act,) = body["history"]
    assert (act["who"], act["act"], act["done"]) == ("operator s", "replay", False)
    answer = served.get(f"/v1/rejections/{one}/payload", Role.OPERATOR)
    assert answer.content == b"a,b\n"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("payload", "encoding", "text", "cut"),
    [
        (b"\x00\xff", "hex", "00ff", False),
        (b"<script>", "text", "<script>", False),
        (b"\x1b[2J", "hex", b"\x1b[2J".hex(), False),
        ("港".encode() * 3000, "text", "港" * 1365, True),
        (b"a" * 4096 + b"\xff", "text", "a" * 4096, True),
        (b"\xff" + b"a" * 5000, "hex", "ff" + "61" * 4095, True),
        (b"", "text", "", False),
    ],
)
def test_what_is_shown_of_a_payload_is_bounded(
    served: Served,
    connection: psycopg.Connection[Any],
    payload: bytes,
    encoding: str,
    text: str,
    cut: bool,
) -> None:
    one = put(connection, payload=payload)
    shown = served.get(f"/v1/rejections/{one}", Role.OPERATOR).json()["payload"]
    assert shown == {
        "encoding": encoding, "text": text, "bytes": len(payload), "truncated": cut,
    }  # fmt: skip


def test_a_payload_that_was_let_go(served: Served, connection: psycopg.Connection[Any]) -> None:
    one = put(connection)
    connection.execute("UPDATE rejection SET payload = NULL")
    body = served.get(f"/v1/rejections/{one}", Role.OPERATOR).json()
    assert (body["payload"], body["kept"], body["bytes"]) == (None, False, 4)
    assert served.get(f"/v1/rejections/{one}/payload", Role.OPERATOR).status_code == 404
    assert served.get(f"/v1/rejections/{one + 1}/payload", Role.OPERATOR).status_code == 404
    assert served.get(f"/v1/rejections/{one + 1}", Role.OPERATOR).status_code == 404


def test_filters(served: Served, connection: psycopg.Connection[Any]) -> None:
    hour = timedelta(hours=1)
    one = put(connection)
    two = put(connection, sector="ports", gateway="g2", reason="bad-checksum", seen=START + hour)
    three = put(connection, state="discarded", seen=START + 2 * hour)
    for query, expected in (
        ("", [three, two, one]),
        ("?sector=ports", [two]),
        ("?gateway=g1&state=open", [one]),
        ("?reason=bad-checksum", [two]),
        ("?format=nmea", []),
        ("?state=discarded", [three]),
        ("?from=2026-01-01T01:00:00Z", [three, two]),
        ("?to=2026-01-01T01:00:00Z", [one]),
        ("?from=2026-01-01T01:00:00Z&to=2026-01-01T02:00:00Z", [two]),
    ):
        assert ids(served, query) == expected, query
    for bad in ("?state=lost", "?from=yesterday", "?after=x", "?limit=0", "?limit=51"):
        assert served.get("/v1/rejections" + bad, Role.OPERATOR).status_code == 422, bad


def test_pages_skip_and_repeat_nothing(served: Served, connection: psycopg.Connection[Any]) -> None:
    made = [put(connection) for _ in range(7)]
    found, path = [], "/v1/rejections?limit=3&sector=farms"
    while path:
        body = served.get(path, Role.OPERATOR).json()
        found += [each["id"] for each in body["rejections"]]
        put(connection)  # what comes meanwhile belongs to no later page
        path = body["next"]
    assert found == made[::-1]


def test_the_summary_counts_by_reason(served: Served, connection: psycopg.Connection[Any]) -> None:
    put(connection, count=5)
    put(connection, count=2)
    put(connection, reason="other", state="discarded", count=4)
    body = served.get("/v1/rejections/summary", Role.OPERATOR).json()["reasons"]
    assert [(each["reason"], each["state"], each["count"], each["rows"]) for each in body] == [
        ("bad-row", "open", 7, 2), ("other", "discarded", 4, 1),
    ]  # fmt: skip
    only = served.get("/v1/rejections/summary?state=discarded", Role.OPERATOR).json()["reasons"]
    assert [each["reason"] for each in only] == ["other"]


def test_shared_rejections_need_read_shared(
    served: Served, connection: psycopg.Connection[Any]
) -> None:
    shared = put(connection, sector="farms", data_class="shared")
    opened = put(connection, sector="ports")
    declared = put(connection, sector="ports", gateway="own")
    connection.execute("INSERT INTO gateway (id, data_class) VALUES ('own', 'shared')")
    keys = load_keys(served.data / "keys")
    from joserfc import jwt
    from joserfc.jws import extract_compact

    token = issue(keys, Role.OPERATOR)
    claims = dict(jwt.decode(token, keys.signing, algorithms=["Ed25519"]).claims)
    header = dict(extract_compact(token.encode()).headers())
    claims["scope"] = "read:rejections"
    narrow = jwt.encode(header, claims, keys.signing, algorithms=["Ed25519"])
    headers = {"Authorization": f"Bearer {narrow}"}
    listed = served.get("/v1/rejections", headers=headers).json()["rejections"]
    assert [each["id"] for each in listed] == [opened]
    for hidden in (shared, declared):
        for path in ("", "/payload"):
            answer = served.get(f"/v1/rejections/{hidden}{path}", headers=headers)
            assert answer.status_code == 404
    assert ids(served) == [declared, opened, shared]


def test_of_a_personal_sector_nothing_is_shown_but_counts(
    served: Served, connection: psycopg.Connection[Any]
) -> None:
    one = sealed(connection)
    connection.execute(
        "INSERT INTO rejection_act (rejection_id, who, act, done, reason, sha256)"
        " VALUES (%s, 'command s', 'discard', true, %s, 'x')",
        (one, SECRET),
    )
    listed = served.get("/v1/rejections", Role.OPERATOR)
    (row,) = listed.json()["rejections"]
    told = {name for name, value in row.items() if value is not None}
    assert told == {
        "id", "sector", "format", "reason", "state", "count", "bytes", "hour", "first_seen",
        "last_seen", "folded", "sealed", "kept",
    }  # fmt: skip
    assert row["first_seen"] == row["last_seen"] == row["hour"] == "2026-01-01T00:00:00Z"
    detail = served.get(f"/v1/rejections/{one}", Role.OPERATOR)
    assert detail.status_code == 200
    assert served.get(f"/v1/rejections/{one}/payload", Role.OPERATOR).status_code == 403
    summary = served.get("/v1/rejections/summary", Role.OPERATOR)
    assert summary.json()["reasons"][0]["count"] == 1
    for answer in (listed, detail, summary):
        assert SECRET not in answer.text
        assert SECRET.encode().hex() not in answer.text


def test_filters_see_no_more_of_it_than_operators_do(
    served: Served, connection: psycopg.Connection[Any]
) -> None:
    one = sealed(connection)
    assert ids(served, f"?gateway=home-{SECRET}") == []
    assert ids(served, "?from=2026-01-01T00:10:00Z") == []
    assert ids(served, "?sector=health&from=2026-01-01T00:00:00Z") == [one]
