"""SPaT and MAP messages to observations: some when a signal group changes, none while not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import orjson

from core.clock import MICROSECONDS
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, ThingUpdate
from domains.signals import ode, wire
from domains.signals.wire import WireError

INTERSECTIONS_MAX = 20_000
"""Intersections whose last state is remembered in one process; the longest unheard is forgotten."""
GAP_US = 600 * MICROSECONDS
"""After this long without a frame the state is told anew: TimeMarks mean another hour by then."""
AHEAD_US = 900 * MICROSECONDS
"""A frame further ahead of the receiver's clock is never the newest: it would shut true ones out."""
FRESH_US = 2 * MICROSECONDS
MAP_AGAIN_US = 600 * MICROSECONDS
"""An unchanged MAP is described again after this, should the first time not have been stored."""

# People can be followed by these messages, so no copy of them is kept, not even as a rejection.
_PERSONAL = {"BSM", "PSM", "SRM", "SSM", "SDSM", "RSM"}
_RECORDS_MAX = 20_000

_End = int | None
_Seen = tuple[int, str, _End, _End]


@dataclass(slots=True)
class _Group:
    """A signal group as last told: ends as in the message, and resolved to µs since 1970."""

    state: str
    raw_minimum: _End
    raw_maximum: _End
    minimum: _End
    maximum: _End


@dataclass(slots=True)
class _Track:
    """A run of frames of one intersection in the order of their own times."""

    time: int
    fingerprint: bytes | None
    groups: dict[int, _Group]


@dataclass(slots=True)
class _Clock:
    """How far the receiver's clock is ahead of the gateway's: the least seen, and a candidate."""

    skew: int | None = None
    candidate: int = 0
    candidate_since: int = 0


@dataclass(slots=True)
class _Intersection:
    """What is remembered: the newest run, one older run (a backlog, a redelivery), the clock."""

    live: _Track | None = None
    past: _Track | None = None
    clock: _Clock = field(default_factory=_Clock)


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode `j2735` or `ode-json`; what does not decode is a rejection that names its fault."""
    run = _Run(context)
    if format == "j2735":
        for index, frame in enumerate(wire.split(payload)):
            run.message(index, frame.raw, partial(run.frame, frame, context.received_at))
    elif format == "ode-json":
        for index, (raw, record) in enumerate(_records(payload)):
            run.message(index, raw, partial(run.record, record))
    else:
        run.out.messages = 1
        run.out.reject(
            "unknown-format", f"format: {format[:60]!r} is not a signals format", payload
        )
    return run.finish()


class _Run:
    """One payload's decoding: what it adds up to, and which intersections spoke."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.out = ObservationsBuilder()
        self.known: dict[tuple[str, str], _Intersection] = context.memory.setdefault("spat", {})
        self.maps: dict[tuple[str, str], tuple[bytes, int]] = context.memory.setdefault("map", {})
        self.frames: dict[tuple[str, bytes], tuple[str, ...]] = context.memory.setdefault(
            "map-frames", {}
        )
        self.spoke: dict[str, int] = {}

    def message(self, index: int, raw: bytes, handle: Callable[[], bool]) -> None:
        """Count one native message; `handle` says whether it held anything new."""
        self.out.messages += 1
        try:
            if not handle():
                self.out.unchanged += 1
        except _Personal as error:
            self.out.reject(error.reason, str(error), b"", index)
        except WireError as error:
            self.out.reject(error.reason, str(error), raw, index)

    def frame(self, frame: wire.Frame, reference_us: int) -> bool:
        """One MessageFrame; `reference_us` fills in what its times leave open."""
        if frame.fault is not None:
            raise frame.fault
        if frame.message_id == wire.SPAT_MESSAGE:
            return self.spat_frame(frame.value, reference_us)
        if frame.message_id == wire.MAP_MESSAGE:
            return self.map_frame(frame.value)
        raise _unsupported(frame.name, frame.raw)

    def spat_frame(self, value: bytes, reference_us: int) -> bool:
        """A SPAT in UPER; one that repeats the last is told by its head and a hash."""
        head = wire.peek_spat(value)
        if head is not None:
            moment = wire.moment_of(head.minute, head.millisecond, reference_us)
            if self.repeats(head.intersection, moment, head.fingerprint):
                return False
        new = False
        for each in wire.decode_spat(value):
            new |= self.signals(each, reference_us, head.fingerprint if head else None)
        return new

    def signals(
        self, state: wire.Signals, reference_us: int, fingerprint: bytes | None = None
    ) -> bool:
        """One IntersectionState whose ends are TimeMarks."""
        moment = wire.moment_of(state.minute, state.millisecond, reference_us)
        return self.observe(
            state.intersection,
            moment,
            [(m.signal_group, m.state, m.minimum_end, m.maximum_end) for m in state.movements],
            lambda mark: wire.mark_to_us(mark, moment),
            fingerprint=fingerprint,
            name=state.name,
        )

    def repeats(self, thing: str, moment: int, fingerprint: bytes) -> bool:
        """True where a newer frame says what the last one of its run said."""
        known = self.known.get((self.context.gateway, thing))
        if known is None or known.live is None:
            return False
        track = known.live if moment > known.live.time else known.past
        if (
            track is None
            or track.fingerprint != fingerprint
            or not track.time < moment <= track.time + GAP_US
            or moment > self.context.received_at + AHEAD_US
        ):
            return False
        track.time = moment
        if track is known.live:
            self.spoke[thing] = moment
        return True

    def observe(
        self,
        thing: str,
        moment: int,
        seen: Sequence[_Seen],
        resolve: Callable[[_End], _End],
        *,
        fingerprint: bytes | None = None,
        name: str | None = None,
    ) -> bool:
        """Add what changed since the last frame of the same run; True where anything did.

        A frame that is not newer than the newest never overwrites it: it is told as history, by a
        run of its own, so that a redelivered or stored-and-forwarded batch decodes to all it holds.
        """
        if moment > self.context.received_at + AHEAD_US:
            self.tell(thing, moment, {}, _groups(seen, {}, resolve))
            return True
        known = self.remember(thing)
        live = known.live is None or moment > known.live.time
        before = known.live if live else known.past
        continues = before is not None and before.time < moment <= before.time + GAP_US
        old = before.groups if before is not None and continues else {}
        track = _Track(moment, fingerprint, _groups(seen, old, resolve))
        if live:
            known.live = track
            self.spoke[thing] = moment
        else:
            known.past = track
        if not old and name:
            self.out.describe(ThingUpdate(thing, name=name))
        return self.tell(thing, moment, old, track.groups)

    def tell(
        self, thing: str, moment: int, old: Mapping[int, _Group], new: Mapping[int, _Group]
    ) -> bool:
        """Add the observations that lead from the old groups to the new ones."""
        count = len(self.out)
        for number, group in new.items():
            before = old.get(number)
            # Ends count from the state's own time on, so a state whose end got lost is told again.
            whole = (
                before is None
                or before.state != group.state
                or (group.minimum is None and before.minimum is not None)
                or (group.maximum is None and before.maximum is not None)
            )
            if whole:
                self.out.add(thing, f"signal-state/{number}", moment, group.state)
            for label, end, last in (
                ("minimum-end", group.minimum, before and before.minimum),
                ("maximum-end", group.maximum, before and before.maximum),
            ):
                if end is not None and (whole or end != last):
                    self.out.add(thing, f"{label}/{number}", moment, end / MICROSECONDS)
        for number in old.keys() - new.keys():
            # A group that its controller no longer speaks of must not stay green for ever.
            if old[number].state != "unavailable":
                self.out.add(thing, f"signal-state/{number}", moment, "unavailable")
        return len(self.out) > count

    def remember(self, thing: str) -> _Intersection:
        """The intersection's memory, made the most recent; the oldest goes when there are many."""
        key = (self.context.gateway, thing)
        known = self.known.pop(key, None) or _Intersection()
        self.known[key] = known
        _bound(self.known)
        return known

    def map_frame(self, value: bytes) -> bool:
        """A MAP in UPER; decoded only when it is new or its last description is long ago."""
        fingerprint = wire.fingerprint_map(value)
        key = (self.context.gateway, fingerprint)
        things = self.frames.get(key)
        if things is not None and all(self.map_known(thing, fingerprint) for thing in things):
            return False
        found = wire.decode_map(value)
        self.frames[key] = tuple(each.intersection for each in found)
        _bound(self.frames)
        return self.geometries(found, fingerprint)

    def map_known(self, thing: str, fingerprint: bytes) -> bool:
        """True while this very MAP of the intersection was described not long ago."""
        last = self.maps.get((self.context.gateway, thing))
        return (
            last is not None
            and last[0] == fingerprint
            and self.context.received_at < last[1] + MAP_AGAIN_US
        )

    def geometries(self, found: Sequence[wire.Geometry], fingerprint: bytes) -> bool:
        """Describe the intersections of a MAP; True where one was not known like this."""
        new = False
        for each in found:
            key = (self.context.gateway, each.intersection)
            last = self.maps.pop(key, None)
            new |= last is None or last[0] != fingerprint
            self.maps[key] = (fingerprint, self.context.received_at)
            _bound(self.maps)
            self.out.describe(_thing(each))
        return new

    def record(self, record: Any) -> bool:
        """One ODE record, already parsed, or the fault that kept it from being."""
        if isinstance(record, WireError):
            raise record
        if isinstance(record, str):
            return self.hex(ode.unhex(record, "input"), self.context.received_at)
        content = ode.node(record, "record")
        kind = ode.kind_of(content)
        reference = ode.received_at(content, self.context.received_at)
        if kind == "hex":
            return self.hex(ode.hex_bytes(content), reference)
        if kind == "spat":
            return sum(self.signals(each, reference) for each in ode.spat(content)) > 0
        if kind == "processedspat":
            return self.processed(ode.processed_spat(content))
        if kind == "map":
            return self.json_map(content)
        if not kind:
            raise WireError("unknown-record", "record: neither an ODE record nor a ProcessedSpat")
        raise _unsupported(kind.upper(), orjson.dumps(record))

    def hex(self, message: bytes, reference_us: int) -> bool:
        """The one message inside a record; padding and a cut-off signature may follow it."""
        return self.frame(next(wire.split(message)), reference_us)

    def processed(self, state: ode.Processed) -> bool:
        """A ProcessedSpat, whose ends are times already."""
        seen = [(m.signal_group, m.state, m.minimum_end, m.maximum_end) for m in state.movements]
        return self.observe(
            state.intersection, state.moment_us, seen, lambda end: end, name=state.name
        )

    def json_map(self, content: ode.Node) -> bool:
        """A MAP record; known ones are told by the hash of their message."""
        found = ode.geometries(content)
        fingerprint = sha256(repr(found).encode()).digest()[:16]
        if found and all(self.map_known(each.intersection, fingerprint) for each in found):
            return False
        return self.geometries(found, fingerprint)

    def finish(self) -> Decoded:
        """The columns; intersections whose newest frame is no late backlog are heard."""
        for thing, moment in self.spoke.items():
            clock = self.known[(self.context.gateway, thing)].clock
            if _is_current(clock, self.context.received_at, moment):
                self.out.hear(thing, moment)
        return self.out.build()


def _groups(
    seen: Sequence[_Seen], old: Mapping[int, _Group], resolve: Callable[[_End], _End]
) -> dict[int, _Group]:
    """The groups of a frame; a mark that stays the same stays the same moment."""
    groups: dict[int, _Group] = {}
    for number, state, minimum, maximum in seen:
        before = old.get(number)
        groups.setdefault(
            number,
            _Group(
                state,
                minimum,
                maximum,
                before.minimum if before and before.raw_minimum == minimum else resolve(minimum),
                before.maximum if before and before.raw_maximum == maximum else resolve(maximum),
            ),
        )
    return groups


def _is_current(clock: _Clock, received_at: int, moment: int) -> bool:
    """Whether a newest frame is fresh, rather than the flush of a store-and-forward backlog.

    A frame that is 5 minutes old and one of a clock 5 minutes behind look alike. A clock keeps its
    distance; a backlog catches up. So a distance that grows over the least one seen is a backlog,
    and one that shrinks is believed once it holds still for 2 s. Beyond 10 min all is history.
    """
    skew = received_at - moment
    if abs(skew) <= FRESH_US or abs(skew) > GAP_US:
        clock.skew = skew if clock.skew is None or abs(skew) <= FRESH_US else clock.skew
        return True
    if clock.skew is None:
        clock.skew = skew
        return True
    if -FRESH_US // 2 <= skew - clock.skew <= FRESH_US:
        clock.skew = min(clock.skew, skew)
        return True
    if abs(skew - clock.candidate) > FRESH_US // 2 or not clock.candidate_since:
        clock.candidate, clock.candidate_since = skew, received_at
        return False
    if received_at < clock.candidate_since + FRESH_US:
        return False
    clock.skew, clock.candidate_since = skew, 0
    return True


class _Personal(WireError):
    """A message about people or vehicles: its bytes are not kept."""


def _unsupported(name: str, raw: bytes) -> WireError:
    if name in _PERSONAL:
        return _Personal(
            "unsupported-message",
            f"{name} ({len(raw)} bytes, not kept): where vehicles and people are is personal data",
        )
    return WireError("unsupported-message", f"{name}: signals take SPAT and MAP")


def _thing(geometry: wire.Geometry) -> ThingUpdate:
    paths = [list(map(list, lane.path)) for lane in geometry.lanes if len(lane.path) > 1]
    properties: dict[str, Any] = {
        "revision": geometry.revision,
        "elevation_m": geometry.elevation,
        "lanes": [
            {
                "id": lane.id,
                "approach": lane.approach,
                "direction": lane.direction,
                "type": lane.type,
                "width_cm": lane.width_cm,
                "signal_groups": list(lane.signal_groups),
                "connects_to": list(lane.connects_to),
            }
            for lane in geometry.lanes
        ],
    }
    return ThingUpdate(
        geometry.intersection,
        geometry.name,
        properties,
        (geometry.longitude, geometry.latitude),
        {"type": "MultiLineString", "coordinates": paths} if paths else None,
    )


def _bound(memory: dict[Any, Any]) -> None:
    while len(memory) > INTERSECTIONS_MAX:
        del memory[next(iter(memory))]


def _records(payload: bytes) -> Iterator[tuple[bytes, Any]]:
    """The records of a payload with their bytes; a WireError stands for one that is no JSON."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        yield from _lines(payload, error)
        return
    if isinstance(document, dict) and isinstance(document.get("cases"), list):
        found = list(ode.cases(document))
    else:
        found = document if isinstance(document, list) else [document]
    for record in _bounded(found):
        yield (b"" if len(found) > 1 else payload) or orjson.dumps(_plain_value(record)), record


def _bounded(records: list[Any]) -> Iterator[Any]:
    yield from records[:_RECORDS_MAX]
    if len(records) > _RECORDS_MAX:
        yield WireError("too-large", f"more than {_RECORDS_MAX} records in one payload")


def _plain_value(record: Any) -> Any:
    return None if isinstance(record, WireError) else record


def _lines(payload: bytes, error: Exception) -> Iterator[tuple[bytes, Any]]:
    lines = [line for line in payload.splitlines() if line.strip()]
    if len(lines) <= 1:
        yield payload, WireError("invalid-json", f"record: {error}")
        return
    for number, line in enumerate(lines):
        if number == _RECORDS_MAX:
            yield line, WireError("too-large", f"more than {_RECORDS_MAX} records in one payload")
            return
        try:
            yield line, orjson.loads(line)
        except orjson.JSONDecodeError as fault:
            yield line, WireError("invalid-json", f"record: {fault}")
