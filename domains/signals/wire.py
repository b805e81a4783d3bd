"""SAE J2735 SPaT and MAP in UPER (ITU-T X.691): split, peek, decode and encode; pure.

The ASN.1 comes with pycrate (module DSRC of ETSI TS 103 301, whose SPAT and MapData are those of
SAE J2735-2016 on the wire); its 40 MB are imported at the first message, not at start-up.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any

PHASE_STATES = (
    "unavailable",
    "dark",
    "stop-Then-Proceed",
    "stop-And-Remain",
    "pre-Movement",
    "permissive-Movement-Allowed",
    "protected-Movement-Allowed",
    "permissive-clearance",
    "protected-clearance",
    "caution-Conflicting-Traffic",
)
"""MovementPhaseState, in the order of its ASN.1 enumeration (SAE J2735, DE_MovementPhaseState)."""

MAP_MESSAGE, SPAT_MESSAGE = 18, 19
MESSAGE_NAMES = {
    18: "MAP",
    19: "SPAT",
    20: "BSM",
    21: "CSR",
    22: "EVA",
    23: "ICA",
    24: "NMEA",
    25: "PDM",
    26: "PVD",
    27: "RSA",
    28: "RTCM",
    29: "SRM",
    30: "SSM",
    31: "TIM",
    32: "PSM",
}
"""DSRCmsgID of the J2735 messages that roadside units handle."""

MARK_BEYOND_AN_HOUR, MARK_UNKNOWN = 36_000, 36_001
MINUTE_INVALID = 527_040
_MINUTE_US, _HOUR_US = 60_000_000, 3_600_000_000
_MARK_US = 100_000
_AHEAD_MAX_US = 24 * _HOUR_US
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRAME_BYTES_MAX = 65_536
_FRAMES_MAX = 20_000
_ENVELOPE_VERSION = 3  # the first byte of Ieee1609Dot2Data


class WireError(ValueError):
    """What is wrong with some bytes: `reason` is a slug, the text a sentence naming the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Frame:
    """One MessageFrame: its DSRCmsgID, the UPER bytes of its value, and all bytes it came in.

    `fault` says why there is no value; then `message_id` is -1 and `raw` is all that is left.
    """

    message_id: int
    value: bytes
    raw: bytes
    fault: WireError | None = None

    @property
    def name(self) -> str:
        """SPAT, MAP, BSM ... or `message N`."""
        return MESSAGE_NAMES.get(self.message_id, f"message {self.message_id}")


@dataclass(frozen=True, slots=True)
class Movement:
    """One signal group's current event: state name, TimeMarks (1/10 s of the hour) or None."""

    signal_group: int
    state: str
    minimum_end: int | None
    maximum_end: int | None


@dataclass(frozen=True, slots=True)
class Signals:
    """One IntersectionState; `minute` is of the year, `millisecond` of the minute, None: absent."""

    intersection: str
    minute: int | None
    millisecond: int | None
    movements: tuple[Movement, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Peek:
    """The head of a SPaT with one intersection, read without decoding the rest.

    `fingerprint` covers every bit but the times and the counter: equal ones say the same.
    """

    intersection: str
    minute: int | None
    millisecond: int | None
    fingerprint: bytes
    minute_shift: int | None
    millisecond_shift: int | None


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane: `path` are degrees (longitude, latitude), empty where it is not computable."""

    id: int
    approach: int | None
    direction: str
    type: str
    width_cm: int | None
    signal_groups: tuple[int, ...]
    connects_to: tuple[int, ...]
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Geometry:
    """One IntersectionGeometry; longitude and latitude in degrees, elevation in metres."""

    intersection: str
    revision: int | None
    longitude: float
    latitude: float
    name: str | None = None
    elevation: float | None = None
    lanes: tuple[Lane, ...] = field(default=())


def intersection_key(region: int | None, number: int) -> str:
    """The natural key of an intersection: `8804`, or `12-8804` where a region is given.

    Region 0 counts as none (DE_RoadRegulatorID: "for testing"): the MAP of an intersection may
    write 0 where its SPaT leaves the region out.
    """
    return f"{region}-{number}" if region else str(number)


# --- time ---------------------------------------------------------------------------------------


def moment_of(minute: int | None, millisecond: int | None, reference_us: int) -> int:
    """MinuteOfTheYear and DSecond as µs since 1970 UTC, by a clock no more than a year off.

    The year is the latest that does not lie over a day ahead of the reference: frames are recorded,
    never foretold. Without the minute it is the one nearest to the reference; without the
    millisecond it is the reference itself, where that lies in the minute, else the minute's start;
    without both it is the reference. 527040 and 61000..65535 mean "not given"
    (DE_MinuteOfTheYear, DE_DSecond).
    """
    if minute is not None and not 0 <= minute < MINUTE_INVALID:
        minute = None
    if millisecond is not None and not 0 <= millisecond < 61_000:  # noqa: PLR2004 - 60 s + leap
        millisecond = None
    if minute is None:
        if millisecond is None:
            return reference_us
        within = millisecond * 1000
        start = round((reference_us - within) / _MINUTE_US) * _MINUTE_US
        return start + within
    start = _year_start_us(reference_us, minute) + minute * _MINUTE_US
    if millisecond is None:
        return reference_us if start <= reference_us < start + _MINUTE_US else start
    return start + millisecond * 1000


def _year_start_us(reference_us: int, minute: int) -> int:
    year = (_EPOCH + timedelta(microseconds=reference_us)).year
    for candidate in (year + 1, year):
        start = _new_year_us(candidate)
        if start + minute * _MINUTE_US <= reference_us + _AHEAD_MAX_US:
            return start
    return _new_year_us(year - 1)


@cache
def _new_year_us(year: int) -> int:
    return (datetime(max(1, min(year, 9999)), 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(
        microseconds=1
    )


def minute_and_millisecond(moment_us: int) -> tuple[int, int]:
    """A time as MinuteOfTheYear and DSecond."""
    year = (_EPOCH + timedelta(microseconds=moment_us)).year
    minute, rest = divmod(moment_us - _new_year_us(year), _MINUTE_US)
    return minute, rest // 1000


def mark_to_us(mark: int | None, moment_us: int) -> int | None:
    """A TimeMark as µs since 1970: that 1/10 s of the hour which is nearest to the frame's time.

    None for "unknown" (36001), "more than an hour ahead" (36000) and values out of range. Nearest,
    since marks roll over at the hour and a phase may rest in green past its minimum end.
    """
    if mark is None or not 0 <= mark < MARK_BEYOND_AN_HOUR:
        return None
    offset = mark * _MARK_US
    return round((moment_us - offset) / _HOUR_US) * _HOUR_US + offset


def us_to_mark(end_us: int | None, moment_us: int) -> int:
    """A time as TimeMark; 36001 for None, 36000 for one too far from the frame to roll over."""
    if end_us is None:
        return MARK_UNKNOWN
    if abs(end_us - moment_us) >= _HOUR_US // 2:
        return MARK_BEYOND_AN_HOUR
    return round(end_us % _HOUR_US / _MARK_US) % MARK_BEYOND_AN_HOUR


# --- frames and envelopes -----------------------------------------------------------------------


def split(payload: bytes) -> Iterator[Frame]:
    """The MessageFrames of a payload, each bare or in an IEEE 1609.2 envelope, or padded by zeros.

    Bytes that are no frame end the list with one Frame that has a fault and holds the rest.
    """
    position, end = 0, len(payload.rstrip(b"\x00"))
    if end == 0:
        yield Frame(-1, b"", payload, WireError("not-a-message-frame", "the payload holds no bits"))
    count = 0
    while position < end:
        # Ids under 16 are unused, so 0000 and 0003 are padding before a frame or an envelope.
        if payload[position] == 0 and payload[position + 1] in (0, 3):
            position += 1
            continue
        try:
            frame, position = _next_frame(payload, position, count)
        except WireError as error:
            yield Frame(-1, b"", payload[position:], error)
            return
        yield frame
        count += 1


def _next_frame(payload: bytes, position: int, count: int) -> tuple[Frame, int]:
    if count == _FRAMES_MAX:
        raise WireError("too-large", f"more than {_FRAMES_MAX} frames in one payload")
    if payload[position] != _ENVELOPE_VERSION:
        return _message_frame(payload, position, len(payload))
    start, stop = _unsecured(payload, position)
    frame, after = _message_frame(payload, start, max(stop, start))
    end = _envelope_end(payload, position, after, stop)
    return Frame(frame.message_id, frame.value, payload[position:end], frame.fault), end


def _message_frame(payload: bytes, start: int, stop: int) -> tuple[Frame, int]:
    """MessageFrame ::= SEQUENCE { messageId INTEGER (0..32767), value OPEN TYPE, ... } in UPER."""
    stop = min(stop, len(payload))
    if stop - start < 3:  # noqa: PLR2004 - two bytes of id, one of length
        raise WireError("truncated", f"a MessageFrame at byte {start} ends before its length")
    message_id = int.from_bytes(payload[start : start + 2], "big")
    if message_id & 0x8000:
        raise WireError(
            "not-a-message-frame", f"byte {start}: MessageFrame with unknown extensions"
        )
    if not 16 <= message_id < 256:  # noqa: PLR2004 - DE_DSRC_MessageID: the ids in use
        raise WireError("not-a-message-frame", f"byte {start}: {message_id} is no J2735 message")
    value, position = _open_type(payload, start + 2, stop)
    return Frame(message_id, value, payload[start:position]), position


def _open_type(payload: bytes, position: int, stop: int) -> tuple[bytes, int]:
    """An open type's octets (X.691 clause 11.9: lengths of one byte, two, or 16 Ki fragments)."""
    pieces: list[bytes] = []
    while True:
        if position >= stop:
            raise WireError("truncated", f"value: no length at byte {position}")
        head = payload[position]
        position += 1
        fragment = head >= 0xC0  # noqa: PLR2004 - 11xxxxxx
        if head < 0x80:  # noqa: PLR2004 - 0xxxxxxx
            length = head
        elif fragment:
            length = (head & 0x3F) * 16_384
        else:
            length = (head & 0x3F) << 8 | (payload[position] if position < stop else 0)
            position += 1
        if position + length > stop:
            raise WireError(
                "truncated", f"value: {length} bytes announced, {max(0, stop - position)} there"
            )
        pieces.append(payload[position : position + length])
        position += length
        if len(pieces) > 4 or (fragment and length == 0):  # noqa: PLR2004 - 64 KiB, the maximum
            raise WireError("too-large", f"value: over {_FRAME_BYTES_MAX} bytes")
        if not fragment:
            return b"".join(pieces), position


def _unsecured(payload: bytes, position: int) -> tuple[int, int]:
    """Where the unsecured payload of an Ieee1609Dot2Data starts and should stop (COER, X.696)."""
    for _ in range(4):  # signed in signed in ...: more is an attack
        if payload[position : position + 1] != b"\x03":
            raise WireError("bad-envelope", f"envelope: byte {position} is no protocol version 3")
        content = payload[position + 1 : position + 2]
        if content == b"\x80":
            return _coer_length(payload, position + 2)
        if content != b"\x81":
            kind = {b"\x82": "encryptedData", b"\x83": "a certificate request"}.get(
                content, f"content {content.hex() or 'missing'}"
            )
            raise WireError("bad-envelope", f"envelope: {kind} holds no readable message")
        # SignedData: hashId (1 byte), then tbsData.payload whose first byte says what is present.
        preamble = payload[position + 3 : position + 4]
        if not preamble or not preamble[0] & 0x40:
            raise WireError("bad-envelope", "envelope: signedData without its data")
        position += 4
    raise WireError("bad-envelope", "envelope: nested too deep")


def _coer_length(payload: bytes, position: int) -> tuple[int, int]:
    head = payload[position : position + 1]
    if not head:
        raise WireError("truncated", "envelope: ends before its length")
    if head[0] < 0x80:  # noqa: PLR2004 - short form
        return position + 1, position + 1 + head[0]
    size = head[0] & 0x7F
    octets = payload[position + 1 : position + 1 + size]
    if not 1 <= size <= 4 or len(octets) < size:  # noqa: PLR2004 - 4 GiB
        raise WireError("bad-envelope", f"envelope: length of {size} bytes")
    start = position + 1 + size
    return start, start + int.from_bytes(octets, "big")


def _envelope_end(payload: bytes, start: int, after_frame: int, stop: int) -> int:
    """Where the next message may begin: after the signature, if there is one.

    Recordings hold envelopes whose signature was cut off and whose length is then too long; from
    those only the frame is taken. A signature by whole certificates is not walked through: the next
    signed envelope after it is looked for by its first bytes.
    """
    if stop > len(payload):
        return after_frame
    if payload[start + 1] == 0x80:  # noqa: PLR2004 - unsecured: nothing follows its data
        return stop
    if stop == len(payload) or payload[stop] == _ENVELOPE_VERSION:
        return stop
    try:
        return _signature_end(payload, stop, hashed=bool(payload[start + 3] & 0x20))
    except (IndexError, WireError):
        found = payload.find(payload[start : start + 3] + b"\x40\x03\x80", stop)
        return len(payload) if found < 0 else found


# HeaderInfo's optional fields, by their bits in its preamble, and the bytes of those of fixed size.
_HEADER_SIZES = ((0x40, 8), (0x20, 8), (0x10, 10), (0x08, 3))


def _signature_end(payload: bytes, position: int, *, hashed: bool) -> int:
    """The end of a SignedData from the end of its data on (IEEE 1609.2-2022 clause 6.3.4, COER).

    Not by pycrate, whose decoder of this recursive type does not come back from some garbage.
    IndexError or WireError where the bytes end, or where there is what it does not know.
    """
    if hashed:  # extDataHash: a tag and SHA-256
        position += 33
    header = payload[position]
    if header & 0x87:  # extensions, a missing CRL, an encryption key
        raise WireError("bad-envelope", "envelope: its header has parts that are not known")
    _, position = _coer_length(payload, position + 1)  # psid
    position += sum(size for bit, size in _HEADER_SIZES if header & bit)
    signer = payload[position]
    if signer not in (0x80, 0x82):
        raise WireError("bad-envelope", "envelope: signed by whole certificates")
    position += 9 if signer == 0x80 else 1  # noqa: PLR2004 - digest of 8 bytes, or self
    algorithm, point = payload[position], payload[position + 1]
    size = 48 if algorithm == 0x82 else 32  # noqa: PLR2004 - brainpoolP384r1, else 256 bits
    if not 0x80 <= algorithm <= 0x82 or not 0x80 <= point <= 0x84:  # noqa: PLR2004 - choices
        raise WireError("bad-envelope", "envelope: signed by an unknown algorithm")
    coordinates = 2 if point == 0x84 else 0 if point == 0x81 else 1  # noqa: PLR2004 - both, fill, x
    end = position + 2 + size * (coordinates + 1)
    if end > len(payload):
        raise WireError("truncated", "envelope: ends within its signature")
    return end


# --- SPaT ---------------------------------------------------------------------------------------


class _Bits:
    """Reads an unsigned integer's bits from the left."""

    __slots__ = ("left", "value")

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "big")
        self.left = len(data) * 8

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise WireError("truncated", "SPAT: ends within its head")
        return (self.value >> self.left) & ((1 << count) - 1)


def peek_spat(value: bytes) -> Peek | None:
    """The head of a SPaT (X.691: optional bitmaps, then fields in order), or None if several
    intersections share the frame; those need the full decode.

    WireError `truncated` where the bytes end within the head.
    """
    bits = _Bits(value)
    mask = 0
    _extended, has_minute, has_name, _regional = (bits.take(1) for _ in range(4))
    minute: int | None = None
    minute_shift = millisecond_shift = None
    if has_minute:
        minute = bits.take(20)
        mask |= 0xFFFFF << bits.left
    if has_name:
        bits.take((bits.take(6) + 1) * 7)
    if bits.take(5) != 0:
        return None
    _extended, named, has_moy, has_millisecond, _lanes, _assist, _regional = (
        bits.take(1) for _ in range(7)
    )
    if named:
        bits.take((bits.take(6) + 1) * 7)
    region = bits.take(16) if bits.take(1) else None
    number = bits.take(16)
    bits.take(7)  # revision: some controllers count every frame
    mask |= 0x7F << bits.left
    bits.take(16)  # status
    if has_moy:
        minute, minute_shift = bits.take(20), bits.left
        mask |= 0xFFFFF << minute_shift
    millisecond = None
    if has_millisecond:
        millisecond, millisecond_shift = bits.take(16), bits.left
        mask |= 0xFFFF << millisecond_shift
    kept = (bits.value & ~mask).to_bytes(len(value), "big")
    return Peek(
        intersection_key(region, number),
        minute,
        millisecond,
        blake2b(kept, digest_size=16).digest(),
        minute_shift,
        millisecond_shift,
    )


_LOCK = threading.Lock()  # pycrate decodes into shared objects


@cache
def _asn1() -> Any:
    from pycrate_asn1dir import ITS_IS

    return ITS_IS.DSRC


def _decode(type_name: str, value: bytes) -> dict[str, Any]:
    with _LOCK:
        codec = getattr(_asn1(), type_name)
        try:
            codec.from_uper(value)
            decoded: dict[str, Any] = codec.get_val()
        except Exception as error:
            # pycrate raises its own errors and whatever its parts raise on garbage.
            raise WireError("undecodable", f"{type_name}: {_sentence(error)}") from error
    return decoded


def _sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).replace("\n", " ")[:300]


def decode_spat(value: bytes) -> tuple[Signals, ...]:
    """The intersections of a SPAT; WireError `undecodable` or `truncated` names what is wrong."""
    spat = _decode("SPAT", value)
    minute = spat.get("timeStamp")
    return tuple(_signals(state, minute) for state in spat["intersections"])


def _signals(state: Mapping[str, Any], minute: int | None) -> Signals:
    reference = state["id"]
    return Signals(
        intersection_key(reference.get("region"), reference["id"]),
        state.get("moy", minute),
        state.get("timeStamp"),
        tuple(_movement(movement) for movement in state["states"]),
        state.get("name"),
    )


def _movement(movement: Mapping[str, Any]) -> Movement:
    # The first event is the current one, later ones announce what follows (DF_MovementEventList).
    event = movement["state-time-speed"][0]
    timing = event.get("timing") or {}
    return Movement(
        movement["signalGroup"],
        str(event["eventState"]),
        timing.get("minEndTime"),
        timing.get("maxEndTime"),
    )


def build_spat(
    *,
    intersection_id: int,
    moment_us: int,
    groups: Sequence[tuple[int, str, int | None, int | None]],
    region: int | None = None,
    revision: int = 0,
    name: str | None = None,
    enveloped: bool = False,
) -> bytes:
    """A MessageFrame with the SPaT of one intersection.

    `groups` are (signal group, MovementPhaseState, earliest end, latest end), ends in µs since 1970
    or None. The body is kept and only its times are set while the groups stay the same: signals say
    the same thing ten times a second. WireError `unencodable` for values out of range.
    """
    marks = tuple(
        (group, state, us_to_mark(earliest, moment_us), us_to_mark(latest, moment_us))
        for group, state, earliest, latest in groups
    )
    body, minute_shift, millisecond_shift = _spat_template(
        intersection_id, region, revision, name, marks
    )
    minute, millisecond = minute_and_millisecond(moment_us)
    filled = body[0] | minute << minute_shift | millisecond << millisecond_shift
    return message_frame(SPAT_MESSAGE, filled.to_bytes(body[1], "big"), enveloped=enveloped)


@lru_cache(maxsize=4096)
def _spat_template(
    number: int,
    region: int | None,
    revision: int,
    name: str | None,
    marks: tuple[tuple[int, str, int, int], ...],
) -> tuple[tuple[int, int], int, int]:
    state: dict[str, Any] = {
        "id": {"id": number} if region is None else {"region": region, "id": number},
        "revision": revision,
        "status": (0, 16),
        "moy": 0,
        "timeStamp": 0,
        "states": [
            {
                "signalGroup": group,
                "state-time-speed": [
                    {
                        "eventState": phase,
                        "timing": {"minEndTime": earliest, "maxEndTime": latest},
                    }
                ],
            }
            for group, phase, earliest, latest in marks
        ],
    }
    if name:
        state["name"] = name
    encoded = _encode("SPAT", {"intersections": [state]})
    head = peek_spat(encoded)
    if head is None or head.minute_shift is None or head.millisecond_shift is None:
        raise WireError("unencodable", "SPAT: its head does not read back")  # not reachable
    return (
        (int.from_bytes(encoded, "big"), len(encoded)),
        head.minute_shift,
        head.millisecond_shift,
    )


def _encode(type_name: str, value: Mapping[str, Any]) -> bytes:
    with _LOCK:
        codec = getattr(_asn1(), type_name)
        try:
            codec.set_val(value)
            encoded: bytes = codec.to_uper()
        except Exception as error:
            raise WireError("unencodable", f"{type_name}: {_sentence(error)}") from error
    return encoded


def message_frame(message_id: int, value: bytes, *, enveloped: bool = False) -> bytes:
    """A MessageFrame around a value; `enveloped`: in an unsecured IEEE 1609.2 envelope."""
    size = len(value)
    if size >= 16_384:  # noqa: PLR2004 - larger ones need fragments, no signal needs them
        raise WireError("unencodable", f"value: {size} bytes are too many")
    length = bytes([size]) if size < 128 else (0x8000 | size).to_bytes(2, "big")  # noqa: PLR2004
    frame = message_id.to_bytes(2, "big") + length + value
    if not enveloped:
        return frame
    size = len(frame)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    length = bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets  # noqa: PLR2004
    return b"\x03\x80" + length + frame


# --- MAP ----------------------------------------------------------------------------------------


def fingerprint_map(value: bytes) -> bytes:
    """A hash of a MAP without its optional time and its issue counter."""
    bits = _Bits(value)
    mask = 0
    _extended, has_minute, *_rest = (bits.take(1) for _ in range(9))
    if has_minute:
        bits.take(20)
        mask |= 0xFFFFF << bits.left
    bits.take(7)
    mask |= 0x7F << bits.left
    return blake2b((bits.value & ~mask).to_bytes(len(value), "big"), digest_size=16).digest()


def decode_map(value: bytes) -> tuple[Geometry, ...]:
    """The intersections of a MapData; WireError where it does not decode."""
    return tuple(_geometry(each) for each in _decode("MapData", value).get("intersections", ()))


def _geometry(item: Mapping[str, Any]) -> Geometry:
    reference, anchor = item["id"], item["refPoint"]
    longitude, latitude = anchor["long"] / 1e7, anchor["lat"] / 1e7
    elevation = anchor.get("elevation")
    lanes = [_lane(lane, item.get("laneWidth")) for lane in item["laneSet"]]
    nodes = {lane["laneID"]: _offsets(lane["nodeList"]) for lane in item["laneSet"]}
    return Geometry(
        intersection_key(reference.get("region"), reference["id"]),
        item["revision"],
        longitude,
        latitude,
        item.get("name"),
        None if elevation in (None, -4096) else elevation / 10,
        with_paths(lanes, nodes, longitude, latitude),
    )


_PER_LANE_CHOICES = ("vehicle", "crosswalk", "bikeLane", "sidewalk", "median", "striping")


def _lane(lane: Mapping[str, Any], width_cm: int | None) -> Lane:
    attributes = lane["laneAttributes"]
    direction = attributes["directionalUse"][0]
    connections = lane.get("connectsTo", ())
    return Lane(
        lane["laneID"],
        lane.get("ingressApproach", lane.get("egressApproach")),
        ("none", "egress", "ingress", "both")[direction & 3],
        str(attributes["laneType"][0]),
        width_cm,
        signal_groups_of(each.get("signalGroup") for each in connections),
        tuple(each["connectingLane"]["lane"] for each in connections),
    )


def signal_groups_of(groups: Any) -> tuple[int, ...]:
    """Signal groups in order, each once; 0 means "none given" (DE_SignalGroupID)."""
    return tuple(sorted({group for group in groups if group}))


Node = tuple[str, float, float]
"""("xy", metres east, metres north) from the node before, or ("at", longitude, latitude)."""


def _offsets(node_list: tuple[str, Any]) -> list[Node] | tuple[int, float, float] | None:
    """A lane's nodes, or (other lane, metres east, metres north) of a computed one.

    A computed lane that is rotated or scaled is left without a path, as is a regional one.
    """
    kind, content = node_list
    if kind == "computed":
        if {"rotateXY", "scaleXaxis", "scaleYaxis"} & set(content):
            return None
        return (
            content["referenceLaneId"],
            content["offsetXaxis"][1] / 100,
            content["offsetYaxis"][1] / 100,
        )
    nodes: list[Node] = []
    for node in content if kind == "nodes" else ():
        choice, delta = node["delta"]
        if choice == "node-LatLon":
            nodes.append(("at", delta["lon"] / 1e7, delta["lat"] / 1e7))
        elif choice.startswith("node-XY"):
            nodes.append(("xy", delta["x"] / 100, delta["y"] / 100))
        else:
            return None
    return nodes


def with_paths(
    lanes: Sequence[Lane],
    nodes: Mapping[int, list[Node] | tuple[int, float, float] | None],
    longitude: float,
    latitude: float,
) -> tuple[Lane, ...]:
    """The lanes with their paths in degrees, from node offsets around the reference point."""
    east, north = _degrees_per_metre(latitude)
    paths: dict[int, tuple[tuple[float, float], ...]] = {}
    for number, content in nodes.items():
        if isinstance(content, list):
            paths[number] = _path(content, longitude, latitude, east, north)
    for number, content in nodes.items():
        if isinstance(content, tuple):
            other, dx, dy = content
            paths[number] = tuple(
                (round(x + dx * east, 7), round(y + dy * north, 7)) for x, y in paths.get(other, ())
            )
    return tuple(
        Lane(
            lane.id,
            lane.approach,
            lane.direction,
            lane.type,
            lane.width_cm,
            lane.signal_groups,
            lane.connects_to,
            paths.get(lane.id, ()),
        )
        for lane in lanes
    )


def _path(
    nodes: Sequence[Node], x: float, y: float, east: float, north: float
) -> tuple[tuple[float, float], ...]:
    points = []
    for kind, first, second in nodes:
        x, y = (first, second) if kind == "at" else (x + first * east, y + second * north)
        points.append((round(x, 7), round(y, 7)))
    return tuple(points)


def _degrees_per_metre(latitude: float) -> tuple[float, float]:
    """Degrees of longitude and of latitude in one metre, on the WGS 84 ellipsoid."""
    phi = math.radians(max(-89.9, min(89.9, latitude)))
    squared = 6.69437999014e-3
    w = math.sqrt(1 - squared * math.sin(phi) ** 2)
    normal, meridian = 6_378_137 / w, 6_378_137 * (1 - squared) / w**3
    return math.degrees(1 / (normal * math.cos(phi))), math.degrees(1 / meridian)


def build_map(
    *,
    intersection_id: int,
    longitude: float,
    latitude: float,
    lanes: Sequence[Mapping[str, Any]],
    region: int | None = None,
    name: str | None = None,
    revision: int = 0,
    lane_width_cm: int = 300,
    enveloped: bool = False,
) -> bytes:
    """A MessageFrame with the MAP of one intersection.

    A lane is {"id", "approach", "direction": "ingress" or "egress", "path": two or more (longitude,
    latitude), "connections": [(connecting lane, signal group or None), ...], "type": "vehicle"
    (default) or "crosswalk"}, the last two optional. WireError `unencodable` for values out of
    range.
    """
    geometry: dict[str, Any] = {
        "id": {"id": intersection_id}
        if region is None
        else {"region": region, "id": intersection_id},
        "revision": revision,
        "refPoint": {"lat": round(latitude * 1e7), "long": round(longitude * 1e7)},
        "laneWidth": lane_width_cm,
        "laneSet": [_lane_value(lane, longitude, latitude) for lane in lanes],
    }
    if name:
        geometry["name"] = name
    value = _encode(
        "MapData",
        {
            "msgIssueRevision": revision,
            "layerType": "intersectionData",
            "layerID": 0,
            "intersections": [geometry],
        },
    )
    return message_frame(MAP_MESSAGE, value, enveloped=enveloped)


def _lane_value(lane: Mapping[str, Any], longitude: float, latitude: float) -> dict[str, Any]:
    ingress = lane.get("direction", "ingress") == "ingress"
    kind = lane.get("type", "vehicle")
    value: dict[str, Any] = {
        "laneID": lane["id"],
        "laneAttributes": {
            "directionalUse": (2 if ingress else 1, 2),
            "sharedWith": (0, 10),
            "laneType": (kind, (0, 16 if kind == "crosswalk" else 8)),
        },
        "nodeList": ("nodes", _node_values(lane["path"], longitude, latitude)),
    }
    if lane.get("approach") is not None:
        value["ingressApproach" if ingress else "egressApproach"] = lane["approach"]
    if lane.get("connections"):
        value["connectsTo"] = [
            {"connectingLane": {"lane": other}} | ({} if group is None else {"signalGroup": group})
            for other, group in lane["connections"]
        ]
    return value


_NODE_SIZES = (("node-XY1", 512), ("node-XY2", 1024), ("node-XY3", 2048), ("node-XY4", 4096),
               ("node-XY5", 8192), ("node-XY6", 32768))  # fmt: skip


def _node_values(
    path: Sequence[tuple[float, float]], longitude: float, latitude: float
) -> list[dict[str, Any]]:
    east, north = _degrees_per_metre(latitude)
    nodes = []
    x_before = y_before = 0
    for point in path:
        x = round((point[0] - longitude) / east * 100)
        y = round((point[1] - latitude) / north * 100)
        dx, dy = x - x_before, y - y_before
        x_before, y_before = x, y
        for choice, limit in _NODE_SIZES:
            if -limit <= dx < limit and -limit <= dy < limit:
                nodes.append({"delta": (choice, {"x": dx, "y": dy})})
                break
        else:
            raise WireError("unencodable", f"path: {dx}, {dy} cm is too long a step")
    return nodes
