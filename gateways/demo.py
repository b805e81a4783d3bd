"""The demo city's gateways: `python -m gateways.demo --mqtt URL --tokens FILE`.

Every half second the simulators are asked what their devices say now; it goes to the platform as
batches with an identity, over MQTT, as any gateway's would. The window is kept in memory: what a
live demo could not send is worthless after a restart.
"""

import argparse
import json
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from core.clock import MICROSECONDS, now_us
from core.errors import CityError
from domains.farms import wire as farms_wire
from domains.mobility import wire as mobility_wire
from gateways.batches import Batch
from gateways.delivery import Delivery, Window
from gateways.outbox import Outbox
from gateways.senders.mqtt import MqttSender
from gateways.simulators import bikes, buses, edge, farms, ports, riders, signals
from gateways.simulators.city import Crossing, crossings

LOG = logging.getLogger("chimata.demo")

TICK_US = MICROSECONDS // 2
LATE_US_MAX = 5 * MICROSECONDS
"""Further behind than this, missed ticks are skipped: a demo shows what is now."""
MAP_SECONDS = 60
MAPS_AT_START = 15
"""MAPs a tick and gateway until each was sent once: all are there within the first seconds."""
BUFFER_BYTES_MAX = 4 * 1024 * 1024
WINDOW = Window(batches_max=50, receipt_seconds=15.0, receipt_seconds_max=60.0)

Payloads = Iterator[tuple[str, bytes, int]]
"""(wire format, payload, native messages) of one tick."""
Source = Callable[[int, int], Payloads]
"""Called with the tick's number since the start and its time, µs since 1970 UTC."""


def district_source(district: int) -> Source:
    """The signals of one district: every one each second and at each change, MAPs each minute."""
    mine = [crossing for crossing in crossings() if crossing.district == district]

    def source(tick: int, time_us: int) -> Payloads:
        due = [c for c in mine if _spat_due(c, time_us)]
        frames = [signals.spat(c, time_us) for c in due]
        frames += [signals.map_frame(c.number) for c in _maps_due(mine, tick)]
        if frames:
            yield "j2735", b"".join(frames), len(frames)

    return source


def _spat_due(crossing: Crossing, time_us: int) -> bool:
    half = time_us // TICK_US % 2
    return crossing.number % 2 == half or signals.changed(crossing, time_us - TICK_US, time_us)


def _maps_due(mine: list[Crossing], tick: int) -> list[Crossing]:
    """At the start all of them, some a tick; later each once a minute."""
    begin = tick * MAPS_AT_START
    if begin < len(mine):
        return mine[begin : begin + MAPS_AT_START]
    period = MAP_SECONDS * MICROSECONDS // TICK_US
    return [c for index, c in enumerate(mine) if (tick + index) % period == 0]


def ports_source(tick: int, time_us: int) -> Payloads:
    """What the shore station hears in this tick: position reports, and static ones in turn."""
    lines: list[str] = []
    for index, ship in enumerate(ports.ships()):
        if _turn(tick, index, ship.report_seconds):
            lines.append(ports.position_line(ship, time_us))
        if _turn(tick, index, ports.STATIC_SECONDS):
            lines.extend(ports.static_lines(ship, time_us))
    if lines:
        yield "nmea", "\n".join(lines).encode() + b"\n", len(lines)


FIRST_ROUND_TICKS = 20
"""In the first ten seconds every device speaks once, whatever its period."""


def _turn(tick: int, index: int, period_seconds: int) -> bool:
    """Whether a device speaks at this tick: staggered, and once in the first round."""
    if tick < FIRST_ROUND_TICKS:
        return index % FIRST_ROUND_TICKS == tick
    period = period_seconds * MICROSECONDS // TICK_US
    return (tick + index * 7) % period == 0


PLACES_SECONDS = 3600


def farms_source(tick: int, time_us: int) -> Payloads:
    """What the network server of the fields hears: uplinks, and from its register the places."""
    everyone = farms.sensors()
    due = [s for s in everyone if _turn(tick, s.index, farms.REPORT_SECONDS)]
    moved_in = [s for s in everyone if _turn(tick, s.index, PLACES_SECONDS)]
    if moved_in:
        yield "senml-json", farms.places(moved_in, time_us), 2 * len(moved_in)
    if due:
        payload = farms_wire.uplinks(farms.uplink(sensor, time_us) for sensor in due)
        yield "lorawan", payload, len(due)


def edge_source(tick: int, time_us: int) -> Payloads:
    """The KPIs of the nodes whose turn it is."""
    due = [node for node in edge.nodes() if _turn(tick, node.index, edge.REPORT_SECONDS)]
    if due:
        yield "senml-json", *edge.packs(due, time_us)


def buses_source(tick: int, time_us: int) -> Payloads:
    """Every bus on the road, each few seconds."""
    if time_us % (buses.REPORT_SECONDS * MICROSECONDS) == 0 or tick == 0:
        yield "gtfs-rt", *buses.message(time_us)


def bikes_source(tick: int, time_us: int) -> Payloads:
    """Where the stations are, now and then; what stands there, often."""
    if time_us % (bikes.INFORMATION_SECONDS * MICROSECONDS) == 0 or tick == 0:
        yield "gbfs", bikes.system(time_us), 1
        yield "gbfs", bikes.information(time_us), 1
    if time_us % (bikes.STATUS_SECONDS * MICROSECONDS) == 0 or tick == 0:
        yield "gbfs", bikes.status(time_us), 1


def riders_source(tick: int, time_us: int) -> Payloads:
    """Where the phones on buses are, and the taps since the last time."""
    step_us = riders.REPORT_SECONDS * MICROSECONDS
    if time_us % step_us == 0 or tick == 0:
        for track in riders.tracks(time_us):
            yield "gpx", track, 1
        taps = riders.taps(time_us, time_us - step_us)
        if taps:
            yield "tap-csv", mobility_wire.write_tap_csv(taps), len(taps)


SOURCES: dict[str, tuple[str, Source]] = {
    **{f"demo-signals-{n + 1}": ("signals", district_source(n)) for n in range(4)},
    "demo-ports": ("ports", ports_source),
    "demo-farms": ("farms", farms_source),
    "demo-edge": ("edge", edge_source),
    buses.REALTIME: ("mobility", buses_source),
    bikes.FEED: ("mobility", bikes_source),
    riders.GATEWAY: ("mobility", riders_source),
}
GATEWAYS: dict[str, str] = {gateway: sector for gateway, (sector, _) in SOURCES.items()}
"""The gateways of the demo city and their sectors: each needs a token of its own."""


@dataclass
class LiveGateway:
    """One gateway: numbers its batches, sends them, keeps a bounded buffer until the receipts."""

    gateway: str
    sector: str
    sender: MqttSender
    boot: str
    outbox: Outbox = field(default_factory=lambda: Outbox(None, bytes_max=BUFFER_BYTES_MAX))
    sequence: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        self._delivery = Delivery(self.outbox, self.sender, WINDOW)

    def emit(self, payloads: Payloads, time_us: int) -> None:
        """Queue one tick's payloads; while the buffer is full they are skipped, and counted."""
        batches: list[Batch] = []
        for wire_format, payload, messages in payloads:
            batches.append(
                Batch(
                    self.sector,
                    wire_format,
                    self.boot,
                    self.sequence + len(batches),
                    payload,
                    messages,
                    time_us,
                )
            )
        if not batches:
            return
        if not self.outbox.has_room(batches):
            self.skipped += len(batches)
            return
        self.outbox.append(batches)
        self.sequence += len(batches)

    def step(self) -> None:
        """Send, and take receipts; a refused batch is reported."""
        for done in self._delivery.step():
            if done.result.refused:
                LOG.warning("%s: batch refused: %s", self.gateway, done.result.detail)

    def close(self) -> None:
        """Disconnect."""
        self.sender.close()
        self.outbox.close()


def run(mqtt: str, tokens: dict[str, str], stop: Event) -> None:
    """Run the city until `stop` is set. CityError when a token is missing or not accepted."""
    missing = sorted(GATEWAYS.keys() - tokens.keys())
    if missing:
        raise CityError("unauthenticated", f"no token for {', '.join(missing)}")
    boot = f"d{now_us():x}"
    city = [
        (LiveGateway(name, sector, MqttSender(mqtt, name, tokens[name]), boot), source)
        for name, (sector, source) in SOURCES.items()
    ]
    try:
        for tick, time_us in ticks(stop):
            for live, source in city:
                live.emit(source(tick, time_us), time_us)
                live.step()
    finally:
        for live, _ in city:
            live.close()


def ticks(stop: Event) -> Iterator[tuple[int, int]]:
    """Numbers and times of ticks, on the clock's half seconds; late ones are skipped."""
    begun = now_us() // TICK_US
    due = begun
    while not stop.is_set():
        wait = due * TICK_US - now_us()
        if wait > 0 and stop.wait(wait / MICROSECONDS):
            return
        yield due - begun, due * TICK_US
        due += 1
        if now_us() - due * TICK_US > LATE_US_MAX:
            due = now_us() // TICK_US


def read_tokens(path: Path) -> dict[str, str]:
    """{gateway: token} of a JSON file; CityError `invalid` otherwise."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CityError("invalid", f"{path} is not a readable file of tokens") from error
    return {str(gateway): str(token) for gateway, token in dict(found).items()}


def main() -> int:
    """The command; exit 0 on SIGINT and SIGTERM, 1 on an error, in one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mqtt", required=True, help="mqtt://host:port of the platform's broker")
    parser.add_argument("--tokens", required=True, type=Path, help="JSON file {gateway: token}")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="demo: %(message)s")
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        run(arguments.mqtt, read_tokens(arguments.tokens), stop)
    except CityError as error:
        LOG.error("%s", error)  # noqa: TRY400 (one clear line, no trace)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
