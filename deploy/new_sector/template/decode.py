"""newsector payloads to observations; pure, and never an exception for bad input."""

from core.clock import from_datetime
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder
from deploy.new_sector.template import wire
from deploy.new_sector.template.sector import STATES


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode `csv`; a row that does not decode is a rejection that names its fault."""
    builder = ObservationsBuilder()
    if format != "csv":
        builder.messages = 1
        builder.reject("unsupported-format", f"newsector takes csv, not {format}", payload)
        return builder.build()
    for item, (raw, row) in enumerate(wire.split(payload)):
        builder.messages += 1
        if isinstance(row, wire.WireError):
            builder.reject(row.reason, str(row), raw, item)
        elif row.state is not None and row.state not in STATES:
            builder.reject("invalid-field", f"state: {row.state[:40]!r} is not known", raw, item)
        else:
            _add(builder, row, context)
    return builder.build()


def _add(builder: ObservationsBuilder, row: wire.Reading, context: Context) -> None:
    time = context.received_at if row.time is None else from_datetime(row.time)
    builder.hear(row.station, time)
    if row.level is None and row.state is None:
        builder.unchanged += 1
    if row.level is not None:
        builder.add(row.station, "level", time, row.level)
    if row.state is not None:
        builder.add(row.station, "state", time, row.state)
