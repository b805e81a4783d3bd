"""Streams, exports and rollups of personal data: each leaves by live grants, and is on record."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from api import personal_stream
from api.personal_export import Parquet
from consent.channels import Position
from consent.gate import Gate
from core.settings import Settings
from core.tokens import Role, issue
from tests.api.channels import (
    export,
    exported,
    following,
    path_of,
    results,
    rolled_up,
)
from tests.api.conftest import Served, serving
from tests.api.test_live import Until
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import EVER, Row

FIRST = "00000000-0000-4000-8000-000000000001"
BAND, SCALE = ("band", "heart-rate"), ("scale", "body-weight")
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
FORMATS = ("jsonl", "csv", "parquet")


def settled(served: Served, connection: psycopg.Connection[Any]) -> Town:
    """Ai wears a band; the clinic is registered, and may read nothing."""
    made = Town(served, connection)
    assert made.register("clinic").status_code == 200
    assert made.bind("band", ["ai"], (DAY, None))
    return made


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    """A town where nothing is granted yet."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        yield settled(served, connection)


@pytest.fixture
def any_town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """The same on either kind of server."""
    with (
        serving(Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)) as served,
        psycopg.connect(storage_url, autocommit=True) as connection,
    ):
        yield settled(served, connection)


@pytest.fixture
def granted(town: Town) -> Town:
    """Ai lets the clinic read the band."""
    assert town.grant("ai", FIRST).status_code == 200
    return town


def rows_of(count: int, start: datetime = DAY, stream: tuple[str, str] = BAND) -> list[Row]:
    return [Row(stream, start + n * SECOND, float(n)) for n in range(count)]


# -- streams ------------------------------------------------------------------------------------


def test_a_stream_brings_what_comes(any_town: Town) -> None:
    granted = any_town
    assert granted.grant("ai", FIRST).status_code == 200
    granted.come(*rows_of(3))
    with following(granted) as stream:
        assert stream.headers["cache-control"] == "no-store"
        assert "etag" not in stream.headers
        granted.come(*rows_of(2, DAY + MINUTE))
        assert results(stream) == [0.0, 1.0], "and nothing that was there before"
        granted.come(Row(BAND, DAY - HOUR, 7.0), Row(BAND, DAY + MINUTE / 2, 8.0))
        assert results(stream) == [8.0], "late ones too, but none that describes nobody"
        assert stream.silent(1.5)


def test_a_stream_tells_nothing_of_what_is_not_permitted(granted: Town) -> None:
    """Property 5: neither a row nor an event nor an id, and all ids have one length."""
    granted.bind("scale", ["ken"], (DAY, None))
    ids = set()
    with following(granted) as stream:
        for number in range(3):
            granted.come(*rows_of(2, DAY + number * MINUTE, SCALE))
            assert stream.silent(1.2)
            granted.come(*rows_of(1, DAY + number * MINUTE))
            event = stream.next()
            assert len(event.data["observations"]) == 1
            ids.add(event.id)
    assert len(ids) == 3
    assert len({len(str(each)) for each in ids}) == 1


def test_events_come_on_the_streams_own_beat(granted: Town) -> None:
    """Property 5: once a second, however soon something is stored that a row could wait for."""
    moments = []
    with following(granted) as stream:
        for number in range(4):
            granted.come(Row(BAND, DAY + number * SECOND, float(number)))
            stream.next()
            moments.append(time.monotonic())
    assert moments[-1] - moments[0] > 2 * personal_stream.BEAT_SECONDS, moments


def test_a_stream_goes_on_after_its_last_event(granted: Town) -> None:
    with following(granted) as stream:
        granted.come(*rows_of(2))
        last = stream.next().id
    granted.come(*rows_of(2, DAY + HOUR))
    with following(granted, last_id=last) as stream:
        assert results(stream) == [0.0, 1.0]
        assert stream.silent(1.2)
    with following(granted, last_id=last) as again:
        assert results(again) == [0.0, 1.0]
    for other in ({"category": "pd:PhysicalHealth"}, {"operation": "reshare"}):
        with following(granted, last_id=last, **other) as stream:
            assert stream.next().name == "reset", "an id is of one question"
    granted.register("gym")
    for recipient, event_id in (("gym", last), ("clinic", "abc"), ("clinic", f"{last}AA")):
        with following(granted, recipient, last_id=event_id) as stream:
            assert stream.next().name == "reset"


def test_a_stream_does_not_go_on_after_an_hour(
    granted: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(granted) as stream:
        granted.come(*rows_of(1))
        last = stream.next().id
    monkeypatch.setattr(personal_stream, "RESUMED_SECONDS_MAX", 0)
    with following(granted, last_id=last) as stream:
        assert stream.next().name == "reset"


def test_many_rows_come_in_chunks_each_on_record(
    granted: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal_stream, "CHUNK_ROWS", 4)
    with following(granted) as stream:
        granted.come(*rows_of(10))
        events = [stream.next() for _ in range(3)]
        assert [len(event.data["observations"]) for event in events] == [4, 4, 2]
        assert [event.id is not None for event in events] == [False, False, True]
        told = [event.data["disclosure"] for event in events]
    recorded = granted.connection.execute(
        "SELECT decision::text, rows FROM audit.provision WHERE decision = ANY(%s::uuid[])", (told,)
    ).fetchall()
    assert sorted(recorded) == sorted(zip(told, (4, 4, 2), strict=True))


def test_a_stream_that_brings_nothing_leaves_no_record(granted: Town) -> None:
    granted.bind("scale", ["ken"], (DAY, None))
    with following(granted) as stream:
        for number in range(2):
            granted.come(*rows_of(1, DAY + number * HOUR, SCALE))
            assert stream.silent(1.2)
    assert granted.city.one("SELECT count(*) FROM audit.decision") == 0


def test_a_reduced_row_comes_when_its_step_is_over(
    any_town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And again when a later one of the step comes late; of an open step nothing."""
    monkeypatch.setattr(personal_stream, "REST_BEATS", 1)
    town = any_town
    town.grant("ai", FIRST, resolution="minute")
    if (second := datetime.now(UTC).second) > 45:
        time.sleep(60 - second)
    begin = datetime.now(UTC).replace(second=0, microsecond=0)
    step = begin - MINUTE
    town.come(Row(BAND, step + 2 * SECOND, 1.0), Row(BAND, begin, 9.0))
    position = Gate.position
    opened: list[Position] = []

    def before_its_end(gate: Gate, sector: str) -> Position:
        """As if the stream had been opened when that step ran still."""
        found = position(gate, sector)
        opened.append(found)
        return replace(found, at=begin - SECOND) if len(opened) == 1 else found

    monkeypatch.setattr(Gate, "position", before_its_end)
    with following(town) as stream:
        (row,) = stream.next().data["observations"]
        assert (row["result"], row["resolution"]) == (1.0, "minute")
        assert datetime.fromisoformat(row["phenomenon_time"]) == step
        town.come(Row(BAND, step + 3 * SECOND, 3.0))
        assert results(stream) == [3.0]
        town.come(Row(BAND, step + SECOND, 4.0))
        assert stream.silent(1.5), "what is shown of the step is what was"


def test_a_row_waits_for_its_append(granted: Town) -> None:
    """What is in the tables before its append is committed and numbered is nothing new."""
    with following(granted) as stream:
        append = granted.come(*rows_of(1))
        granted.insert(BAND, "number", "observation", DAY + HOUR, 5.0, append=append + 1)
        assert results(stream) == [0.0]
        assert stream.silent(1.2)


def test_a_revoked_grant_silences_an_open_stream_at_once(granted: Town) -> None:
    """Property 6: nothing of it after the answer, whatever comes in."""
    with following(granted) as stream:
        granted.come(*rows_of(1))
        assert results(stream) == [0.0]
        assert granted.revoke("ai", FIRST).status_code == 200
        granted.come(*rows_of(5, DAY + HOUR))
        assert stream.silent(2.5)
        name = str(uuid4())
        granted.grant("ai", name)
        granted.come(*rows_of(1, DAY + 2 * HOUR))
        assert results(stream) == [0.0], "and what was stored in between does not follow"


def test_a_stream_ends_with_its_token_and_its_recipient(
    granted: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(personal_stream, "REST_BEATS", 2)
    with following(granted) as stream:
        suspended = granted.send("DELETE", "/v1/recipients/clinic", Role.OPERATOR, "office")
        assert suspended.status_code == 200
        assert stream.closed.wait(5)
    with following(granted) as stream:
        assert stream.status == 403
    granted.register("clinic")
    token = issue(granted.keys, Role.RECIPIENT, subject="clinic", lifetime_seconds=2)
    monkeypatch.setattr(granted, "headers", lambda *_: {"Authorization": f"Bearer {token}"})
    with following(granted) as stream:
        assert stream.status == 200
        assert stream.closed.wait(6)


def test_open_streams_of_a_recipient_are_bounded(
    granted: Town, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(personal_stream, "STREAMS_MAX", 2)
    hub = granted.served.app.state.hub
    with following(granted), following(granted):
        until(lambda: hub.clients == 2)
        with following(granted) as third:
            assert third.status == 503
        granted.register("gym")
        with following(granted, "gym") as other:
            assert other.status == 200
    until(lambda: hub.clients == 0)


# -- exports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_has_every_row_and_its_disclosures(granted: Town, format: str) -> None:
    """120 rows by 50: three chunks, each on record, named by the trailer."""
    granted.come(*rows_of(120))
    answer = export(granted, format)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    assert f'filename="health.{format}"' in answer.headers["content-disposition"]
    rows, ids = exported(answer)
    assert [float(row.get("number") or row.get("result") or 0) for row in rows] == [
        float(n) for n in range(120)
    ]
    assert len(ids) == 3
    recorded = granted.connection.execute(
        "SELECT sum(rows)::int FROM audit.provision WHERE decision = ANY(%s::uuid[])", (ids,)
    ).fetchone()
    assert recorded == (120,)


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_of_nothing_is_whole(town: Town, format: str) -> None:
    rows, ids = exported(export(town, format))
    assert (rows, len(ids)) == ([], 1)
    assert town.send("GET", path_of("export"), Role.RECIPIENT, "gym").status_code == 403


@pytest.mark.parametrize("resolution", ["exact", "minute"])
def test_each_kind_of_result_comes_by_every_channel_as_in_a_page(
    any_town: Town, resolution: str
) -> None:
    """Texts, positions by their grid squares, documents; in a table as JSON beside the numbers."""
    town = any_town
    walk = town.city.one("INSERT INTO category (text) VALUES ('walking') RETURNING code")
    for category in ("pd:MedicalHealth", "pd:TravelHistory"):
        town.grant("ai", category=category, resolution=resolution)
    streams = {c: following(town, category=c) for c in ("pd:MedicalHealth", "pd:Location")}
    with streams["pd:MedicalHealth"] as health, streams["pd:Location"] as location:
        with town.connection.transaction():
            append = town.come(*rows_of(2))
            for n in range(3):
                time = DAY + 20 * n * SECOND
                place = (139.70001 + n / 10_000, 35.66001, 1.5, 90.0)
                for thing, kind, table, result in (
                    ("activity", "category", "observation", (walk,)),
                    ("position", "position", "observation_position", place),
                    ("ecg", "document", "observation_document", (Jsonb({"n": n}),)),
                ):
                    town.insert(("band", thing), kind, table, time, *result, append=append)
            town.connection.execute("UPDATE append SET time_max = %s", (DAY + MINUTE,))
        for stream, category in ((health, "pd:MedicalHealth"), (location, "pd:Location")):
            page = town.ask("clinic", category=category)
            assert stream.next().data["observations"] == page
            assert exported(export(town, "jsonl", category=category))[0] == page
            for format in ("csv", "parquet"):
                rows, _ = exported(export(town, format, category=category))
                assert [json.loads(str(r["value"] or r["number"])) for r in rows] == [
                    row["result"] for row in page
                ]
            assert page


def test_a_revoke_in_the_middle_of_an_export_ends_its_rows(town: Town) -> None:
    """Property 6 and 7: chunks before are there and on record with their σ, later ones without."""
    for person in ("ai", "ken"):
        town.grant(person, str(uuid4()) if person == "ai" else FIRST)
    town.bind("scale", ["ken"], (DAY, None))
    town.come(*rows_of(50), *rows_of(3000, DAY, SCALE))
    url = town.served.url + path_of("export", format="jsonl")
    with (
        httpx.Client(timeout=30) as client,
        client.stream("GET", url, headers=town.headers(Role.RECIPIENT, "clinic")) as answer,
    ):
        lines = answer.iter_lines()
        first = next(lines)
        revoked = town.revoke("ken", FIRST)
        assert revoked.status_code == 200
        rest = list(lines)
    assert '"heart-rate"' in first
    rows = [line for line in rest if '"body-weight"' in line]
    assert len(rows) < 3000
    told = town.connection.execute(
        "SELECT d.sigma, sum(p.rows)::int FROM audit.provision p JOIN audit.decision d "
        "ON d.id = p.decision JOIN consent.subject s ON s.id = ANY(p.subjects) "
        "WHERE s.key = 'ken' AND d.id = ANY(%s::uuid[]) GROUP BY 1",
        (exported_ids(rest[-1]),),
    ).fetchall()
    assert sum(count for _, count in told) == len(rows)
    assert all(sigma < revoked.json()["sigma"] for sigma, _ in told)


def exported_ids(line: str) -> list[str]:
    ids: list[str] = json.loads(line)["disclosures"]
    return ids


def test_no_value_of_a_chunk_leaves_with_a_later_one() -> None:
    """Parquet's footer comes at the end, when a grant may have ended: it holds no statistics."""
    writer = Parquet()
    row = {"persons": ["p"], "thing": "marked-thing", "property": "heart-rate", "unit": "/min",
           "phenomenon_time": DAY, "result": 61.5, "quality": 0, "resolution": "exact"}  # fmt: skip
    first = writer.written(writer.prepared([row] * 3))
    second = writer.written(writer.prepared([{**row, "thing": "other"}]))
    end = writer.trailer(["d"])
    assert b"marked-thing" in first
    assert b"marked-thing" not in second + end
    assert b"other" in second
    assert b"other" not in end


# -- rollups ------------------------------------------------------------------------------------

SPAN = (DAY, DAY + 4 * HOUR)


@pytest.fixture
def derived(any_town: Town) -> Town:
    """A reading each 10 minutes for three hours, which the clinic may derive from."""
    town = any_town
    town.come(*(Row(BAND, DAY + n * 10 * MINUTE, float(n)) for n in range(18)))
    assert town.grant("ai", FIRST, operation="derive").status_code == 200
    return town


def test_rollups_are_of_what_was_observed(derived: Town) -> None:
    rows = rolled_up(derived, "hour", SPAN)
    assert len(rows) == 3
    for number, row in enumerate(rows):
        values = [float(n) for n in range(6 * number, 6 * number + 6)]
        assert datetime.fromisoformat(row["phenomenon_time"]) == DAY + number * HOUR
        assert (row["count"], row["mean"], row["minimum"], row["maximum"], row["step"]) == (
            6, mean(values), min(values), max(values), "hour",
        )  # fmt: skip
    assert rolled_up(derived, "hour", SPAN, limit="1") == rows, "by pages of one"
    (day,) = rolled_up(derived, "day", (DAY, DAY + 24 * HOUR))
    assert (day["count"], day["mean"]) == (18, 8.5)
    provided = derived.connection.execute(
        "SELECT p.rows, p.grants, s.key, p.time_min, p.time_max FROM audit.provision p "
        "JOIN consent.subject s ON s.id = ANY(p.subjects) ORDER BY p.rows DESC LIMIT 1"
    ).fetchone()
    assert provided is not None
    assert (provided[0], [str(g) for g in provided[1]], provided[2]) == (18, [FIRST], "ai")
    assert provided[3:] == (DAY, DAY + 170 * MINUTE)


def test_an_operation_permits_itself_alone(derived: Town) -> None:
    """To read is not to derive, nor the other way round; nothing else of the two is shared."""
    assert derived.ask("clinic") == []
    path = path_of("observations", operation="derive")
    assert derived.send("GET", path, Role.RECIPIENT, "clinic").status_code == 422
    derived.revoke("ai", FIRST)
    derived.grant("ai")
    assert rolled_up(derived, "hour", SPAN) == []
    assert len(derived.ask("clinic")) == 18


def test_a_step_that_is_permitted_in_part_is_not_told(derived: Town) -> None:
    """Else what is missing were the difference of two sums; nor is one that the question cuts."""
    derived.revoke("ai", FIRST)
    window = {"event_from": iso(DAY + 10 * MINUTE), "event_to": iso(DAY + 3 * HOUR)}
    derived.grant("ai", operation="derive", **window)
    hours = [row["phenomenon_time"] for row in rolled_up(derived, "hour", SPAN)]
    assert [datetime.fromisoformat(h) for h in hours] == [DAY + HOUR, DAY + 2 * HOUR]
    assert rolled_up(derived, "day", (DAY, DAY + 24 * HOUR)) == []
    cut = rolled_up(derived, "hour", (DAY + HOUR + MINUTE, DAY + 3 * HOUR))
    assert [datetime.fromisoformat(row["phenomenon_time"]) for row in cut] == [DAY + 2 * HOUR]


def test_a_step_that_runs_and_a_coarser_grant_tell_nothing(town: Town) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    town.come(Row(BAND, now, 1.0), Row(BAND, now - HOUR, 2.0))
    town.grant("ai", FIRST, operation="derive", resolution="hour")
    span = (now - 3 * HOUR, now + 3 * HOUR)
    assert rolled_up(town, "hour", span) == []
    town.grant("ai", operation="derive")
    assert [row["mean"] for row in rolled_up(town, "hour", span)] == [2.0]


def test_property_11_a_rollup_needs_every_source(town: Town) -> None:
    """A shared car: of both persons' permits what they have in common, with the grants of both."""
    town.bind("scale", ["ai", "ken"], (DAY, None))
    town.come(*(Row(SCALE, DAY + n * 20 * MINUTE, float(n)) for n in range(9)))
    town.grant("ai", FIRST, operation="derive")
    assert rolled_up(town, "hour", SPAN) == [], "one of two has said so"
    theirs = str(uuid4())
    town.grant("ken", theirs, operation="derive", event_from=iso(DAY + HOUR), event_to=iso(EVER[1]))
    rows = rolled_up(town, "hour", SPAN)
    assert [datetime.fromisoformat(r["phenomenon_time"]) for r in rows] == [
        DAY + HOUR, DAY + 2 * HOUR,
    ]  # fmt: skip
    assert all(len(row["persons"]) == 2 for row in rows)
    provided = town.connection.execute(
        "SELECT array_agg(DISTINCT s.key ORDER BY s.key), p.grants::text[] FROM audit.provision p "
        "JOIN consent.subject s ON s.id = ANY(p.subjects) GROUP BY p.id, p.grants"
    ).fetchall()
    assert provided == [(["ai", "ken"], sorted([FIRST, theirs]))]
    town.revoke("ai", FIRST)
    assert rolled_up(town, "hour", SPAN) == []


def test_property_12_rollups_are_withheld_from_the_answer_of_a_revoke_on(derived: Town) -> None:
    """Nothing of them is stored, so nothing waits to be recomputed: not by us, nor in the tiers."""
    assert len(rolled_up(derived, "hour", SPAN)) == 3
    narrowed = derived.grant(
        "ai", FIRST, operation="derive", event_from=iso(DAY + 30 * MINUTE), event_to=iso(EVER[1])
    )
    assert narrowed.status_code == 200
    assert len(rolled_up(derived, "hour", SPAN)) == 2
    assert derived.revoke("ai", FIRST).status_code == 200
    assert rolled_up(derived, "hour", SPAN) == []
    tiers = derived.connection.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND column_name = 'bucket' AND table_name LIKE 'observation%'"
    ).fetchall()
    for (table,) in tiers:
        kept = derived.city.one(
            f"SELECT count(*) FROM {table} r JOIN datastream d ON d.id = r.datastream_id "
            "WHERE d.data_class = 'personal'"
        )
        assert kept == 0, table


def test_what_is_asked_wrongly_is_named(town: Town) -> None:
    span = {"from": iso(DAY) or "", "to": iso(DAY + HOUR) or ""}
    for channel, query, field in (
        ("rollups", {**span, "step": "minute"}, "step"),
        ("rollups", {"step": "hour"}, "from"),
        ("rollups", {"step": "hour", "from": span["from"], "to": "2030-01-01T00:00:00Z"}, "to"),
        ("rollups", {**span, "step": "hour", "purpose": "dpv:Nothing"}, "purpose"),
        ("rollups", {**span, "step": "hour", "after": "abc"}, "after"),
        ("export", {"format": "xlsx"}, "format"),
        ("export", {"category": "dpv:Nothing"}, "category"),
        ("stream", {"operation": "derive"}, "operation"),
        ("stream", {"category": "dpv:Nothing"}, "category"),
        ("stream", {"person": "abc"}, "person"),
    ):
        answer = town.send("GET", path_of(channel, **query), Role.RECIPIENT, "clinic")
        assert answer.status_code == 422, (channel, query, answer.text)
        assert answer.json()["errors"][0]["name"].endswith(field), answer.text


def test_property_7_past_disclosures_stay_on_record(granted: Town) -> None:
    """What was delivered lawfully is still told after the revoke, with the σ it was decided on."""
    granted.come(*rows_of(3))
    assert len(granted.ask("clinic")) == 3
    sigma = granted.revoke("ai", FIRST).json()["sigma"]

    def told() -> Any:
        return granted.connection.execute(
            "SELECT d.sigma, p.rows, p.grants::text[] FROM audit.provision p "
            "JOIN audit.decision d ON d.id = p.decision"
        ).fetchall()

    assert [(rows, grants) for _, rows, grants in told()] == [(3, [FIRST])]
    assert told()[0][0] == sigma - 1, "the last act before the revoke"
    before = told()
    assert granted.ask("clinic") == []
    assert told() == before
    shown = granted.send("GET", "/v1/me/disclosures", Role.CITIZEN, "ai").json()["deliveries"]
    assert len(shown) == 1
