"""The fast way to latest values: the same words as the slow one, whatever changes in between."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

import consent.gate
from consent import door, latest
from consent.gate import Gate
from consent.latest import select_latest
from consent.queries import Area
from core.errors import CityError
from core.sector import Sector
from core.sensorthings import DataClass
from core.settings import Settings
from core.tokens import ANONYMOUS, SCOPES, Principal, Role
from tests.api.city import START, City
from tests.consent import slow_latest

SECTORS = {
    name: Sector(name, name, name, DataClass(data_class), (), ())
    for name, data_class in (("harbour", "open"), ("meadow", "shared"))
}
OPERATOR = Principal(Role.OPERATOR, "o", None, None, SCOPES[Role.OPERATOR], 2**40)
CLASSES = ("open", "shared", "personal")
KINDS = ("number", "category", "position", "document")
AREA = Area(((139.0, 34.0, 140.0, 36.0),))

ADD_THING = "INSERT INTO thing (sector, key, name) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
ADD_STREAM = """
INSERT INTO datastream (thing_id, property, kind, unit, data_class, decimals)
SELECT id, %s, %s, %s, %s, %s FROM thing WHERE sector = %s AND key = %s ON CONFLICT DO NOTHING
"""
STREAM = """(SELECT d.id FROM datastream d JOIN thing t ON t.id = d.thing_id
             WHERE t.sector = %s AND t.key = %s AND d.property = %s)"""
THING = "(SELECT id FROM thing WHERE sector = %s AND key = %s)"
SET_LATEST = f"""
INSERT INTO latest SELECT d.id, %s, now(), %s, %s, %s, %s, %s, %s, %s, 1
FROM datastream d WHERE d.id = {STREAM}
ON CONFLICT (datastream_id) DO UPDATE SET phenomenon_time = excluded.phenomenon_time,
  result = excluded.result, document = excluded.document, longitude = excluded.longitude,
  latitude = excluded.latitude, speed = excluded.speed, course = excluded.course,
  quality = excluded.quality
"""
SET_PLACE = f"""
INSERT INTO thing_place SELECT t.id, t.sector, %s, %s, %s FROM thing t WHERE t.id = {THING}
ON CONFLICT (thing_id) DO UPDATE SET longitude = excluded.longitude,
  latitude = excluded.latitude, data_class = excluded.data_class
"""
SET_HEARD = f"""
INSERT INTO thing_heard SELECT t.id, 'g', %s, %s FROM thing t WHERE t.id = {THING}
ON CONFLICT (thing_id) DO UPDATE SET heard_at = excluded.heard_at,
  heard_time = excluded.heard_time
"""

# Few names, so that changes meet what is there; awkward ones, so that JSON has to be escaped.
sectors = st.sampled_from(tuple(SECTORS))
keys = st.sampled_from(("a", "b", "a\\b", '"', "ポ", "Å", "z z", "\u2028", "𝄞"))
names = st.none() | st.sampled_from(("港\n", "<x>", "", "\x7f'"))
properties = st.sampled_from(("speed", "speed/1", "lamp", 'q"', "位置", "Zeta"))
classes = st.sampled_from(CLASSES)
times = st.integers(0, 10**14).map(lambda us: START + timedelta(microseconds=us)) | st.just(START)
numbers = st.floats(width=64) | st.integers(-5, 5).map(float) | st.none()
degrees = st.sampled_from((139.5, 34.5, 35.00001, -0.0)) | st.floats(-90, 90)
texts = st.sampled_from(("red", "緑", 'a"b', ""))
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.sampled_from(("x", '\n\t"ü', "")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)
add_thing = st.tuples(st.just("thing"), sectors, keys, names)
add_stream = st.tuples(
    st.just("stream"), sectors, keys, properties, st.sampled_from(KINDS),
    st.sampled_from(("1", "m/s", "Cel", "%{RH}")), classes, st.sampled_from((None, 0, 2)),
)  # fmt: skip
set_value = st.tuples(
    st.just("value"), sectors, keys, properties, times, numbers, degrees, degrees, texts,
    documents, st.integers(0, 7),
)  # fmt: skip
set_place = st.tuples(st.just("place"), sectors, keys, degrees, degrees, classes)
set_heard = st.tuples(st.just("heard"), sectors, keys, times, times)
others = st.tuples(
    st.sampled_from(("class", "unit", "rename", "forget", "unplace", "remove")),
    sectors, keys, properties, classes, names,
)  # fmt: skip
changes = st.lists(
    st.one_of(
        add_thing, add_stream, add_stream, set_value, set_value, set_place, set_heard, others
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def change(city: City, what: str, sector: str, key: str, *rest: Any) -> None:
    """One change of the city, made without the platform's own code."""
    run = city.connection.execute
    match what:
        case "thing":
            run(ADD_THING, (sector, key, *rest))
        case "stream":
            run(ADD_THING, (sector, key, None))
            run(ADD_STREAM, (*rest, sector, key))
        case "value":
            store(city, sector, key, *rest)
        case "place":
            run(SET_PLACE.encode(), (*rest, sector, key))
        case "heard":
            run(SET_HEARD.encode(), (*rest, sector, key))
        case "class":
            query = f"UPDATE datastream SET data_class = %s WHERE id = {STREAM}"
            run(query.encode(), (rest[1], sector, key, rest[0]))
        case "unit":
            run(f"UPDATE datastream SET unit = 'km' WHERE id = {STREAM}".encode(),
                (sector, key, rest[0]))  # fmt: skip
        case "rename":
            run("UPDATE thing SET name = %s WHERE sector = %s AND key = %s",
                (rest[2], sector, key))  # fmt: skip
        case "forget":
            run(f"DELETE FROM datastream WHERE id = {STREAM}".encode(), (sector, key, rest[0]))
        case "unplace":
            run(f"DELETE FROM thing_place WHERE thing_id = {THING}".encode(), (sector, key))
        case "remove":
            run(f"DELETE FROM datastream WHERE thing_id = {THING}".encode(), (sector, key))
            run("DELETE FROM thing WHERE sector = %s AND key = %s", (sector, key))


def store(
    city: City, sector: str, key: str, name: str, time: Any, number: Any, x: float, y: float,
    text: str, document: Any, quality: int,
) -> None:  # fmt: skip
    """A latest value, shaped by the kind of its Datastream."""
    found = city.connection.execute(
        f"SELECT kind FROM datastream WHERE id = {STREAM}".encode(), (sector, key, name)
    ).fetchone()
    kind = found[0] if found else "number"
    if kind == "category":
        number = city.one(
            "INSERT INTO category (text) VALUES (%s) ON CONFLICT (text) DO UPDATE"
            " SET text = excluded.text RETURNING code", text,
        )  # fmt: skip
    values = {
        "number": (number, None, None, None, None, None),
        "category": (number, None, None, None, None, None),
        "position": (None, None, x, y, number, None),
        "document": (None, Jsonb(document), None, None, None, None),
    }[kind]
    city.connection.execute(SET_LATEST.encode(), (time, *values, quality, sector, key, name))


@pytest.fixture(scope="module")
def city(module_database_url: str) -> Iterator[City]:
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        yield City(connection)


@pytest.fixture
def gate(module_gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate that asks each time whether a shared sector has open Datastreams."""
    monkeypatch.setattr(consent.gate, "OPEN_STREAMS_SECONDS", -1.0)
    return module_gate


@pytest.fixture(scope="module")
def module_gate(module_database_url: str) -> Iterator[Gate]:
    opened = Gate(Settings(database_url=module_database_url))
    yield opened
    opened.close()


Scope = tuple[Any, ...]


def fast(gate: Gate, who: Principal, sector: str, scope: Scope) -> str:
    """What `select_latest` says, or why it says nothing."""
    try:
        with gate.reading(who, SECTORS[sector]) as connection:
            return normal(b"[%b]" % b"".join(select_latest(connection, *scope).features))
    except CityError as error:
        return error.slug


def slow(gate: Gate, who: Principal, sector: str, scope: Scope) -> str:
    """What it should say."""
    try:
        with gate.reading(who, SECTORS[sector]) as connection:
            return normal(door.encode(slow_latest.features(connection, *scope)))
    except CityError as error:
        return error.slug


def normal(encoded: bytes) -> str:
    """The same JSON, written one way: the order of names counts, the sign of a zero does not."""
    return json.dumps(json.loads(encoded, parse_float=lambda text: float(text) + 0.0))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(made=changes, limit=st.integers(1, 12), after=st.sampled_from(("", "a", "z z")))
def test_the_fast_way_says_what_the_slow_one_does(
    gate: Gate, city: City, made: list[Any], limit: int, after: str
) -> None:
    """After every change, with all that was kept before it, for everyone who reads by class."""
    for each in made:
        change(city, *each)
        for who in (ANONYMOUS, OPERATOR):
            for scope in ((limit, after), (limit, after, AREA)):
                assert fast(gate, who, each[1], scope) == slow(gate, who, each[1], scope)


def test_what_ceases_to_be_visible_ceases_at_once(gate: Gate, city: City) -> None:
    """Nothing kept of an answer outlives the permission, whoever withdraws it and how."""
    city.connection.execute("DELETE FROM datastream")
    city.connection.execute("DELETE FROM thing")
    thing = city.thing("harbour", "t", at=(139.5, 35.5))
    stream, other = (city.datastream(thing, name) for name in ("crew", "depth"))
    city.append("harbour", [(stream, START, 7.25), (other, START, 3.5)])

    def shown(who: Principal = ANONYMOUS) -> str:
        return fast(gate, who, "harbour", (10,))

    withdrawals = (
        ("UPDATE datastream SET data_class = 'shared' WHERE id = %s", stream, "crew"),
        ("UPDATE thing_place SET data_class = 'shared' WHERE thing_id = %s", thing, "139.5"),
        ("DELETE FROM datastream WHERE id = %s", other, "depth"),
    )
    for query, number, secret in withdrawals:
        assert secret in shown()
        city.connection.execute(query.encode(), (number,))
        assert secret not in shown()
    assert shown() == "[]"  # none of its Datastreams is open any more
    assert "crew" in shown(OPERATOR)
    city.connection.execute(
        "UPDATE datastream SET data_class = 'personal' WHERE id = %s", (stream,)
    )
    assert shown(OPERATOR) == "[]"


def test_a_thing_is_kept_by_permission_not_by_id(gate: Gate, city: City) -> None:
    """What an operator was shown is not there for others to find."""
    thing = city.thing("harbour", "kept", at=(139.5, 35.5), data_class="shared")
    city.datastream(thing, "heading")
    city.datastream(thing, "cargo", data_class="shared")
    everything = fast(gate, OPERATOR, "harbour", (10,))
    assert "139.5" in everything
    with gate.reading(OPERATOR, SECTORS["harbour"]) as connection:
        (seen,) = (card for card in connection.kept["cards"].values() if card.key == "kept")
        assert len(seen.series) == 2
    assert "139.5" not in fast(gate, ANONYMOUS, "harbour", (10,))
    with gate.reading(ANONYMOUS, SECTORS["harbour"]) as connection:
        (seen,) = (card for card in connection.kept["cards"].values() if card.key == "kept")
        assert [each.name for each in seen.series] == ["heading"]


def test_what_is_kept_is_bounded(gate: Gate, city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest, "CARDS_MAX", 3)
    for number in range(5):
        city.thing("harbour", f"many {number}")
        scope = (2, f"many {number - 1}")
        assert fast(gate, ANONYMOUS, "harbour", scope) == slow(gate, ANONYMOUS, "harbour", scope)
    with gate.reading(ANONYMOUS, SECTORS["harbour"]) as connection:
        assert len(connection.kept["cards"]) <= 3
