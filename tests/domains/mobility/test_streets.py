"""Walking by streets: extracts of OpenStreetMap come in whole, ways are the shortest there are."""

import bz2
import heapq
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import LineString, Point
from typer.testing import CliRunner

from core.errors import CityError
from core.storage.pool import DatabaseRole, open_session
from deploy.cli import app
from deploy.imports import osm as command
from domains.mobility.network.streets import Streets, straight_metres
from domains.mobility.network.walking import BESIDE_METRES, OnStreets
from domains.mobility.osm import tags
from domains.mobility.osm.contract import contract
from domains.mobility.osm.read import Raw, read
from tests.domains.mobility.osm_town import POINTS, STREET, TOWN, WAYS, document, place


def imported(url: str, *sources: str | Path) -> dict[str, Any]:
    """What the command says."""
    with open_session(url, DatabaseRole.INGEST) as session:
        return command.run(session, [str(each) for each in sources])


def written(folder: Path, text: str, name: str = "town.osm") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def port_of(folder: Path, text: str) -> OnStreets:
    raw = Raw()
    read(written(folder, text), "town.osm", raw)
    return OnStreets(Streets(contract(raw)[0], "whose"))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> OnStreets:
    return port_of(tmp_path_factory.mktemp("osm"), TOWN)


def walk(
    port: OnStreets, origin: tuple[float, float], target: tuple[float, float],
    metres_max: float = 3000.0, *, wheelchair: bool = False,
) -> tuple[float, bool]:  # fmt: skip
    """Metres between two places (in metres of the town), and whether that is a guess."""
    ends = []
    for each in (origin, target):
        longitude, latitude = place(*each)
        at = np.array([longitude]), np.array([latitude])
        ends.append(port.place(*at, wheelchair=wheelchair))
    found = port.walks(ends[0], ends[1], metres_max)
    return float(found.metres[0]), bool(found.estimated[0])


def test_ways_are_exact_and_go_over_the_bridge(port: OnStreets) -> None:
    """100 m over the river are 1,100 m on foot from one end to the other, to the centimetre."""
    line = [POINTS[n] for n in (2, 3, 4, 14, 13, 12)]
    spots = np.array([place(*each) for each in line])
    exact = float(straight_metres(*spots[:-1].T, *spots[1:].T).sum())
    assert walk(port, POINTS[2], POINTS[12]) == (pytest.approx(exact, abs=0.01), False)
    assert exact == pytest.approx(900, abs=0.5)
    assert walk(port, POINTS[2], POINTS[12], 899.0) == (np.inf, False)
    # From the middle of ways, a little beside them; on one way there is no need of a crossing.
    assert walk(port, (100, -10), (100, 110))[0] == pytest.approx(1100 + 20, abs=1)
    assert walk(port, (50, 0), (150, 5))[0] == pytest.approx(105, abs=0.5)
    assert walk(port, (50, 0), (50, 0))[0] == pytest.approx(0, abs=0.1)


def test_a_wheelchair_goes_round_steps(port: OnStreets) -> None:
    assert walk(port, POINTS[2], POINTS[21])[0] == pytest.approx(60, abs=0.1)
    round_way = walk(port, POINTS[2], POINTS[21], wheelchair=True)
    assert round_way == (pytest.approx(200 + 60 + 200, abs=0.3), False)


def test_outside_of_the_streets_a_walk_is_a_guess(port: OnStreets) -> None:
    metres, estimated = walk(port, (0, -250), (100, -250))
    assert (metres, estimated) == (pytest.approx(130, abs=0.1), True)
    assert walk(port, (0, 0), (0, -250)) == (pytest.approx(325, abs=0.3), True)
    # An islet of a path was left out: it is no place where streets are known.
    assert walk(port, POINTS[31], POINTS[32])[1]
    nan = port.place(np.array([np.nan]), np.array([np.nan]))
    assert not port.walks(nan, nan, 100.0).metres[0] <= 100.0


@pytest.mark.parametrize(
    ("given", "walks", "rolls"),
    [
        ({"highway": "footway"}, True, True),
        ({"highway": "steps"}, True, False),
        ({"highway": "steps", "ramp:wheelchair": "yes"}, True, True),
        ({"highway": "path", "smoothness": "horrible"}, True, False),
        ({"highway": "path", "wheelchair": "no"}, True, False),
        ({"highway": "motorway"}, False, True),
        ({"highway": "primary"}, True, True),
        ({"highway": "primary", "sidewalk": "none"}, False, True),
        ({"highway": "primary", "sidewalk": "none", "foot": "yes"}, True, True),
        ({"highway": "trunk", "sidewalk:left": "no", "sidewalk:right": "yes"}, True, True),
        ({"highway": "trunk", "motorroad": "yes"}, False, True),
        ({"highway": "service", "access": "private"}, False, True),
        ({"highway": "service", "access": "private", "foot": "permissive"}, True, True),
        ({"highway": "residential", "foot": "no"}, False, True),
        ({"highway": "bridleway"}, False, True),
        ({"highway": "bridleway", "foot": "designated"}, True, True),
        ({"highway": "construction", "foot": "yes"}, False, True),
    ],
)
def test_tags(given: dict[str, str], walks: bool, rolls: bool) -> None:
    assert (tags.walkable(given), not tags.stepped(given)) == (walks, rolls)


def test_kerbs_and_gates(tmp_path: Path) -> None:
    """A high kerb stops a wheelchair that crosses, not one that goes on; a gate stops all."""
    points = {1: (0, 0), 2: (100, 0), 3: (200, 0), 4: (100, 20), 5: (200, 20), 6: (300, 0),
              7: (0, 20), 8: (6000, 0), 9: (-6000, 0)}  # fmt: skip
    ways = [
        ((1, 2, 3), {"highway": "footway"}),
        ((2, 4), {"highway": "footway", "footway": "crossing"}),
        ((7, 4, 5), {"highway": "footway"}),
        ((3, 6), {"highway": "footway"}),
        ((5, 3), {"highway": "footway"}),
        ((6, 8), {"highway": "footway"}),
        ((9, 1), {"highway": "footway"}),
    ]
    gate = {"barrier": "gate", "access": "private"}
    port = port_of(tmp_path, document(points, ways, {2: {"kerb": "raised"}, 7: gate}))
    assert walk(port, points[1], points[4])[0] == pytest.approx(120, abs=0.1)
    around = walk(port, points[1], points[4], wheelchair=True)[0]
    assert around == pytest.approx(200 + 20 + 100, abs=0.2)
    shut = port_of(tmp_path, document(points, ways, {3: gate}))
    assert walk(shut, points[2], points[6])[0] == np.inf
    assert walk(shut, points[2], points[5])[0] == pytest.approx(120, abs=0.1)


def test_every_walk_is_the_shortest(port: OnStreets, tmp_path: Path) -> None:
    """Against Dijkstra over the pieces as drawn, in random towns with rings, spurs and doubles."""

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        spot = st.tuples(st.integers(0, 9), st.integers(0, 9))
        places = data.draw(st.lists(spot, min_size=2, max_size=14, unique=True))
        # Aslant, so that no way leads through a point that is not its own.
        points = {
            n: (x * 90.0 + n * 17.77 % 31, y * 90.0 + n * 23.31 % 37)
            for n, (x, y) in enumerate(places, 1)
        }
        number = st.integers(1, len(points))
        one_way = st.tuples(
            st.lists(number, min_size=2, max_size=6),
            st.sampled_from((STREET, {"highway": "steps"})),
        )
        ways = data.draw(st.lists(one_way, min_size=1, max_size=8))
        drawn = {frozenset(pair) for nodes, _ in ways for pair in pairwise(nodes)}
        lines = {pair: LineString([points[n] for n in pair]) for pair in drawn if len(pair) > 1}
        on_another = any(
            number not in pair and line.distance(Point(spot)) < 1.0
            for pair, line in lines.items()
            for number, spot in points.items()
        )
        if on_another or not lines:
            return
        made = port_of(tmp_path, document(points, ways))
        a, b = data.draw(number), data.draw(number)
        for wheelchair in (False, True):
            best = dijkstra(points, ways, a, wheelchair=wheelchair)
            net = dijkstra(points, ways, a, wheelchair=False)
            found, _ = walk(made, points[a], points[b], 1e5, wheelchair=wheelchair)
            # Places are ids of points: they are on the network if a way of it leads there.
            on = [_on(made, points[n], wheelchair=wheelchair) for n in (a, b)]
            if all(on) and b in net:
                assert found == pytest.approx(best.get(b, np.inf), abs=0.5)

    check()


def _on(port: OnStreets, spot: tuple[float, float], *, wheelchair: bool) -> bool:
    longitude, latitude = place(*spot)
    snapped = port.streets.snap(np.array([longitude]), np.array([latitude]), wheelchair=wheelchair)
    return bool(snapped.way[0] >= 0 and snapped.off[0] < 0.1)


def dijkstra(points: Any, ways: Any, origin: int, *, wheelchair: bool) -> dict[int, float]:
    """Metres to every point, by the pieces of the ways; where lines cross nobody changes."""
    joined: dict[int, list[tuple[int, float]]] = {}
    passable = {
        frozenset(pair)
        for nodes, given in ways
        if given["highway"] != "steps"
        for pair in pairwise(nodes)
    }
    for nodes, _ in ways:
        for a, b in pairwise(nodes):
            if wheelchair and frozenset((a, b)) not in passable:
                continue
            metres = float(np.hypot(*np.subtract(points[a], points[b])))
            joined.setdefault(a, []).append((b, metres))
            joined.setdefault(b, []).append((a, metres))
    done: dict[int, float] = {}
    queue = [(0.0, origin)]
    while queue:
        far, at = heapq.heappop(queue)
        if at not in done:
            done[at] = far
            for other, metres in joined.get(at, ()):
                heapq.heappush(queue, (far + metres, other))
    return done


def test_import_says_what_it_did_and_knows_it_again(database_url: str, tmp_path: Path) -> None:
    path = written(tmp_path, TOWN)
    said = imported(database_url, path)
    assert (said["known"], said["ways"], said["walkable"], said["steps"]) == (False, 9, 7, 1)
    assert (said["not_walkable"], said["islands_left_out"], said["refused"]) == (2, 1, {})
    assert said["metres"] == pytest.approx(600 + 600 + 100 + 60 + 200 + 60, abs=1)
    assert "OpenStreetMap contributors" in said["attribution"]
    packed = tmp_path / "again.osm.bz2"
    packed.write_bytes(bz2.compress(TOWN.encode()))
    assert imported(database_url, packed)["known"]
    binary = tmp_path / "again.osm.pbf"
    with osmium.SimpleWriter(str(binary)) as writer:
        for each in osmium.FileProcessor(str(path)):
            writer.add(each)
    assert imported(database_url, binary)["known"]
    # Two extracts that overlap are one network; it takes the place of the one before.
    assert imported(database_url, path, packed)["known"]
    more = written(tmp_path, document({1: (0, 0), 2: (90, 0)}, [((1, 2), STREET)]), "other.osm")
    assert not imported(database_url, more)["known"]
    with psycopg.connect(database_url) as connection:
        query = "SELECT count(*), count(DISTINCT network) FROM mobility.street_part"
        assert connection.execute(query).fetchone() == (8, 1)


def test_the_command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMATA_DATABASE_URL", database_url)
    path = written(tmp_path, TOWN)
    result = CliRunner().invoke(app, ["import", "osm", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["crossings"] == 5


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("town.txt", b"", "ends in"),
        ("missing.osm", None, "no such file"),
        ("empty.osm", b"", "no whole extract"),
        ("half.osm", TOWN[: len(TOWN) // 2].encode(), "no whole extract"),
        ("half.osm.pbf", b"\x00\x00\x00\x0d\x0a\x09OSMHeader\x18\x7c", "no whole extract"),
        ("noise.osm.pbf", bytes(range(256)) * 8, "no whole extract"),
        ("plain.osm.bz2", TOWN.encode(), "no whole extract"),
        ("other.osm", b"<gpx/>", "no whole extract"),
        ("bomb.osm", b'<!DOCTYPE osm [<!ENTITY a "b">]><osm version="0.6">&a;</osm>', "extract"),
        ("bare.osm", b'<osm version="0.6"></osm>', "no way that one can walk"),
        ("motorway.osm", document({1: (0, 0), 2: (9, 0)}, [((1, 2), {"highway": "motorway"})])
         .encode(), "no way that one can walk"),
        ("ways.osm", document({}, [((1, 2), STREET)]).encode(), "no way that one can walk"),
        ("odd.osm", TOWN.replace('lat="35.', 'lat="935.').encode(), "extract"),
    ],
)  # fmt: skip
def test_what_is_no_extract_is_refused_with_its_reason(
    name: str, body: bytes | None, reason: str, database_url: str, tmp_path: Path
) -> None:
    """And what was there before stays."""
    imported(database_url, written(tmp_path, TOWN, "good.osm"))
    if body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(CityError, match=reason):
        imported(database_url, tmp_path / name)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM mobility.street_network").fetchone() == (1,)


def test_points_that_an_extract_lacks_cut_its_ways(database_url: str, tmp_path: Path) -> None:
    points = {number: spot for number, spot in POINTS.items() if number != 3}
    said = imported(database_url, written(tmp_path, document(points, WAYS)))
    assert said["refused"] == {"points_without_place": 2, "ways_without_points": 1}


@pytest.mark.shared_data
def test_a_real_extract(shared_data: Path, database_url: str) -> None:
    """Kyoto: every way that its README counts; no walk is shorter than a straight line."""
    path = shared_data / "osm-japan" / "kyoto_center.osm"
    said = imported(database_url, path)
    assert (said["ways"], said["steps"], said["nets"]) == (202, 8, 1)
    assert said["metres"] > 40_000
    raw = Raw()
    read(path, path.name, raw)
    port = OnStreets(Streets(contract(raw)[0]))
    random = np.random.default_rng(1)
    x, y = random.uniform(135.754, 135.765, 40), random.uniform(34.989, 34.998, 40)
    placed = port.place(x, y)
    assert placed.snapped is not None
    for n in range(len(x)):
        found = port.walks(placed.at(np.array([n])), placed, 3000.0)
        air = straight_metres(x[n], y[n], x, y)
        assert (found.metres >= air - 0.5).all()
        far = placed.snapped.off > BESIDE_METRES
        assert (found.estimated == (far | far[n])).all()
        assert np.isfinite(found.metres[air < 500]).all()
        back = port.walks(placed.at(np.array([(n + 1) % 40])), placed, 3000.0).metres[n]
        assert found.metres[(n + 1) % 40] == pytest.approx(back)
