"""LoRaWAN payloads of field sensors, by device model: bytes -> values and values -> bytes.

Dragino LSE01 (user manual 2.3: uplink payload, fPort 2); Decentlab DL-TRS12 and DL-ATM41 (data
sheets: protocol version 2). Values carry the devices' own units, given in MODELS as UCUM.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

PROTOCOL_VERSION = 2  # of Decentlab's payloads
_OFFSET = 32768  # Decentlab: signed values are sent with this added
_WORD_MAX = 0xFFFF
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PayloadError(ValueError):
    """Bytes that are no payload of the model; `reason` is a slug, the text says what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Model:
    """A device model: its fPort (None: any), the UCUM unit of each value, and its two codecs."""

    f_port: int | None  # None: any application port
    units: Mapping[str, str]
    decode: Callable[[bytes], dict[str, float]]
    encode: Callable[[Mapping[str, float], int], bytes]


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of a Decentlab sensor: which word it is, and the line from word to value."""

    name: str
    unit: str
    word: int
    divisor: float = 1.0
    signed: bool = True

    def read(self, words: list[int]) -> float:
        return (words[self.word] - (_OFFSET if self.signed else 0)) / self.divisor

    def write(self, value: float) -> int:
        word = round(value * self.divisor) + (_OFFSET if self.signed else 0)
        return min(max(word, 0), _WORD_MAX)


@dataclass(frozen=True, slots=True)
class _Sensor:
    """A block of words that a bit of the flags announces."""

    words: int
    values: tuple[_Value, ...]


_BATTERY = _Sensor(1, (_Value("battery-voltage", "V", 0, 1000, signed=False),))

_ATM41 = (
    _Sensor(
        17,
        (
            _Value("solar-radiation", "W/m2", 0),
            _Value("precipitation", "mm", 1, 1000),
            _Value("lightning-count", "1", 2),
            _Value("lightning-distance", "km", 3),
            _Value("wind-speed", "m/s", 4, 100),
            _Value("wind-direction", "deg", 5, 10),
            _Value("maximum-wind-speed", "m/s", 6, 100),
            _Value("air-temperature", "Cel", 7, 10),
            _Value("vapour-pressure", "kPa", 8, 100),
            _Value("atmospheric-pressure", "kPa", 9, 100),
            _Value("relative-humidity", "%", 10, 10),
            _Value("internal-temperature", "Cel", 11, 10),
            _Value("tilt-x", "deg", 12, 10),
            _Value("tilt-y", "deg", 13, 10),
            _Value("compass-heading", "deg", 14),
            _Value("wind-speed-north", "m/s", 15, 100),
            _Value("wind-speed-east", "m/s", 16, 100),
        ),
    ),
    _BATTERY,
)

# The TRS12's first word is a raw count that two curves turn into water content and permittivity.
_TRS12 = (
    _Sensor(
        3,
        (
            _Value("raw-count", "1", 0, 10, signed=False),
            _Value("soil-temperature", "Cel", 1, 10),
            _Value("soil-conductivity", "uS/cm", 2, signed=False),
        ),
    ),
    _BATTERY,
)
_WATER_SLOPE, _WATER_OFFSET = 0.0003879, -0.6956
_PERMITTIVITY = (0.000000002887, -0.0000208, 0.05276, -43.39)


def _word(payload: bytes, at: int) -> int:
    return int.from_bytes(payload[at : at + 2], "big")


def _decode_decentlab(payload: bytes, sensors: tuple[_Sensor, ...]) -> dict[str, float]:
    head = 5
    if len(payload) < head:
        raise PayloadError("bad-length", f"bytes: {len(payload)} bytes, fewer than {head}")
    if payload[0] != PROTOCOL_VERSION:
        raise PayloadError(
            "bad-version", f"bytes: protocol version {payload[0]}, not {PROTOCOL_VERSION}"
        )
    flags, at = _word(payload, 3), head
    values: dict[str, float] = {}
    if flags >> len(sensors):
        raise PayloadError("bad-flags", f"bytes: flags {flags:#06x} name unknown sensors")
    for bit, sensor in enumerate(sensors):
        if not flags >> bit & 1:
            continue
        if at + 2 * sensor.words > len(payload):
            raise PayloadError("bad-length", f"bytes: {len(payload)} bytes end inside sensor {bit}")
        words = [_word(payload, at + 2 * place) for place in range(sensor.words)]
        at += 2 * sensor.words
        values.update({value.name: value.read(words) for value in sensor.values})
    if at != len(payload):
        raise PayloadError("bad-length", f"bytes: {len(payload) - at} bytes after the last sensor")
    return values


def _encode_decentlab(
    values: Mapping[str, float], device: int, sensors: tuple[_Sensor, ...]
) -> bytes:
    flags, body = 0, b""
    for bit, sensor in enumerate(sensors):
        if not any(value.name in values for value in sensor.values):
            continue
        flags |= 1 << bit
        words = [0] * sensor.words
        for value in sensor.values:
            words[value.word] = value.write(values[value.name])
        body += b"".join(word.to_bytes(2, "big") for word in words)
    head = bytes([PROTOCOL_VERSION]) + device.to_bytes(2, "big") + flags.to_bytes(2, "big")
    return head + body


def decode_trs12(payload: bytes) -> dict[str, float]:
    """Decentlab DL-TRS12: soil moisture m3/m3, permittivity, temperature, conductivity, battery."""
    values = _decode_decentlab(payload, _TRS12)
    raw = values.pop("raw-count", None)
    if raw is None:
        return values
    cubic = 0.0
    for factor in _PERMITTIVITY:
        cubic = cubic * raw + factor
    water = _WATER_SLOPE * raw + _WATER_OFFSET
    return {"dielectric-permittivity": cubic**2, "soil-moisture": water, **values}


def encode_trs12(values: Mapping[str, float], device: int = 1) -> bytes:
    """The reverse, from soil-moisture (m3/m3); dielectric-permittivity follows from it."""
    words = {name: value for name, value in values.items() if name in _TRS12_WORDS}
    if "soil-moisture" in values:
        words["raw-count"] = (values["soil-moisture"] - _WATER_OFFSET) / _WATER_SLOPE
    return _encode_decentlab(words, device, _TRS12)


_TRS12_WORDS = frozenset(value.name for sensor in _TRS12 for value in sensor.values)


def decode_atm41(payload: bytes) -> dict[str, float]:
    """Decentlab DL-ATM41: the eleven parameters of a weather station, and its battery."""
    return _decode_decentlab(payload, _ATM41)


def encode_atm41(values: Mapping[str, float], device: int = 1) -> bytes:
    """The reverse; all seventeen values or none of them."""
    return _encode_decentlab(values, device, _ATM41)


LSE01_BYTES = 11
_LSE01_NO_PROBE = 0x7FFF  # the external DS18B20 is not connected


def _signed(word: int) -> int:
    return word - 0x10000 if word & 0x8000 else word


def _soil_signed(word: int) -> int:
    # The maker's manual and codec take 0xFFFF away, not 0x10000: -0.01 °C does not exist there.
    return word - _WORD_MAX if word & 0x8000 else word


def decode_lse01(payload: bytes) -> dict[str, float]:
    """Dragino LSE01: battery, external temperature, soil moisture, temperature, conductivity."""
    if len(payload) != LSE01_BYTES:
        raise PayloadError("bad-length", f"bytes: {len(payload)} bytes, not {LSE01_BYTES}")
    values = {
        "battery-voltage": (_word(payload, 0) & 0x3FFF) / 1000,
        "soil-moisture": _word(payload, 4) / 100,
        "soil-temperature": _soil_signed(_word(payload, 6)) / 100,
        "soil-conductivity": float(_word(payload, 8)),
    }
    if _word(payload, 2) != _LSE01_NO_PROBE:
        values["external-temperature"] = _signed(_word(payload, 2)) / 10
    return values


def encode_lse01(values: Mapping[str, float], device: int = 0) -> bytes:
    """The reverse; without external-temperature the probe is marked as missing."""
    external = values.get("external-temperature")
    soil = round(values["soil-temperature"] * 100)
    words = (
        round(values["battery-voltage"] * 1000) & 0x3FFF,
        _LSE01_NO_PROBE if external is None else round(external * 10) & _WORD_MAX,
        min(max(round(values["soil-moisture"] * 100), 0), _WORD_MAX),
        soil if soil >= 0 else soil + _WORD_MAX,
        min(max(round(values["soil-conductivity"]), 0), _WORD_MAX),
    )
    return b"".join(word.to_bytes(2, "big") for word in words) + bytes([device & 0xFF])


_TRS12_UNITS = {
    "dielectric-permittivity": "1",
    "soil-moisture": "m3/m3",
    "soil-temperature": "Cel",
    "soil-conductivity": "uS/cm",
    "battery-voltage": "V",
}
_LSE01_UNITS = {
    "battery-voltage": "V",
    "external-temperature": "Cel",
    "soil-moisture": "%",
    "soil-temperature": "Cel",
    "soil-conductivity": "uS/cm",
}
_ATM41_UNITS = {value.name: value.unit for sensor in _ATM41 for value in sensor.values}

MODELS: dict[str, Model] = {
    "dragino/lse01": Model(2, _LSE01_UNITS, decode_lse01, encode_lse01),
    "decentlab/dl-trs12": Model(None, _TRS12_UNITS, decode_trs12, encode_trs12),
    "decentlab/dl-atm41": Model(None, _ATM41_UNITS, decode_atm41, encode_atm41),
}
"""By `vendor/model` as in The Things Network's device repository."""


def uplink(
    model: str, dev_eui: str, f_port: int, payload: bytes, moment_us: int
) -> dict[str, object]:
    """One uplink as the `lorawan` format has it; the time is µs since 1970 UTC."""
    moment = (_EPOCH + timedelta(microseconds=moment_us)).isoformat()
    return {
        "device_model": model,
        "dev_eui": dev_eui,
        "f_port": f_port,
        "bytes": payload.hex(),
        "time": moment.removesuffix("+00:00") + "Z",
    }


def uplinks(messages: Iterable[Mapping[str, object]]) -> bytes:
    """Several uplinks as one payload of the `lorawan` format."""
    return json.dumps(list(messages), separators=(",", ":")).encode()
