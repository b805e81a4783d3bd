"""The demo city: deterministic, decodable, on its own ground, cheap; run as `chimata up` does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from shapely import contains_xy
from shapely.geometry import Polygon, box
from shapely.ops import unary_union

import domains
from api.basemap.build import data_folder, read_shapes
from core.clock import MICROSECONDS, now_us
from core.formats import DECODERS
from core.sector import Context
from core.sensorthings import Decoded
from gateways.demo import GATEWAYS, SOURCES, TICK_US
from gateways.simulators import city, edge, farms, ports, riders, signals
from tests.gateways.mosquitto import Mosquitto, Peer

BEGIN_US = 1_790_000_000 * MICROSECONDS
AROUND = box(138.38, 34.45, 138.80, 35.20)

Said = tuple[str, str, bytes, int]


def said(ticks: range) -> Iterator[Said]:
    """(sector, format, payload, messages) of all gateways over some ticks."""
    for tick in ticks:
        for sector, source in SOURCES.values():
            for form, payload, messages in source(tick, BEGIN_US + tick * TICK_US):
                yield sector, form, payload, messages


def decode(sector: str, form: str, payload: bytes, context: Context) -> Decoded:
    if form in DECODERS:
        return DECODERS[form](payload, context)
    decoded: Decoded = domains.load(sector, "decode").decode(form, payload, context)
    return decoded


@pytest.fixture(scope="module")
def land() -> Polygon:
    """The coast around Suruga Bay at full resolution (the base map's own data)."""
    near = (
        shape
        for shape in read_shapes(data_folder(), "gshhs", "f")
        if shape.level == 1 and shape.south < 35.2 and shape.north > 34.4
    )
    shapes = [Polygon(shape.points).buffer(0) for shape in near if touches(shape.points)]
    return unary_union([shape.intersection(AROUND) for shape in shapes])


def touches(points: object) -> bool:
    longitudes = points[:, 0]  # type: ignore[index]
    return bool(longitudes.min() < 138.8 and longitudes.max() > 138.4)


def test_the_same_time_says_the_same() -> None:
    assert list(said(range(30))) == list(said(range(30)))


def test_everyone_has_spoken_in_the_first_thirty_seconds() -> None:
    heard: dict[str, set[str]] = {sector: set() for sector in GATEWAYS.values()}
    contexts = {sector: Context("demo", BEGIN_US) for sector in heard}
    counts: Counter[str] = Counter()
    for sector, form, payload, messages in said(range(60)):
        if sector not in domains.names():
            continue
        decoded = decode(sector, form, payload, contexts[sector])
        assert decoded.rejected == ()
        assert decoded.messages == messages
        heard[sector].update(each.thing for each in decoded.heard)
        heard[sector].update(update.thing for update in decoded.things)
        counts[sector] += decoded.observations
    expected = {"signals": 300, "ports": 60, "farms": 200, "edge": 40}
    for sector in set(expected) & set(domains.names()):
        assert len(heard[sector]) == expected[sector], sector
        assert counts[sector] >= expected[sector]


@pytest.mark.parametrize("begin", range(0, 40_000, 4_001))
def test_ships_stay_at_sea(land: Polygon, begin: int) -> None:
    for ship in ports.ships():
        for second in range(begin, begin + 4_000, 100):
            fix = ports.fix_at(ship, BEGIN_US + second * MICROSECONDS)
            assert not contains_xy(land, fix.longitude, fix.latitude), (ship.name, fix)


def test_signals_fields_and_nodes_stand_on_land(land: Polygon) -> None:
    places: list[city.Crossing | farms.Sensor] = [*city.crossings(), *farms.sensors()]
    assert all(contains_xy(land, place.longitude, place.latitude) for place in places)
    assert len({place.number for place in city.crossings()}) == city.INTERSECTIONS
    assert len({sensor.dev_eui for sensor in farms.sensors()}) == 200
    assert len({node.crossing for node in edge.nodes()}) == edge.NODES


def test_ships_move_as_fast_as_they_say() -> None:
    for ship in ports.ships():
        now, later = (ports.fix_at(ship, BEGIN_US + s * MICROSECONDS) for s in (0, 10))
        moved = ports.distance_metres(
            (now.longitude, now.latitude), (later.longitude, later.latitude)
        )
        assert moved <= now.knots * ports.METRES_A_KNOT_SECOND * 10 * 1.02 + 1


def test_crossing_streets_are_never_green_together_and_ends_are_kept() -> None:
    for crossing in city.crossings()[::23]:
        for second in range(0, 260):
            now_us = BEGIN_US + second * MICROSECONDS
            states = {
                group: (state, end) for group, state, end, _ in signals.groups_at(crossing, now_us)
            }
            moving = [
                any(states[group][0] != signals.RED for group in street)
                for street in (signals.MAIN_GROUPS, signals.CROSS_GROUPS)
            ]
            assert moving != [True, True]
            for group, (state, end_us) in states.items():
                assert end_us is not None
                assert end_us > now_us
                after = {g: s for g, s, _, _ in signals.groups_at(crossing, end_us)}
                before = {g: s for g, s, _, _ in signals.groups_at(crossing, end_us - 1)}
                assert before[group] == state
                assert after[group] != state


def test_a_minute_costs_little() -> None:
    list(said(range(40)))  # the first MAPs are encoded once
    begun = time.process_time()
    list(said(range(40, 160)))
    assert time.process_time() - begun < 0.15 * 60


@pytest.mark.mosquitto
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_command_speaks_for_every_gateway(
    broker: Mosquitto, peer: Peer, tmp_path: Path, root: Path, end: signal.Signals
) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps(dict.fromkeys(GATEWAYS, "unused")))
    child = subprocess.Popen(
        [sys.executable, "-m", "gateways.demo", "--mqtt", broker.url, "--tokens", tokens],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    begun_us = now_us() // TICK_US * TICK_US
    # Riders are silent while none of them is on a bus and none taps: it depends on the hour.
    speaking = {
        gateway
        for gateway, (_, source) in SOURCES.items()
        if any(any(source(tick, begun_us + tick * TICK_US)) for tick in range(20))
    }
    assert speaking >= set(GATEWAYS) - {riders.GATEWAY}
    deadline = time.monotonic() + 60
    while not {gateway for gateway, _, _ in list(peer.batches)} >= speaking:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child.send_signal(end)
    assert child.wait(15) == 0


def test_a_missing_token_is_one_clear_line(tmp_path: Path, root: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "gateways.demo", "--mqtt", "mqtt://127.0.0.1:9", "--tokens", tokens],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no token for demo-bus-rt" in done.stderr
    assert "Traceback" not in done.stderr
