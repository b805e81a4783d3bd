"""Things, Datastreams and Observations (OGC SensorThings 1.1, 18-088) as frozen types.

In bulk the unit of work is a column, not a Python object a row: decoders return `Decoded`, whose
observations are four column sets, one for each kind of result.
"""

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntFlag, StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DataClass(StrEnum):
    """Five ways of handling the three classes of the law (APPI Art. 2, 41, 43)."""

    OPEN = "open"
    SHARED = "shared"
    ANONYMISED = "anonymised"
    PSEUDONYMISED = "pseudonymised"
    PERSONAL = "personal"


class ResultKind(StrEnum):
    """What a Datastream's results are."""

    NUMBER = "number"
    CATEGORY = "category"
    POSITION = "position"
    DOCUMENT = "document"


class Quality(IntFlag):
    """Flags stored with an observation; 0 is good."""

    GOOD = 0
    OUT_OF_RANGE = 1
    UNDECLARED = 2
    SUSPECT = 4


@dataclass(frozen=True, slots=True)
class Stream:
    """Names one Datastream inside a sector.

    `thing` is the sector's natural key of the Thing. `property` is the observed property's name;
    where a Thing has several of one kind (signal groups, depths) an instance follows a slash:
    `signal-state/2`. `unit` is UCUM, or None for the sector's declared unit.
    """

    thing: str
    property: str
    unit: str | None = None

    @builtins.property
    def base_property(self) -> str:
        """The property without its instance: what the sector declares."""
        return self.property.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Numbers:
    """n numeric observations: `stream` indexes Decoded.streams; times are µs since 1970 UTC.

    `quality` (here and below) is set by the check after decoding; None means all good. `message`
    is each row's index where several messages were decoded together; None means one message.
    """

    stream: NDArray[np.int32]
    phenomenon_time: NDArray[np.int64]
    result: NDArray[np.float64]
    quality: NDArray[np.int16] | None = None
    message: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class Categories:
    """n observations whose result is a text of the property's vocabulary."""

    stream: NDArray[np.int32]
    phenomenon_time: NDArray[np.int64]
    result: Sequence[str]
    quality: NDArray[np.int16] | None = None
    message: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class Positions:
    """n positions of moving Things: degrees WGS 84, m/s, degrees true; NaN where unknown."""

    stream: NDArray[np.int32]
    phenomenon_time: NDArray[np.int64]
    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    speed: NDArray[np.float64]
    course: NDArray[np.float64]
    quality: NDArray[np.int16] | None = None
    message: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class Documents:
    """n observations whose result is a JSON value, as canonical JSON bytes."""

    stream: NDArray[np.int32]
    phenomenon_time: NDArray[np.int64]
    result: Sequence[bytes]
    quality: NDArray[np.int16] | None = None
    message: NDArray[np.int32] | None = None


Columns = Numbers | Categories | Positions | Documents


def used_streams(columns: Columns) -> list[int]:
    """The stream indices that occur, ascending; linear in the rows, unlike a sort."""
    used: list[int] = np.flatnonzero(np.bincount(columns.stream)).tolist()
    return used


@dataclass(frozen=True, slots=True)
class ThingUpdate:
    """What a message says about a Thing itself; properties merge into the stored ones by key.

    `location` is (longitude, latitude) of a Thing that does not move; `geometry` is a GeoJSON
    geometry where the Thing is more than a point (a field, a berth). `time` is when it was so by
    the sender's clock, in µs: then nothing older takes its place. `seen_with` is the observed
    property with whose data class the location may be seen; "" is the sector's own class.
    """

    thing: str
    name: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    location: tuple[float, float] | None = None
    geometry: Mapping[str, Any] | None = None
    time: int | None = None
    seen_with: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """A Thing spoke at this (its own) time, even if nothing changed: what liveness is read from."""

    thing: str
    phenomenon_time: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """One undecodable item of a message: kept with its payload, its reason and where it stood.

    `format` is what the payload can be taken in as once it can: "" is the message's own format,
    None means nothing.
    """

    reason: str
    detail: str
    payload: bytes
    item: int = 0
    format: str | None = ""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one message holds; built by an `ObservationsBuilder` or straight from columns.

    `messages` counts native messages (an AIVDM line, a SPaT frame, an uplink, an Arrow row), of
    those `unchanged` held no new observation.
    """

    streams: tuple[Stream, ...] = ()
    numbers: Numbers | None = None
    categories: Categories | None = None
    positions: Positions | None = None
    documents: Documents | None = None
    things: tuple[ThingUpdate, ...] = ()
    heard: tuple[Heard, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    messages: int = 0
    unchanged: int = 0

    @property
    def observations(self) -> int:
        """How many observations were decoded, over all kinds."""
        return sum(len(columns.stream) for columns, _ in kinds_of(self))

    @property
    def received(self) -> int:
        """Observations plus undecodable items: the left side of the account."""
        return self.observations + len(self.rejected)


def kinds_of(decoded: Decoded) -> list[tuple[Columns, ResultKind]]:
    """The column sets that a message has, with their kinds."""
    found = (
        (decoded.numbers, ResultKind.NUMBER),
        (decoded.categories, ResultKind.CATEGORY),
        (decoded.positions, ResultKind.POSITION),
        (decoded.documents, ResultKind.DOCUMENT),
    )
    return [(columns, kind) for columns, kind in found if columns is not None]


@dataclass(frozen=True, slots=True)
class Position:
    """One position: degrees WGS 84, speed in m/s, course in degrees true."""

    longitude: float
    latitude: float
    speed: float = float("nan")
    course: float = float("nan")


Result = float | int | bool | str | Position | Mapping[str, Any] | Sequence[Any]


class ObservationsBuilder:
    """Collects single observations into columns; for formats that are not columnar themselves."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str, str | None], int] = {}
        self._numbers: list[tuple[int, int, float]] = []
        self._categories: list[tuple[int, int, str]] = []
        self._positions: list[tuple[int, int, float, float, float, float]] = []
        self._documents: list[tuple[int, int, bytes]] = []
        self._things: dict[str, ThingUpdate] = {}
        self._heard: dict[str, Heard] = {}
        self._rejected: list[Rejected] = []
        self.messages = 0
        self.unchanged = 0

    def __len__(self) -> int:
        return (
            len(self._numbers) + len(self._categories) + len(self._positions) + len(self._documents)
        )

    def add(
        self,
        thing: str,
        observed_property: str,
        phenomenon_time: int,
        result: Result,
        unit: str | None = None,
    ) -> None:
        """Append one observation; the result's Python type selects the kind."""
        key = (thing, observed_property, unit)
        index = self._streams.setdefault(key, len(self._streams))
        if isinstance(result, int | float):
            self._numbers.append((index, phenomenon_time, float(result)))
        elif isinstance(result, str):
            self._categories.append((index, phenomenon_time, result))
        elif isinstance(result, Position):
            place = (result.longitude, result.latitude, result.speed, result.course)
            self._positions.append((index, phenomenon_time, *place))
        else:
            self._documents.append((index, phenomenon_time, canonical_json(result)))

    def describe(self, update: ThingUpdate) -> None:
        """Note what the message says of a Thing; a later one in the same message adds to it."""
        before = self._things.get(update.thing)
        if before is not None:
            update = ThingUpdate(
                update.thing,
                update.name or before.name,
                {**before.properties, **update.properties},
                update.location or before.location,
                update.geometry or before.geometry,
                before.time if update.time is None else update.time,
                update.seen_with or before.seen_with,
            )
        self._things[update.thing] = update

    def hear(self, thing: str, phenomenon_time: int) -> None:
        """Note that a Thing spoke at this time."""
        before = self._heard.get(thing)
        if before is None or before.phenomenon_time < phenomenon_time:
            self._heard[thing] = Heard(thing, phenomenon_time)

    def reject(
        self, reason: str, detail: str, payload: bytes, item: int = 0, format: str | None = ""
    ) -> None:
        """Keep an undecodable item: `reason` is a slug, `detail` names the field and the fault."""
        self._rejected.append(Rejected(reason, detail, payload, item, format))

    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """How many it holds now: numbers, categories, positions, documents, rejections, messages.

        What differs between two calls came between them.
        """
        return (
            len(self._numbers),
            len(self._categories),
            len(self._positions),
            len(self._documents),
            len(self._rejected),
            self.messages,
        )

    def build(self) -> Decoded:
        """The columns, in the order in which the observations were added."""
        numbers = categories = positions = documents = None
        if self._numbers:
            stream, time, result = zip(*self._numbers, strict=True)
            numbers = Numbers(
                np.array(stream, np.int32), np.array(time, np.int64), np.array(result, np.float64)
            )
        if self._categories:
            stream, time, texts = zip(*self._categories, strict=True)
            categories = Categories(np.array(stream, np.int32), np.array(time, np.int64), texts)
        if self._positions:
            stream, time, longitude, latitude, speed, course = zip(*self._positions, strict=True)
            positions = Positions(
                np.array(stream, np.int32),
                np.array(time, np.int64),
                np.array(longitude, np.float64),
                np.array(latitude, np.float64),
                np.array(speed, np.float64),
                np.array(course, np.float64),
            )
        if self._documents:
            stream, time, payloads = zip(*self._documents, strict=True)
            documents = Documents(np.array(stream, np.int32), np.array(time, np.int64), payloads)
        return Decoded(
            streams=tuple(Stream(*key) for key in self._streams),
            numbers=numbers,
            categories=categories,
            positions=positions,
            documents=documents,
            things=tuple(self._things.values()),
            heard=tuple(self._heard.values()),
            rejected=tuple(self._rejected),
            messages=self.messages,
            unchanged=self.unchanged,
        )


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, so that equal values have equal bytes; a Decimal keeps its digits."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=_exact)


def _exact(value: Any) -> Any:
    import orjson

    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} is no JSON")


def observation_json(stream: Stream, phenomenon_time: str, result: Any) -> bytes:
    """One observation in the `json` format, so that a rejected one can be mended and sent again."""
    import orjson

    fields = {
        "thing": stream.thing,
        "property": stream.property,
        "unit": stream.unit,
        "phenomenon_time": phenomenon_time,
        "result": result,
    }
    return orjson.dumps(fields, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
