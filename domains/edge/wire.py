"""What edge nodes send: KPI packs in SenML (RFC 8428) and modem KPI rows as CSV."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

# Observed property -> its SenML unit (RFC 8428 12.1, RFC 8798); None: a plain number.
SENML_UNITS: dict[str, str | None] = {
    "rsrp": "dBm", "rsrq": "dB", "rssi": "dBm", "sinr": "dB",
    "nr-rsrp": "dBm", "nr-rsrq": "dB", "nr-rssi": "dBm", "nr-sinr": "dB",
    "rtt": "ms", "jitter": "ms", "packet-loss": "/100",
    "throughput": "Mbit/s", "uplink-throughput": "Mbit/s", "downlink-throughput": "Mbit/s",
    "load": "/100", "memory": "/100", "connected-devices": "count",
    "temperature": "Cel", "humidity": "%RH", "power": "W", "battery": "%EL",
    "heartbeat": "count", "uptime": "s",
    "longitude": "lon", "latitude": "lat", "altitude": "m", "speed": "m/s", "heading": "deg",
}  # fmt: skip

CSV_COLUMNS = (
    "Time", "rsrp(dBm)", "rsrq(dB)", "rssi(dBm)", "nr_rsrp(dBm)", "nr_rsrq(dB)", "nr_rssi(dBm)",
    "Sent Bytes", "RATE(MBit/s)",
)  # fmt: skip
"""Header of a modem logger's recording; an NR column is 0 while there is no NR cell."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def kpi_pack(node: str, moment_us: int, values: Mapping[str, float]) -> bytes:
    """One SenML JSON pack of a node's KPIs at one time (µs since 1970 UTC).

    Keys are those of SENML_UNITS; `longitude` and `latitude` together make a position. KeyError
    for a key without a unit: a pack must say what it holds.
    """
    pack: list[dict[str, object]] = []
    for name, value in values.items():
        record: dict[str, object] = {"n": name, "v": value}
        unit = SENML_UNITS[name]
        if unit is not None:
            record["u"] = unit
        pack.append(record)
    if pack:
        pack[0] = {"bn": f"{node}:", "bt": moment_us / 1_000_000, **pack[0]}
    return json.dumps(pack, separators=(",", ":")).encode()


def kpi_csv(rows: Sequence[tuple[int, Mapping[str, float]]]) -> bytes:
    """(µs, values by column of CSV_COLUMNS) -> a batch with its header, times as of date(1)."""
    lines = [",".join(CSV_COLUMNS)]
    for moment_us, values in rows:
        moment = _EPOCH + timedelta(microseconds=moment_us)
        cells = [moment.strftime("%a %b %d %H:%M:%S UTC %Y")]
        cells += [format(values.get(column, 0), ".15g") for column in CSV_COLUMNS[1:]]
        lines.append(",".join(cells))
    return "\n".join(lines).encode() + b"\n"
