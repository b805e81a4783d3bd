"""A grant for a part of the map: what was seen there is shown, on every channel, no more."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, box
from shapely.geometry.base import BaseGeometry

import domains
from consent.areas import AREAS_MAX, CORNERS_MAX
from consent.levels import LEVELS
from core.settings import Settings
from core.tokens import Role
from tests.api.channels import BASE, export, exported, following, results, rolled_up
from tests.api.conftest import serving
from tests.api.test_consent_erasure import erase
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import EVER, Ask, Grant, Oracle, Row, cell
from tests.consent.places import AREAS, ISLANDS, LAKE, PLACES, TOWN, WARD, geojson, polygon

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BAND = ("band", "heart-rate")
NAMES = tuple(PLACES)
INSERT_POSITION = """
INSERT INTO personal.observation_position
  (phenomenon_time, longitude, latitude, append_id, datastream_id, quality)
VALUES (%s, %s, %s, 1, %s, 0)
"""


@pytest.fixture
def town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """Ai wears a band and carries a phone; on either kind of server."""
    with (
        serving(Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)) as served,
        psycopg.connect(storage_url, autocommit=True) as connection,
    ):
        made = Town(served, connection)
        made.register("clinic")
        made.bind("band", ["ai"], (DAY, None))
        yield made


def granted(town: Town, name: str | None = None, **terms: Any) -> str:
    """Ai's grant, of what was in the town unless told otherwise."""
    name = name or str(uuid4())
    answer = town.grant("ai", name, **{"area": geojson(TOWN), **terms})
    assert answer.status_code == 200, answer.text
    return name


def seen(town: Town, **query: str) -> list[float]:
    return [row["result"] for row in town.ask("clinic", **query)]


def walk(town: Town, *places: str, minutes: int = 1, thing: str = "band") -> None:
    """A heart rate at each place: its number."""
    for number, place in enumerate(places):
        time = DAY + number * minutes * MINUTE
        town.see(thing, time, PLACES[place])
        town.store(Row((thing, "heart-rate"), time, float(number)))


def refused(town: Town, area: Any) -> dict[str, Any]:
    """What is wrong with an area."""
    answer = town.grant("ai", area=area)
    assert answer.status_code == 422, answer.text
    named = {each["name"].partition(".")[0] for each in answer.json()["errors"]}
    assert named == {"area"}, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_property_3_an_area_shows_what_was_seen_in_it(town: Town) -> None:
    walk(town, "town", "abroad", "ward", "island", "shore", "far")
    name = granted(town)
    assert seen(town) == [0.0, 2.0, 4.0], "a hole is no part of it"
    town.revoke("ai", name)
    granted(town, area=geojson(ISLANDS))
    assert seen(town) == [2.0, 3.0], "each of several parts is"


def test_property_1_a_place_that_is_not_known_is_nowhere(town: Town) -> None:
    granted(town)
    town.store(Row(BAND, DAY, 1.0))
    assert seen(town) == [], "no place at all"
    town.stand("band", PLACES["town"])
    assert seen(town) == [1.0], "a fixed one"
    town.stand("band", PLACES["abroad"])
    assert seen(town) == []
    town.stand("band", PLACES["town"])
    town.see("band", DAY + HOUR, PLACES["town"])
    assert seen(town) == [], "what moves is not where it was registered, nor where it comes later"
    for second in (-1, 0, 299, 300):
        town.store(Row(BAND, DAY + HOUR + timedelta(seconds=second), second + 0.5))
    assert seen(town) == [0.5, 299.5], "from its position on, for five minutes"
    late = DAY + HOUR + timedelta(seconds=200)
    town.see("band", late, PLACES["abroad"])
    assert seen(town) == [0.5], "until it is seen elsewhere, however late that comes"
    town.connection.execute("UPDATE personal.observation_position SET quality = 1")
    assert seen(town) == [], "what is not plausible says nothing"


def test_property_13_what_is_pseudonymised_tells_no_place(town: Town) -> None:
    walk(town, "town")
    granted(town)
    assert seen(town) == [0.0]
    town.connection.execute(
        "UPDATE datastream SET data_class = 'pseudonymised' WHERE kind = 'position'"
    )
    assert seen(town) == []


def test_several_persons_are_in_all_of_their_areas(town: Town) -> None:
    """And who grants twice, in either."""
    town.bind("car", ["ai", "ken"], (DAY, None))
    walk(town, "ward", "island", "town", "abroad", thing="car")
    town.grant("ken", area=geojson(TOWN))
    assert seen(town) == []
    name = granted(town, area=geojson(ISLANDS))
    assert seen(town) == [0.0], "the ward alone is in both"
    granted(town, area=geojson(TOWN))
    assert seen(town) == [0.0, 2.0]
    town.revoke("ai", name)
    assert seen(town) == [0.0, 2.0], "it was in the other one, too"


@pytest.mark.parametrize("level", [1, 2, 3])
def test_property_5_an_edge_tells_no_more_than_the_cell_that_is_shown(
    town: Town, level: int
) -> None:
    """Only whole cells of the grid are within: where in a cell someone was changes nothing."""
    for minute in range(60):
        town.see("band", DAY + minute * MINUTE, PLACES["ward"])
    town.store(Row(BAND, DAY + 59 * MINUTE, 1.0))
    granted(town, area=geojson(WARD), resolution=LEVELS[level].name)
    assert seen(town) == [1.0]
    moved = "UPDATE personal.observation_position SET longitude = %s, latitude = %s"
    edge = PLACES["ward's edge"]
    town.connection.execute(moved, (edge.x, edge.y))
    assert seen(town) == [], "the cell reaches beyond"
    granted(town, area=geojson(WARD))
    assert seen(town) == [1.0], "exactly it is inside"


def test_property_5_who_else_granted_how_exactly_changes_nothing(town: Town) -> None:
    """Of levels between those of a person there is nothing more to show, or to take away."""
    for minute in range(0, 30, 5):
        town.see("band", DAY + minute * MINUTE, PLACES["ward's edge"])
    town.store(Row(BAND, DAY + 7 * MINUTE, 1.0))
    granted(town, area=geojson(WARD))
    granted(town, area=None, resolution="quarter")
    assert seen(town) == [1.0]
    town.bind("scale", ["ken"], (DAY, None))
    town.grant("ken", resolution="minute")
    assert seen(town) == [1.0]


@pytest.mark.parametrize("gone", [0, 28])
def test_a_step_is_shown_if_all_of_it_was_within(town: Town, gone: int) -> None:
    for minute in range(0, 60, 4):
        place = "abroad" if minute == gone else "ward"
        town.see("band", DAY + minute * MINUTE, PLACES[place])
    town.store(Row(BAND, DAY + 20 * MINUTE, 1.0))
    granted(town, resolution="hour")
    assert seen(town) == []
    town.connection.execute("DELETE FROM personal.observation_position WHERE longitude > 139.85")
    assert seen(town) == [], "then it was not known where it is"
    town.see("band", DAY + gone * MINUTE, PLACES["town"])
    assert seen(town) == [1.0]


def test_property_4_narrowing_adds_an_area_or_makes_it_smaller(town: Town) -> None:
    walk(town, "ward", "island", "town", "abroad")
    name = granted(town, area=None)
    assert seen(town) == [0.0, 1.0, 2.0, 3.0]
    for area, status, shown in (
        (TOWN, 200, [0.0, 2.0]),
        (TOWN, 200, [0.0, 2.0]),
        (ISLANDS, 409, [0.0, 2.0]),
        (None, 409, [0.0, 2.0]),
        (WARD, 200, [0.0]),
        (TOWN, 409, [0.0]),
        (WARD, 200, [0.0]),
    ):
        said = None if area is None else geojson(area)
        assert town.grant("ai", name, area=said).status_code == status, said
        assert seen(town) == shown
    acts = town.connection.execute(
        "SELECT act FROM consent.log WHERE body->>'grant' = %s ORDER BY sigma", (name,)
    ).fetchall()
    assert [act for (act,) in acts] == ["GRANT", "NARROW", "NARROW"], "the same again is no act"
    town.grant("ai", name, area=geojson(WARD), resolution="minute")
    forms = "SELECT areas FROM consent.granted WHERE grant_id = %s AND ended IS NULL"
    (kept,) = town.connection.execute(forms, (name,)).fetchone() or ((),)
    assert len(kept) == 2, "the one that was said again did not join them"
    stops = town.send("GET", "/v1/stops", Role.RECIPIENT, "clinic").json()
    assert len(stops["stops"]) == 3, "its recipient is told each time"


def test_a_grant_is_narrowed_so_often_and_no_more(town: Town) -> None:
    name = granted(town, area=geojson(box(139, 35, 140, 36)))
    for number in range(1, AREAS_MAX + 1):
        area = geojson(box(139, 35, 140 - number / 100, 36))
        status = 200 if number < AREAS_MAX else 409
        assert town.grant("ai", name, area=area).status_code == status


def test_property_5_the_fold_refuses_a_wider_area_whoever_writes_it(town: Town) -> None:
    name = granted(town)
    body = "SELECT body - 'area' FROM consent.log WHERE body->>'grant' = %s"
    person = town.number("ai")
    with pytest.raises(psycopg.errors.CheckViolation):
        town.connection.execute(
            f"SELECT consent.write('NARROW', {person}, 'x', 'self', ({body}))".encode(), (name,)
        )


def test_hostile_areas_are_refused_by_name(town: Town) -> None:
    ring = [[139.0, 35.0], [139.1, 35.0], [139.1, 35.1], [139.0, 35.0]]
    crossing = polygon((139, 35), (140, 36), (140, 35), (139, 36))
    assert "Self-intersection" in refused(town, crossing)["errors"][0]["reason"]
    pacific = polygon((179, 35), (-179, 35), (-179, 36), (179, 36))
    assert "antimeridian" in refused(town, pacific)["errors"][0]["reason"]
    many = [[139 + n / 1e5, 35 + n % 2 / 1e5] for n in range(CORNERS_MAX + 5)]
    outside = [[139.2, 35.2], [139.3, 35.2], [139.3, 35.3], [139.2, 35.2]]
    for area in (
        polygon((139, 35), (139.5, 35), (140, 35)),  # no area
        polygon((139, 35), (1e300, 35), (140, 36)),
        polygon((139, 35), (140, 91), (140, 36)),
        {"type": "Polygon", "coordinates": [[*many, many[0]]]},
        {"type": "Polygon", "coordinates": [ring[:3]]},
        {"type": "Polygon", "coordinates": [[*ring[:3], [139.0, 35.05]]]},  # not closed
        {"type": "Polygon", "coordinates": [ring, outside]},  # its hole is not in it
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "MultiPolygon", "coordinates": [[ring], [ring]]},  # on each other
        {"type": "MultiPolygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": [ring]},
        {"type": "Polygon", "coordinates": [[[*each, 7.0] for each in ring]]},  # a height
        {"type": "Polygon", "coordinates": [[[str(x), y] for x, y in ring]]},
        {"type": "Polygon", "coordinates": [ring], "crs": "EPSG:6668"},
        {"type": "Point", "coordinates": [139.0, 35.0]},
        {"type": "GeometryCollection", "geometries": []},
        {"coordinates": [ring]}, [], "everywhere", 7,
    ):  # fmt: skip
        refused(town, area)
    path = f"{town.served.url}/v1/consent/grants/{uuid4()}"
    for value in ("NaN", "Infinity", "1e999"):
        text = json.dumps({
            "recipient": "clinic", "purpose": "dpv:ServiceManagement", "valid_to": iso(EVER[1]),
            "category": "pd:MedicalHealth", "notice": "00" * 32, "area": polygon(*ring[:3]),
        }).replace("139.1", value)  # fmt: skip
        headers = {**town.headers(Role.CITIZEN, "ai"), "Content-Type": "application/json"}
        answer = httpx.put(path, content=text, headers=headers)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["name"].startswith("area"), answer.text
    assert town.city.one("SELECT count(*) FROM consent.area") == 0


def test_a_stream_brings_what_comes_within(town: Town) -> None:
    granted(town)
    for minute, place in enumerate(("town", "abroad", "town")):
        town.see("band", DAY + minute * MINUTE, PLACES[place])
    with following(town) as stream:
        rows = [Row(BAND, DAY + number * MINUTE, float(number)) for number in range(3)]
        town.come(*rows)
        assert results(stream) == [0.0, 2.0]
        town.see("band", DAY + HOUR, PLACES["island"])
        town.come(Row(BAND, DAY + HOUR, 3.0))
        assert stream.silent(1.5)


def test_its_record_shows_the_area_to_its_person_alone(town: Town) -> None:
    """Their recipient sees a commitment: a fence around a home is finer than a day's cell."""
    name = granted(town)
    (own,) = town.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    path = f"/v1/consent/grants/{name}/record"
    record = town.send("GET", path, Role.CITIZEN, "ai").json()
    (process,) = record["dpv:hasProcess"]
    (place,) = process["dct:spatial"]
    said = place["geo:asGeoJSON"]["@value"]
    assert json.loads(said) == own["area"] == json.loads(json.dumps(geojson(TOWN)))
    salt = bytes.fromhex(place["chimata:salt"])
    assert process["chimata:areas"] == [sha256(salt + said.encode()).hexdigest()]
    theirs = town.send("GET", path, Role.RECIPIENT, "clinic").json()
    assert theirs["dpv:hasProcess"][0]["chimata:areas"] == process["chimata:areas"]
    assert "139." not in json.dumps(theirs["dpv:hasProcess"])
    hashes = [each["dpv:hasConsentStatus"][0]["chimata:termsHash"] for each in (record, theirs)]
    assert len(hashes[0]) == 64
    town.grant("ai", name, area=geojson(WARD))
    again = town.send("GET", path, Role.CITIZEN, "ai").json()
    first, second = again["dpv:hasConsentStatus"]
    assert first["chimata:termsHash"] == hashes[0] != second["chimata:termsHash"]
    assert len(again["dpv:hasProcess"][0]["dct:spatial"]) == 2, "both hold"


def test_property_22_an_area_is_forgotten_with_its_person(town: Town) -> None:
    """The log never had it; what is left of it is a commitment to nobody knows what."""
    granted(town, area=geojson(LAKE))
    town.grant("ken", area=geojson(TOWN))
    logged = town.connection.execute("SELECT string_agg(body::text, ' ') FROM consent.log")
    assert "139.7" not in str(logged.fetchone())
    erase(town, "ai")
    left = town.connection.execute("SELECT said FROM consent.area").fetchall()
    assert [json.loads(said) for (said,) in left] == [json.loads(json.dumps(geojson(TOWN)))]
    before = "SELECT string_agg(g::text, ' ' ORDER BY g.sigma) FROM consent.granted g"
    state = town.connection.execute(before).fetchone()
    town.connection.execute("SELECT consent.replay()")
    assert town.connection.execute(before).fetchone() == state, "property 21"


@pytest.mark.parametrize("unit", [2e-5, 1.1e-3, 7e-3])
def test_a_place_is_within_as_shapely_says(storage_url: str, unit: float) -> None:
    """Of stars and crosses with holes, from metres to kilometres; nowhere on an edge."""
    query = """SELECT consent.lies_within(consent.rings(%s), %s, %s, l) FROM consent.level l
               WHERE number = %s"""
    found = Counter[bool]()
    x, y = 139.7003, 35.6007
    steps = st.tuples(st.integers(-40, 40), st.integers(-40, 40))

    @settings(max_examples=150, deadline=None, phases=[Phase.generate], database=None)
    @given(st.lists(steps, min_size=1, max_size=4), st.booleans(), steps, st.integers(0, 4))
    def tried(arms: list[tuple[int, int]], hole: bool, at: tuple[int, int], level: int) -> None:
        area = Point(x, y).buffer(9 * unit, 2)
        for dx, dy in arms:
            line = LineString([(x, y), (x + dx * unit, y + dy * unit)])
            area = area.union(line.buffer(3.3 * unit, 1))
        if hole:
            area -= Point(x, y).buffer(2 * unit, 3)
        place = Point(x + (at[0] + 0.37) * unit, y + (at[1] + 0.41) * unit)
        wanted = cell(place, level)
        said = (json.dumps(geojson(area)), place.x, place.y, level)
        assert connection.execute(query, said).fetchone() == (area.covers(wanted),)
        found[area.covers(wanted)] += 1

    with psycopg.connect(storage_url, autocommit=True) as connection:
        tried()
    assert found[True] > 10 < found[False], "all of it was on one side"


TRACKS = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(NAMES)), min_size=2, max_size=25)
"""Minutes since the place before, and the place."""


def test_property_5_generated_tracks_on_every_channel(town: Town) -> None:
    """Pages, each form of export, rollups, and positions themselves, as the oracle says."""
    numbers, told = count(1), Counter[str]()

    @settings(
        max_examples=16, deadline=None, phases=[Phase.explicit, Phase.generate], database=None
    )  # fmt: skip
    @example([(1, "abroad")], "town", 0, True, [1, 30, 59])
    @given(
        TRACKS, st.sampled_from(list(AREAS)), st.sampled_from([0, 0, 1, 2, 3]), st.booleans(),
        st.lists(st.integers(0, 119), min_size=4, max_size=15, unique=True),
    )  # fmt: skip
    def tried(
        track: list[tuple[int, str]], area: str, level: int, steady: bool, minutes: list[int]
    ) -> None:
        world = Tracked(town, f"-{next(numbers)}")
        if steady:  # nowhere else for an hour, so that there is a whole one
            track = [(0, "ward"), *[(5, "ward")] * 12, *track]
        world.settle(track, AREAS[area], level, minutes)
        ask = Ask("clinic", "dpv:ServiceManagement", "pd:MedicalHealth", EVER, datetime.now(UTC))
        shown = sorted((time, value) for _, _, time, value in world.oracle.answer(ask))
        assert world.pages() == shown
        for form in ("jsonl", "csv", "parquet"):
            rows, _ = exported(export(town, form, world.recipient))
            name = "result" if form == "jsonl" else "number"
            assert sorted(float(row[name]) for row in rows) == sorted(v for _, v in shown)
        assert world.positions() == world.expected_positions(area, level)
        expected = world.expected_rollups(ask) if level == 0 else []
        assert world.rolled_up() == expected
        told["pages"] += bool(shown)
        told["rollups"] += bool(expected)
        told["reduced"] += bool(shown) and level > 0

    tried()
    assert min(told["pages"], told["rollups"], told["reduced"]) > 0, told


class Tracked:
    """One person with a band and a phone on the same track, and a recipient of both."""

    def __init__(self, town: Town, mark: str) -> None:
        self.town = town
        self.thing, self.recipient, self.person = (
            f"{name}{mark}" for name in ("band", "clinic", "ai")
        )
        declared = domains.sector("health").properties
        self.oracle = Oracle(
            countries={"clinic": "JP"},
            categories={p.name: str(p.category) for p in declared if p.category},
        )

    def settle(
        self, track: list[tuple[int, str]], area: BaseGeometry, level: int, minutes: list[int]
    ) -> None:
        """Say everything, and store everything."""
        self.town.register(self.recipient)
        for sector in ("health", "mobility"):
            self.town.bind(self.thing, [self.person], (DAY, None), sector)
        said = {"area": geojson(area), "resolution": LEVELS[level].name}
        for operation in ("read", "derive"):
            for category in ("pd:MedicalHealth", "pd:Location"):
                answer = self.town.grant(
                    self.person, recipient=self.recipient, category=category, operation=operation,
                    **said,
                )  # fmt: skip
                assert answer.status_code == 200, answer.text
        self.oracle.bindings.append((self.thing, frozenset(["ai"]), (DAY, EVER[1])))
        self.oracle.grants["one"] = Grant(
            "ai", "clinic", "dpv:ServiceManagement", "pd:MedicalHealth", EVER, EVER, level,
            ("JP",), 1, areas=(area,),
        )  # fmt: skip
        city, time = self.town.city, DAY
        phone = city.datastream(
            city.thing("mobility", self.thing), "position", "position", data_class="personal"
        )
        seen = self.oracle.tracks[self.thing] = {}
        for since, place in track:
            time += since * MINUTE
            seen[time] = PLACES[place]
            self.town.see(self.thing, time, PLACES[place])
            self.town.connection.execute(INSERT_POSITION, (time, *PLACES[place].coords[0], phone))
        for minute in minutes:
            row = Row((self.thing, "heart-rate"), DAY + minute * MINUTE, float(minute))
            self.oracle.rows.append(row)
            self.town.store(row)

    def pages(self) -> list[tuple[datetime, float]]:
        rows = self.town.ask(self.recipient, limit=3)
        return sorted((moment(row["phenomenon_time"]), row["result"]) for row in rows)

    def positions(self) -> list[tuple[datetime, float, float]]:
        """What the phone told, which is in another sector."""
        path = BASE.replace("health", "mobility") + "/observations"
        rows = self.town.ask(self.recipient, limit=7, path=path, category="pd:Location")
        return sorted(
            (moment(row["phenomenon_time"]), row["result"]["longitude"], row["result"]["latitude"])
            for row in rows
        )

    def expected_positions(self, area: str, level: int) -> list[tuple[datetime, float, float]]:
        """Exact ones by their own place, others as the last of a step that was within."""
        track = self.oracle.tracks[self.thing]
        rows = [Row((self.thing, "heart-rate"), time, float(n)) for n, time in enumerate(track)]
        oracle = replace(self.oracle, rows=rows)
        ask = Ask("clinic", "dpv:ServiceManagement", "pd:MedicalHealth", EVER, datetime.now(UTC))
        places = list(track.values())
        shown = [(time, cell(places[int(n)], level).centroid) for *_, time, n in oracle.answer(ask)]
        if level == 0:
            exact = [time for time, place in track.items() if AREAS[area].covers(place)]
            assert sorted(time for time, _ in shown) == exact
        return sorted((time, approx(at.x), approx(at.y)) for time, at in shown)

    def rolled_up(self) -> list[tuple[datetime, int, float]]:
        rows = rolled_up(self.town, "hour", (DAY, DAY + 4 * HOUR), self.recipient)
        return [(moment(row["phenomenon_time"]), row["count"], approx(row["mean"])) for row in rows]

    def expected_rollups(self, ask: Ask) -> list[tuple[datetime, int, float]]:
        found = []
        for hour in range(4):
            begin, end = DAY + hour * HOUR, DAY + (hour + 1) * HOUR
            of = [row.value for row in self.oracle.rows if begin <= row.time < end]
            if of and self.oracle.whole(self.thing, "heart-rate", begin, end, 0, ask):
                found.append((begin, len(of), mean(of)))
        return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def approx(number: float) -> Any:
    return pytest.approx(number, abs=1e-9)
