"""Field sensors of the demo city: LoRaWAN uplinks of real models, from paddies and slopes."""

import hashlib
from dataclasses import dataclass
from functools import cache

from core.clock import MICROSECONDS
from core.formats import senml
from domains.farms import wire
from gateways.simulators.city import day_wave, dice, noise, offset

FARMS, SENSORS_A_FARM = 20, 10
REPORT_SECONDS = 300
# The plain west of the city, and the slopes of the valley north of it: (longitude, latitude).
PLAIN = ((138.4020, 35.0080), (138.4380, 35.0500))
SLOPES = ((138.4650, 35.0600), (138.5000, 35.0900))
SPREAD_METRES = 160.0
MODELS = ("decentlab/dl-trs12",) * 6 + ("dragino/lse01",) * 3 + ("decentlab/dl-atm41",)
"""Of a farm's ten sensors."""
F_PORT = 1
IRRIGATION_DAYS = 3


@dataclass(frozen=True, slots=True)
class Sensor:
    """One device in a field."""

    index: int
    farm: int
    model: str
    dev_eui: str
    longitude: float
    latitude: float


@cache
def sensors() -> tuple[Sensor, ...]:
    """Every sensor; its DevEUI is made from its place in the list."""
    random = dice(2)
    found = []
    for farm in range(FARMS):
        (west, south), (east, north) = PLAIN if farm % 2 == 0 else SLOPES
        centre = (random.uniform(west, east), random.uniform(south, north))
        for number in range(SENSORS_A_FARM):
            index = farm * SENSORS_A_FARM + number
            spread = (random.uniform(-SPREAD_METRES, SPREAD_METRES) for _ in range(2))
            longitude, latitude = offset(*centre, *spread)
            found.append(
                Sensor(
                    index,
                    farm,
                    MODELS[number],
                    "70b3d5" + hashlib.sha256(b"demo %d" % index).hexdigest()[:10],
                    round(longitude, 6),
                    round(latitude, 6),
                )
            )
    return tuple(found)


def _soil(sensor: Sensor, time_us: int) -> tuple[float, float, float]:
    """(water m3/m3, Cel, uS/cm): water falls from one irrigation to the next."""
    slot = time_us // (REPORT_SECONDS * MICROSECONDS)
    days = time_us / (86_400 * MICROSECONDS) + sensor.farm * 0.37
    since = days % IRRIGATION_DAYS / IRRIGATION_DAYS
    water = 0.38 - 0.16 * since + 0.02 * noise(sensor.index, 1) + 0.002 * noise(sensor.index, slot)
    celsius = 19 + 3.5 * day_wave(time_us, 16.0) + 0.8 * noise(sensor.index, 2)
    return water, celsius, 180 + 60 * (1 - since) + 15 * noise(sensor.index, 3)


def values_at(sensor: Sensor, time_us: int) -> dict[str, float]:
    """What the sensor measures at a time, keys as its codec has them."""
    water, celsius, conductivity = _soil(sensor, time_us)
    battery = 3.1 + 0.1 * noise(sensor.index, 4)
    if sensor.model == "decentlab/dl-atm41":
        return _weather(sensor, time_us) | {"battery-voltage": battery}
    values = {
        "soil-moisture": water,
        "soil-temperature": celsius,
        "soil-conductivity": conductivity,
        "battery-voltage": battery,
    }
    if sensor.model == "dragino/lse01":
        values |= {"soil-moisture": 100 * water, "external-temperature": _air(sensor, time_us)}
    return values


def _air(sensor: Sensor, time_us: int) -> float:
    slot = time_us // (REPORT_SECONDS * MICROSECONDS)
    return 21 + 5.5 * day_wave(time_us, 14.0) + 0.4 * noise(sensor.index + 500, slot)


def _weather(sensor: Sensor, time_us: int) -> dict[str, float]:
    """All of a DL-ATM41's values: a dry day with a breeze from the bay."""
    slot = time_us // (REPORT_SECONDS * MICROSECONDS)
    wind = 2.2 + 1.5 * day_wave(time_us, 14.0) + 0.7 * noise(sensor.index, slot)
    wind = max(0.1, wind)
    sun = max(0.0, day_wave(time_us, 12.0)) * 850
    return {
        "solar-radiation": sun,
        "precipitation": 0.0,
        "lightning-count": 0.0,
        "lightning-distance": 0.0,
        "wind-speed": wind,
        "wind-direction": (110 + 30 * noise(sensor.index, slot // 3)) % 360,
        "maximum-wind-speed": wind * 1.6,
        "air-temperature": _air(sensor, time_us),
        "vapour-pressure": 1.7 + 0.2 * noise(sensor.farm, slot // 12),
        "atmospheric-pressure": 101.3 + 0.3 * noise(0, slot // 36),
        "relative-humidity": 66 - 14 * day_wave(time_us, 14.0) + noise(sensor.index, slot),
        "internal-temperature": _air(sensor, time_us) + 1,
        "tilt-x": 0.2,
        "tilt-y": -0.4,
        "compass-heading": 90.0,
        "wind-speed-north": wind * 0.3,
        "wind-speed-east": -wind * 0.9,
    }


def uplink(sensor: Sensor, time_us: int) -> dict[str, object]:
    """The sensor's uplink: the bytes that such a device sends."""
    model = wire.MODELS[sensor.model]
    payload = model.encode(values_at(sensor, time_us), sensor.index + 1)
    port = F_PORT if model.f_port is None else model.f_port
    return wire.uplink(sensor.model, sensor.dev_eui, port, payload, time_us)


def places(due: list[Sensor], time_us: int) -> bytes:
    """Where sensors stand, as a SenML pack: an uplink's bytes do not say."""
    records = []
    for sensor in due:
        base = senml.Record(bn=f"{sensor.dev_eui}:", bt=time_us / MICROSECONDS)
        base.n, base.u, base.v = "longitude", "lon", sensor.longitude
        records += [base, senml.Record(n="latitude", u="lat", v=sensor.latitude)]
    return senml.encode_json(records)
