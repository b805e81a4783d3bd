"""Consent as plain Python over a list of acts: slow, obvious, and what the gate must agree with."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from consent.levels import LEVELS
from consent.vocabulary import CATEGORIES, PURPOSES

JAPAN = timedelta(hours=9)
EVER = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
Window = tuple[datetime, datetime]


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
    live: bool = True


@dataclass
class Oracle:
    """Everything that was said, and every row that is stored."""

    acts: int = 0
    countries: dict[str, str | None] = field(default_factory=dict)
    """Of each recipient; None: suspended."""
    grants: dict[str, Grant] = field(default_factory=dict)
    objections: list[tuple[int, str, str | None, str | None]] = field(default_factory=list)
    bindings: list[tuple[str, frozenset[str], Window]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    categories: dict[str, str] = field(default_factory=dict)
    """Of each observed property."""

    def narrowed(self, name: str, **changes: object) -> Grant:
        """What a grant would be."""
        return replace(self.grants[name], **changes)  # type: ignore[arg-type]

    def level(self, person: str, row_time: datetime, ask: "Ask", prop: str) -> int | None:
        """The least strict of a person's grants for a moment; None: no grant."""
        levels = [
            grant.level
            for grant in self.grants.values()
            if grant.live
            and grant.person == person
            and grant.recipient == ask.recipient
            and grant.purpose in PURPOSES.reaching(ask.purpose)
            and grant.category in CATEGORIES.reaching(self.categories[prop])
            and grant.event[0] <= row_time < grant.event[1]
            and grant.valid[0] <= ask.now < grant.valid[1]
            and self.countries.get(ask.recipient) in grant.countries
            and not any(
                sigma > grant.given
                and by == person
                and whom in (None, ask.recipient)
                and (purpose is None or purpose in PURPOSES.above(ask.purpose))
                for sigma, by, whom, purpose in self.objections
            )
        ]
        return min(levels, default=None)

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
