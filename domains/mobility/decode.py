"""What comes to mobility, to observations; pure, and never an exception for bad input.

GPX tracks and tap records here, GTFS-Realtime in realtime/decode.py, GBFS in gbfs/decode.py.
"""

from collections.abc import Callable, Iterable

from core.clock import from_datetime
from core.formats.checks import thing_fault
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, Position
from domains.mobility import wire
from domains.mobility.gbfs import decode as gbfs
from domains.mobility.realtime import decode as realtime
from domains.mobility.realtime.wire import READERS as REALTIME

READERS: dict[str, Callable[[bytes], Iterable[wire.Item]]] = {
    "gpx": wire.read_gpx,
    "tap-csv": wire.read_tap_csv,
    "tap-json": wire.read_tap_json,
}


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode one file; each point or record of it is one message."""
    if format in REALTIME:
        return realtime.decode(format, payload, context)
    if format == gbfs.FORMAT:
        return gbfs.decode(payload, context)
    builder = ObservationsBuilder()
    try:
        items = list(_read(format, payload))
    except wire.WireError as error:
        builder.messages = 1
        builder.reject(error.reason, str(error), payload)
        return builder.build()
    # Points and records come alone only inside of their file: a point is not to be taken in again.
    form = None if format == "gpx" else ""
    for number, item in enumerate(items):
        builder.messages += 1
        thing = item.source or context.gateway
        if isinstance(item.read, wire.WireError):
            builder.reject(item.read.reason, str(item.read), item.raw, number, form)
        elif isinstance(item.read, wire.Tap):
            _add_tap(builder, item.read)
        elif fault := thing_fault(thing):
            builder.reject("invalid-source", f"src: {fault}", item.raw, number, form)
        else:
            _add_point(builder, thing, item.read)
    return builder.build()


def _read(format: str, payload: bytes) -> Iterable[wire.Item]:
    if format not in READERS:
        raise wire.WireError("unsupported-format", f"format: mobility takes no {format!r}")
    return READERS[format](payload)


def _add_point(builder: ObservationsBuilder, thing: str, point: wire.Point) -> None:
    time = from_datetime(point.time)
    place = Position(point.longitude, point.latitude, point.speed, point.course)
    builder.hear(thing, time)
    builder.add(thing, "position", time, place)


def _add_tap(builder: ObservationsBuilder, tap: wire.Tap) -> None:
    """`in` and `out` are instances: at a gate between two lines both are of one second."""
    time = from_datetime(tap.time)
    said = {"stop": tap.stop, "route": tap.route, "operator": tap.operator}
    told = {name: value for name, value in said.items() if value is not None}
    builder.hear(tap.card, time)
    builder.add(tap.card, f"tap/{tap.event}", time, {"event": tap.event, **told})
    if tap.fare is not None:
        builder.add(tap.card, "fare", time, tap.fare)
