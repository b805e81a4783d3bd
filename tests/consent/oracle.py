"""Consent as plain Python over a list of acts: slow, obvious, and what the gate must agree with."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import inf

from consent.levels import LEVELS
from consent.vocabulary import CATEGORIES, PURPOSES

JAPAN = timedelta(hours=9)
EVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
Window = tuple[datetime, datetime]
NEVER = len(LEVELS)
"""A level at which nothing is shown."""


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
    rows: list[Row] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)
    """Of each observed property."""

    def narrowed(self, name: str, **changes: object) -> Grant:
        """What a grant would be."""
        return replace(self.grants[name], **changes)  # type: ignore[arg-type]

    def level(self, person: str, row_time: datetime, ask: "Ask", prop: str) -> int | None:
        """The strictest of those who speak for a person, of each the least strict grant."""
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
        levels = [
            min(
                (
                    grant.level
                    for grant in spoken
                    if grant.voice == voice
                    and grant.event[0] <= row_time < grant.event[1]
                    and self.countries.get(ask.recipient) in grant.countries
                ),
                default=NEVER,
            )
            for voice in {grant.voice for grant in spoken}
        ]
        strictest = max(levels, default=NEVER)
        return strictest if strictest < NEVER else None

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
        self, thing: str, prop: str, time: datetime, ask: "Ask"
    ) -> tuple[int, Window] | None:
        """The strictest level of all persons in a moment, and for which window they are bound."""
        for bound, persons, window in self.bindings:
            if bound == thing and window[0] <= time < window[1]:
                levels = [self.level(person, time, ask, prop) for person in persons]
                if any(level is None for level in levels):
                    return None
                return max(level for level in levels if level is not None), window
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
            found = self.moment(thing, prop, row.time, ask)
            return found is not None and found[0] == 0
        begin = floor(row.time, seconds)
        end = begin + timedelta(seconds=seconds)
        last = max(r.time for r in self.rows if r.stream == row.stream and begin <= r.time < end)
        if end > ask.now or row.time != last or not self.whole(thing, prop, begin, end, level, ask):
            return False
        return not self.whole(thing, prop, begin, end, level - 1, ask)

    def whole(
        self, thing: str, prop: str, begin: datetime, end: datetime, level: int, ask: "Ask"
    ) -> bool:
        """Whether every moment of a step is permitted at this level or a more exact one."""
        edges = {begin, *self.edges(begin, end)}
        found = [self.moment(thing, prop, edge, ask) for edge in edges]
        windows = {each[1] for each in found if each is not None}
        return len(windows) == 1 and all(f is not None and f[0] <= level for f in found)

    def edges(self, begin: datetime, end: datetime) -> Iterable[datetime]:
        """Where something may change inside a step."""
        windows = [g.event for g in self.grants.values()] + [w for _, _, w in self.bindings]
        return (edge for window in windows for edge in window if begin <= edge < end)


@dataclass(frozen=True)
class Ask:
    """One question at one moment."""

    recipient: str
    purpose: str
    category: str
    window: Window
    now: datetime


def floor(moment: datetime, seconds: int) -> datetime:
    """The beginning of the step of so many seconds, counted from midnight in Japan."""
    if not seconds:
        return moment
    origin = datetime(1970, 1, 1, tzinfo=UTC) - JAPAN
    return moment - (moment - origin) % timedelta(seconds=seconds)
