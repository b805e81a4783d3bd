"""Consent as plain Python over a list of acts: slow, obvious, and what the gate must agree with."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import floor as whole_below
from math import inf

from shapely.geometry import Point, box
from shapely.geometry.base import BaseGeometry

from consent.levels import LEVELS
from consent.vocabulary import CATEGORIES, PURPOSES

JAPAN = timedelta(hours=9)
EVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
Window = tuple[datetime, datetime]
STAY = timedelta(minutes=5)
"""So long a Thing is where it was seen, unless it is seen elsewhere."""


@dataclass(frozen=True)
class Row:
    """One stored observation; `value` is like no other's."""

    stream: tuple[str, str]
    time: datetime
    value: float


@dataclass
class Grant:
    """One grant as it stands."""

    person: str
    recipient: str
    purpose: str
    category: str
    event: Window
    valid: Window
    level: int
    countries: tuple[str, ...]
    given: int
    voice: str | None = None
    """Whose word it is: the person's own, or a guardian's."""
    live: bool = True
    areas: tuple[BaseGeometry, ...] = ()
    """All of them must hold."""

    def is_within(self, place: Point | None, level: int) -> bool:
        """Whether a place, and at a level the whole cell around it, is within."""
        if self.areas and place is None:
            return False
        return all(area.covers(cell(place, level)) for area in self.areas if place)


@dataclass
class Objection:
    """What shuts grants; after `until`, an act, it binds no other voice's new ones."""

    sigma: int
    person: str
    recipient: str | None
    purpose: str | None
    voice: str | None = None
    until: float = inf

    def shuts(self, grant: Grant, ask: "Ask") -> bool:
        """Whether what the grant says does not count for a question."""
        return (
            self.person == grant.person
            and self.recipient in (None, ask.recipient)
            and (self.purpose is None or self.purpose in PURPOSES.above(ask.purpose))
            and (
                self.sigma > grant.given or (self.voice != grant.voice and grant.given < self.until)
            )
        )


@dataclass
class Oracle:
    """Everything that was said, and every row that is stored."""

    acts: int = 0
    countries: dict[str, str | None] = field(default_factory=dict)
    """Of each recipient; None: suspended."""
    grants: dict[str, Grant] = field(default_factory=dict)
    objections: list[Objection] = field(default_factory=list)
    guardians: set[tuple[str, str]] = field(default_factory=set)
    """Ward and guardian, as it is now."""
    files: dict[tuple[str, str | None], tuple[int, bool]] = field(default_factory=dict)
    """On a country, or a recipient there: the act that wrote it, whether its last check passed."""
    bindings: list[tuple[str, frozenset[str], Window]] = field(default_factory=list)
    tracks: dict[str, dict[datetime, Point]] = field(default_factory=dict)
    """Where Things that move were seen, and when."""
    places: dict[str, Point] = field(default_factory=dict)
    """Where the others are."""
    rows: list[Row] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)
    """Of each observed property."""

    def narrowed(self, name: str, **changes: object) -> Grant:
        """What a grant would be."""
        return replace(self.grants[name], **changes)  # type: ignore[arg-type]

    def may(
        self, person: str, thing: str, prop: str, time: datetime, ask: "Ask", level: int
    ) -> bool:
        """Whether all who speak for a person permit a moment at a level or a more exact one."""
        spoken = [
            grant
            for grant in self.grants.values()
            if grant.live
            and grant.person == person
            and grant.recipient == ask.recipient
            and grant.purpose in PURPOSES.reaching(ask.purpose)
            and grant.category in CATEGORIES.reaching(self.categories[prop])
            and grant.valid[0] <= ask.now < grant.valid[1]
            and self.is_told(grant)
            and not any(objection.shuts(grant, ask) for objection in self.objections)
        ]
        permitting = {
            grant.voice
            for grant in spoken
            if grant.level <= level
            and grant.event[0] <= time < grant.event[1]
            and self.countries.get(ask.recipient) in grant.countries
            and grant.is_within(self.place(thing, time), level)
        }
        return bool(spoken) and permitting == {grant.voice for grant in spoken}

    def place(self, thing: str, time: datetime) -> Point | None:
        """Where a Thing is, as far as is known."""
        track = self.tracks.get(thing)
        if track is None:
            return self.places.get(thing)
        seen = max((each for each in track if each <= time), default=None)
        return track[seen] if seen is not None and time < seen + STAY else None

    def is_told(self, grant: Grant) -> bool:
        """Whether the recipient may have it where it is, as far as files on that place go."""
        country = self.countries.get(grant.recipient)
        if country in (None, "JP"):
            return country is not None
        files = [self.files.get((country, of)) for of in (None, grant.recipient)]
        return all(file is not None and file[1] and file[0] < grant.given for file in files)

    def revoke(self, name: str) -> None:
        """End a grant, and what other voices granted of the same."""
        ended = self.grants[name]
        ended.live = False
        for grant in self.grants.values():
            if (
                grant.voice != ended.voice
                and (grant.person, grant.recipient) == (ended.person, ended.recipient)
                and any({grant.purpose, ended.purpose} <= set(PURPOSES.reaching(code))
                        for code in PURPOSES.terms)
                and any({grant.category, ended.category} <= set(CATEGORIES.reaching(code))
                        for code in CATEGORIES.terms)
            ):  # fmt: skip
                grant.live = False

    def emergency(self, things: Iterable[str], category: str, window: Window) -> list[Row]:
        """What an override opens: every row of these Things that is somebody's."""
        return [
            row
            for row in self.rows
            if row.stream[0] in things
            and category in CATEGORIES.above(self.categories[row.stream[1]])
            and window[0] <= row.time < window[1]
            and any(
                thing == row.stream[0] and bound[0] <= row.time < bound[1]
                for thing, _, bound in self.bindings
            )
        ]

    def moment(
        self, thing: str, prop: str, time: datetime, ask: "Ask", level: int
    ) -> Window | None:
        """For which window the persons are bound who all permit a moment at a level."""
        for bound, persons, window in self.bindings:
            if bound == thing and window[0] <= time < window[1]:
                may = all(self.may(each, thing, prop, time, ask, level) for each in persons)
                return window if may else None
        return None

    def answer(self, ask: "Ask") -> list[tuple[tuple[str, str], int, datetime, float]]:
        """(stream, level, time shown, value), in any order."""
        shown = []
        for row in self.rows:
            if ask.category not in CATEGORIES.above(self.categories[row.stream[1]]):
                continue
            for level in range(len(LEVELS)):
                time = floor(row.time, LEVELS[level].seconds)
                if not ask.window[0] <= time < ask.window[1]:
                    continue
                if self.is_shown(row, level, ask):
                    shown.append((row.stream, level, time, row.value))
        return shown

    def is_shown(self, row: Row, level: int, ask: "Ask") -> bool:
        """Whether this level shows the row, and none more exact shows its whole step."""
        thing, prop = row.stream
        seconds = LEVELS[level].seconds
        if seconds == 0:
            return self.moment(thing, prop, row.time, ask, 0) is not None
        begin = floor(row.time, seconds)
        end = begin + timedelta(seconds=seconds)
        last = max(r.time for r in self.rows if r.stream == row.stream and begin <= r.time < end)
        if end > ask.now or row.time != last or not self.whole(thing, prop, begin, end, level, ask):
            return False
        return not any(self.whole(thing, prop, begin, end, finer, ask) for finer in range(level))

    def whole(
        self, thing: str, prop: str, begin: datetime, end: datetime, level: int, ask: "Ask"
    ) -> bool:
        """Whether every moment of a step is permitted at this level or a more exact one."""
        edges = {begin, *self.edges(thing, begin, end)}
        found = {self.moment(thing, prop, edge, ask, level) for edge in edges}
        return len(found) == 1 and None not in found

    def edges(self, thing: str, begin: datetime, end: datetime) -> Iterable[datetime]:
        """Where something may change inside a step."""
        windows = [g.event for g in self.grants.values()] + [w for _, _, w in self.bindings]
        windows += [(time, time + STAY) for time in self.tracks.get(thing, ())]
        return (edge for window in windows for edge in window if begin <= edge < end)


@dataclass(frozen=True)
class Ask:
    """One question at one moment."""

    recipient: str
    purpose: str
    category: str
    window: Window
    now: datetime


def cell(place: Point, level: int) -> BaseGeometry:
    """What is known of a place at a level: itself, or its cell of the grid."""
    if level == 0:
        return place
    width, height = LEVELS[level].longitude_degrees, LEVELS[level].latitude_degrees
    column, line = whole_below(place.x / width), whole_below(place.y / height)
    return box(column * width, line * height, (column + 1) * width, (line + 1) * height)


def floor(moment: datetime, seconds: int) -> datetime:
    """The beginning of the step of so many seconds, counted from midnight in Japan."""
    if not seconds:
        return moment
    origin = datetime(1970, 1, 1, tzinfo=UTC) - JAPAN
    return moment - (moment - origin) % timedelta(seconds=seconds)
