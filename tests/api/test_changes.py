"""A derived table that follows the changes ends equal to one computed from scratch."""

import random
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

import domains
from core.clock import from_datetime, to_datetime
from core.storage.observations import SectorStore
from core.storage.rollup import Worker
from core.tokens import Role
from tests.api.city import HOUR, START, City
from tests.api.conftest import Served
from tests.core.storage.test_append import decoded, message

THINGS = ("431000001", "431000002", "431000003")
CHANGES = "/v1/ports/changes?limit=2"


def follow(served: Served, following: str, table: dict[tuple[str, datetime], Any]) -> str:
    """Bring an hourly table up to date: every hour that a change touches is read again."""
    for _ in range(1000):
        answer = served.get(following)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        for change in body["changes"]:
            lower, upper = (datetime.fromisoformat(change[edge]) for edge in ("from", "to"))
            lower -= (lower - START) % HOUR
            upper += (START - upper) % HOUR
            for key in [k for k in table if k[0] == change["thing"] and lower <= k[1] < upper]:
                del table[key]
            table.update(hours(served, change["thing"], lower, upper))
        following = body["next"]
        if body["complete"]:
            return following
    pytest.fail("the changes do not end")


def hours(
    served: Served, thing: str, lower: datetime, upper: datetime
) -> dict[tuple[str, datetime], Any]:
    """(count, mean, last) by thing and hour, as the API sums them up."""
    found: dict[tuple[str, datetime], Any] = {}
    path: str | None = (
        f"/v1/ports/things/{thing}/observations?property=heading&interval=1h"
        f"&from={lower.strftime('%Y-%m-%dT%H:%M:%SZ')}&to={upper.strftime('%Y-%m-%dT%H:%M:%SZ')}"
    )
    while path:
        body = served.get(path).json()
        for entry in body["observations"]:
            moment = datetime.fromisoformat(entry["phenomenon_time"])
            found[thing, moment] = (entry["count"], entry["mean"], entry["last"])
        path = body["next"]
    return found


def from_scratch(kept: dict[tuple[str, int], float]) -> dict[tuple[str, datetime], Any]:
    grouped: dict[tuple[str, datetime], list[float]] = {}
    for (thing, moment), value in sorted(kept.items()):
        time = to_datetime(moment)
        hour = time - (time - START) % HOUR
        grouped.setdefault((thing, hour), []).append(value)
    return {key: (len(v), sum(v) / len(v), v[-1]) for key, v in grouped.items()}


def test_a_derived_table_follows_late_rows_and_corrections(served: Served) -> None:
    chance = random.Random(7)
    store, worker = SectorStore(domains.sector("ports")), Worker()
    kept: dict[tuple[str, int], float] = {}
    table: dict[tuple[str, datetime], Any] = {}
    following, end = CHANGES, from_datetime(START + timedelta(days=3))
    with psycopg.connect(served.database_url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        for turn in range(30):
            rows = []
            for _ in range(chance.randrange(1, 30)):
                late = chance.random() < 0.3
                minute = chance.randrange(0, 40 * (turn + 1)) if late else 40 * turn + len(rows)
                key = (chance.choice(THINGS), from_datetime(START) + minute * 60_000_000)
                kept[key] = float(chance.randrange(360)) + turn / 64  # never a result of before
                rows.append((key[0], "heading", key[1], kept[key]))
            store.append(connection, [message(decoded(*rows))])
            if chance.random() < 0.5:
                worker.run(connection, end)
            if chance.random() < 0.4:
                following = follow(served, following, table)
    follow(served, following, table)
    assert table == from_scratch(kept)


def test_now_begins_with_what_comes_next(served: Served, city: City) -> None:
    stream = city.datastream(city.thing("ports", "1"), "heading")
    city.append("ports", [(stream, START, 1.0)])
    body = served.get("/v1/ports/changes?after=now").json()
    assert (body["changes"], body["complete"]) == ([], True)
    city.append("ports", [(stream, START + HOUR, 2.0), (stream, START + 2 * HOUR, 2.0)])
    assert served.get(body["next"]).json()["changes"] == [
        {
            "thing": "1", "property": "heading", "from": "2026-01-01T01:00:00Z",
            "to": "2026-01-01T02:00:00.000001Z", "count": 2,
        }
    ]  # fmt: skip


def test_changes_of_others_are_not_told(served: Served, city: City) -> None:
    thing = city.thing("ports", "1")
    hidden = city.datastream(thing, "heading", data_class="shared")
    city.append("ports", [(hidden, START, 1.0)])
    body = served.get("/v1/ports/changes").json()
    assert (body["changes"], body["complete"]) == ([], True)
    assert served.get("/v1/ports/changes", Role.OPERATOR).json()["changes"][0]["count"] == 1
    assert served.get(body["next"]).json()["next"] == body["next"]


@pytest.mark.parametrize("after", ["x", "MQ", "LTEuMC4w", "MS4yLjM0NTY3ODkwMTIz", "4pyT"])
def test_a_cursor_that_was_never_given_is_refused(served: Served, after: str) -> None:
    answer = served.get(f"/v1/ports/changes?after={after}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["name"] == "after"
