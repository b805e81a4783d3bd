"""Pairs of worlds: one, and the same without what a recipient may not have; do its answers differ?

Both worlds of a pair lie in one database, each with its own recipient, persons and Things, so that
many pairs come to one server. Every answer is compared whole: status, headers, length, and body,
with the names that are made for each recipient alone put back to whom they stand for.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx
import orjson
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import domains
from api import personal_stream
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from consent import areas, grants, recipients
from consent.grants import Terms
from consent.levels import LEVELS
from consent.masks import Mask
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.live import announce
from core.settings import Settings
from core.storage.pool import is_native
from core.tokens import SCOPES, Principal, Role
from tests.api.channels import BASE
from tests.api.city import NEXT_APPEND
from tests.api.conftest import serving
from tests.api.town import DAY, NOTICE, Town
from tests.consent.oracle import EVER, Ask, Grant, Oracle
from tests.consent.places import PLACES, TOWN, geojson

PAIRS = 10_000
PROPERTIES = ("heart-rate", "body-weight", "steps")
ASKED_PURPOSE = "dpv:ServicePersonalisation"
PURPOSE_CODES = (ASKED_PURPOSE, "dpv:ServiceManagement", "dpv:Marketing")
CATEGORY_CODES = ("pd:MedicalHealth", "chimata:VitalSign", "chimata:HeartRate")
YEARS = timedelta(days=400)
PAGES_MAX = 40
FORMATS = ("jsonl", "csv", "parquet")
OPERATOR = Principal(Role.OPERATOR, "office", None, None, SCOPES[Role.OPERATOR], 2**40)
FENCE = areas.canonical(geojson(TOWN))
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CURSOR = re.compile(r"after=[\w-]+")
EVENT_ID = re.compile(r"(?m)^id: [\w-]+$")
NAME = re.compile(r"\b(?:[a-z2-7]{39}|[a-z2-7]{24})\b")

INSERT_ROWS = (
    "INSERT INTO personal.observation (phenomenon_time, result, append_id, datastream_id, quality)"
    " VALUES (%s, %s, %s, %s, 0)"
)
INSERT_PLACES = (
    "INSERT INTO personal.observation_position"
    " (phenomenon_time, longitude, latitude, append_id, datastream_id, quality)"
    " VALUES (%s, %s, %s, %s, %s, 0)"
)
INSERT_APPEND = "INSERT INTO append (sector, id, rows, time_min, time_max) VALUES (%s,%s,%s,%s,%s)"


@dataclass(frozen=True)
class Given:
    """One grant, by numbers: what it says, and what became of it."""

    person: int
    ours: bool
    purpose: str
    category: str
    same_operation: bool
    level: int
    begin: int
    """Of its window, in steps of 20 minutes; and its length."""
    length: int
    state: str
    fenced: bool = False
    """Whether for what was seen in TOWN alone."""


@dataclass(frozen=True)
class Thing:
    """A device: whom it describes from when on, and the minutes of its rows, by property."""

    persons: tuple[int, ...]
    begin: int
    rows: dict[str, list[int]] = field(hash=False)
    track: dict[int, str] = field(default_factory=dict, hash=False)
    """Where it was seen, by minute."""
    number: int = 0


@dataclass(frozen=True)
class World:
    """What is, and what is asked of it."""

    things: list[Thing]
    grants: list[Given]
    objections: list[tuple[int, bool]]
    """Who, and whether to what is asked for."""
    operation: Operation
    category: str
    limit: int
    channel: str


def numbered(world: World) -> World:
    """Each Thing with a number of its own, which it keeps."""
    return replace(world, things=[replace(t, number=n) for n, t in enumerate(world.things)])


person = st.integers(0, 3)
PAIR = st.sampled_from([(0, 1), (0, 2), (1, 3)])
INSIDE, OUTSIDE = ("ward", "town"), ("island", "abroad", "far")
"""Places in TOWN with all of their cells, and out of it with all of them."""


def stay(begin: int, places: list[str], minutes: int) -> dict[int, str]:
    """A track: a place each so many minutes."""
    return {begin + n * minutes: place for n, place in enumerate(places)}


TRACKS = st.builds(
    stay,
    st.integers(0, 60),
    st.lists(st.sampled_from([*INSIDE * 3, *OUTSIDE]), min_size=10, max_size=60),
    st.sampled_from([3, 5, 6]),
)
MINUTES = st.lists(st.integers(0, 299), min_size=2, max_size=9, unique=True)
TRUSTING = st.builds(
    Given,
    person=person,
    ours=st.just(True),
    purpose=st.sampled_from(PURPOSE_CODES[:1]),
    category=st.sampled_from(["pd:MedicalHealth", "pd:MedicalHealth", "chimata:VitalSign"]),
    same_operation=st.just(True),
    level=st.sampled_from([0, 0, 0, 1, 2]),
    begin=st.sampled_from([0, 0, 3]),
    length=st.sampled_from([15, 15, 6]),
    state=st.just("live"),
    fenced=st.sampled_from([False, False, False, False, True]),
)
ANY = st.builds(
    Given,
    person=person,
    ours=st.sampled_from([True, True, True, False]),
    purpose=st.sampled_from([*PURPOSE_CODES, *PURPOSE_CODES[:2]]),
    category=st.sampled_from([*CATEGORY_CODES, "pd:MedicalHealth", "pd:Age"]),
    same_operation=st.sampled_from([True, True, True, False]),
    level=st.sampled_from([0, 0, 0, 1, 2, 3]),
    begin=st.sampled_from([0, 0, 1, 3, 4]),
    length=st.sampled_from([2, 5, 15, 15]),
    state=st.sampled_from(["live", "live", "live", "past", "future", "abroad", "revoked"]),
    fenced=st.booleans(),
)
WORLDS = st.builds(
    World,
    things=st.lists(
        st.builds(
            Thing,
            persons=st.one_of(st.tuples(person), st.tuples(person), PAIR),
            begin=st.sampled_from([0, 0, 0, 3, 5]),
            rows=st.dictionaries(st.sampled_from(PROPERTIES), MINUTES, min_size=1, max_size=2),
            track=TRACKS,
        ),
        min_size=2,
        max_size=4,
    ),
    grants=st.tuples(
        st.lists(TRUSTING, min_size=2, max_size=4, unique_by=lambda each: each.person),
        st.lists(ANY, max_size=5),
    ).map(lambda both: [*both[0], *both[1]]),
    objections=st.sampled_from([[], [], [], [(0, True)], [(1, True)], [(2, False)]]),
    operation=st.sampled_from([Operation.READ, Operation.READ, Operation.DERIVE]),
    category=st.sampled_from([CATEGORY_CODES[0], *CATEGORY_CODES]),
    limit=st.sampled_from([1, 2, 5, 50]),
    channel=st.sampled_from([*FORMATS, "stream", "stream", "person"]),
).map(numbered)


def span(begin: int, length: int = 10_000) -> tuple[datetime, datetime]:
    """So many steps of 20 minutes."""
    return DAY + timedelta(minutes=20 * begin), DAY + timedelta(minutes=20 * (begin + length))


def permitting(world: World) -> list[Given]:
    """The grants without which an answer may be another."""
    objected = {who for who, to_this in world.objections if to_this}
    reached = {
        code
        for name in PROPERTIES
        if world.category in CATEGORIES.above(category_of(name))
        for code in CATEGORIES.reaching(category_of(name))
    }
    return [
        each
        for each in world.grants
        if each.ours
        and each.state == "live"
        and each.same_operation
        and each.person not in objected
        and each.purpose in PURPOSES.reaching(ASKED_PURPOSE)
        and each.category in reached
        and (each.level == 0 or world.operation is Operation.READ)
    ]


def time_of(minute: int) -> datetime:
    """A minute of the worlds."""
    return DAY + timedelta(minutes=minute)


def left(track: dict[int, str]) -> dict[int, str]:
    """A track that says no more of what is outside than when it was left for there."""
    kept: dict[int, str] = {}
    inside = False
    for minute, place in sorted(track.items()):
        if place in INSIDE:
            kept[minute] = place
        elif inside:
            kept[minute] = next(each for each in OUTSIDE if each != place)
        inside = place in INSIDE
    return kept


def is_permitted(oracle: Oracle, ask: Ask, thing: str, name: str, time: datetime) -> bool:
    """Whether a moment of a series may be had at any level."""
    levels = range(len(LEVELS))
    return any(oracle.moment(thing, name, time, ask, level) is not None for level in levels)


def category_of(name: str) -> str:
    """What an observed property tells of a person."""
    return next(p.category for p in domains.sector("health").properties if p.name == name) or ""


def reduced(world: World) -> World:
    """The world without what may not be had: grants, objections, persons, series, observations."""
    kept = permitting(world)
    persons = {each.person for each in kept}
    oracle = Oracle(categories={name: category_of(name) for name in PROPERTIES})
    for number, each in enumerate(kept):
        oracle.grants[str(number)] = Grant(
            str(each.person), "us", each.purpose, each.category, span(each.begin, each.length),
            EVER, each.level, ("JP",), number, areas=(TOWN,) if each.fenced else (),
        )  # fmt: skip
    oracle.countries["us"] = "JP"
    ask = Ask("us", ASKED_PURPOSE, world.category, EVER, datetime.now(UTC))
    things = []
    for thing in world.things:
        if not set(thing.persons) <= persons:
            continue
        key = str(thing.number)
        window = span(thing.begin)
        oracle.bindings.append((key, frozenset(map(str, thing.persons)), window))
        oracle.tracks[key] = {time_of(minute): PLACES[at] for minute, at in thing.track.items()}
        rows = {
            name: [
                minute
                for minute in minutes
                if world.category in CATEGORIES.above(category_of(name))
                and is_permitted(oracle, ask, key, name, time_of(minute))
            ]
            for name, minutes in thing.rows.items()
        }
        rows = {name: minutes for name, minutes in rows.items() if minutes}
        fenced = any(each.fenced for each in kept if each.person in thing.persons)
        track = left(thing.track) if fenced else {}
        things.append(replace(thing, rows=rows, track=track))
    return replace(world, things=things, grants=kept, objections=[])


@dataclass
class Side:
    """One world of a pair as it lies in the database: its mark, its recipient, its names."""

    town: Town
    world: World
    mark: str
    append: int = 0
    names: dict[str, str] = field(default_factory=dict)

    @property
    def recipient(self) -> str:
        return f"us{self.mark}"

    def settle(self) -> None:
        """Everything that was said."""
        connection = self.town.connection
        with connection.transaction():
            for key in (self.recipient, f"they{self.mark}"):
                recipients.put(connection, OPERATOR, key, "だれか", "Someone", "JP", None)
            for thing in self.world.things:
                grants.put_binding(
                    connection, OPERATOR, uuid4(), "health", f"{thing.number}{self.mark}",
                    [f"{each}{self.mark}" for each in thing.persons], span(thing.begin)[0], None,
                )  # fmt: skip
            for each in self.world.grants:
                self._grant(each)
            for who, to_this in self.world.objections:
                purpose = ASKED_PURPOSE if to_this else "dpv:Marketing"
                grants.put_objection(
                    connection, self._citizen(who), uuid4(), self.recipient, purpose
                )

    def _citizen(self, number: int) -> Principal:
        key = f"{number}{self.mark}"
        return Principal(Role.CITIZEN, key, None, key, SCOPES[Role.CITIZEN], 2**40)

    def _grant(self, each: Given) -> None:
        now = datetime.now(UTC)
        valid = {"past": (EVER[0], now - YEARS), "future": (now + YEARS, EVER[1])}.get(
            each.state, (EVER[0], EVER[1])
        )
        other = Operation.DERIVE if self.world.operation is Operation.READ else Operation.READ
        begin, end = span(each.begin, each.length)
        terms = Terms(
            self.recipient if each.ours else f"they{self.mark}",
            each.purpose,
            each.category,
            self.world.operation if each.same_operation else other,
            valid[1],
            NOTICE,
            valid[0],
            begin,
            end,
            LEVELS[each.level].name,
            ("US",) if each.state == "abroad" else ("JP",),
            FENCE if each.fenced else None,
        )
        name, citizen = uuid4(), self._citizen(each.person)
        grants.put_grant(self.town.connection, citizen, name, terms)
        if each.state == "revoked":
            grants.revoke(self.town.connection, citizen, name)

    def store(self) -> None:
        """Its rows, in one append; each has a result like no other of its world."""
        rows, seen = [], []
        for thing in self.world.things:
            if thing.track:
                made = self._series(f"{thing.number}{self.mark}", "position", "position")
                seen += [(time_of(n), *PLACES[at].coords[0], made) for n, at in thing.track.items()]
            for name in PROPERTIES:
                if name not in thing.rows:
                    continue
                made = self._series(f"{thing.number}{self.mark}", name)
                for minute in thing.rows[name]:
                    value = float(100_000 * thing.number + 1_000 * PROPERTIES.index(name) + minute)
                    rows.append((time_of(minute), value, made))
        with self.town.connection.transaction():
            append = self.town.city.one(NEXT_APPEND, "health")
            with self.town.connection.cursor() as cursor:
                told = [(time, result, append, made) for time, result, made in rows]
                cursor.executemany(INSERT_ROWS, told)
                cursor.executemany(INSERT_PLACES, [(*each[:3], append, each[3]) for each in seen])
                ends = (DAY, DAY + timedelta(minutes=300))
                cursor.execute(INSERT_APPEND, ("health", append, len(rows), *ends))
            announce(self.town.connection, "health", append, len(rows))

    def _series(self, thing: str, name: str, kind: str = "number") -> int:
        made = self.town.city.thing("health", thing)
        return self.town.city.datastream(made, name, kind, data_class="personal")

    def know_names(self, secret: bytes) -> None:
        """Whom each name of an answer stands for."""
        mask = Mask(secret, self.recipient)
        for number in range(4):
            found = self.town.connection.execute(
                "SELECT id FROM consent.subject WHERE key = %s", (f"{number}{self.mark}",)
            ).fetchone()
            if found:
                self.names[mask.person(found[0])] = f"person {number}"
        for thing in self.world.things:
            self.names[mask.thing(f"{thing.number}{self.mark}")] = f"Thing {thing.number}"


def stranger(side: Side, secret: bytes, kept: set[int]) -> str:
    """A name for someone who permits nothing, or who never was."""
    mask = Mask(secret, side.recipient)
    for number in set(range(4)) - kept:
        found = side.town.connection.execute(
            "SELECT id FROM consent.subject WHERE key = %s", (f"{number}{side.mark}",)
        ).fetchone()
        if found:
            return mask.person(found[0])
    return mask.person(2**40)


Answer = tuple[int, dict[str, str], Any]


def canonical(side: Side, answer: httpx.Response) -> Answer:
    """An answer without what is random or of this recipient alone: its length stays."""
    headers = {k: v for k, v in answer.headers.items() if k != "date"}
    if "parquet" in headers.get("content-type", ""):
        file = pq.ParquetFile(pa.BufferReader(answer.content))
        ids = file.metadata.metadata[b"disclosures"].decode().split()
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        text = orjson.dumps(file.read().to_pylist(), default=str).decode()
        return answer.status_code, headers, (named(side, text), len(ids), groups)
    return answer.status_code, headers, (named(side, answer.text), len(answer.content))


def named(side: Side, text: str) -> str:
    """Text with names put back, lists of persons in their order, ids and cursors as lengths."""
    text = UUID.sub("an id", text)
    text = CURSOR.sub(lambda m: f"after={len(m[0])}", text)
    text = EVENT_ID.sub(lambda m: f"id: {len(m[0])}", text)
    text = NAME.sub(lambda m: side.names.get(m[0], m[0]), text)
    return re.sub(r"person \d(\W+person \d)+", lambda m: str(sorted(m[0])), text)


def pages(side: Side, client: httpx.Client, path: str) -> list[Answer]:
    """Every page from a path on."""
    found: list[Answer] = []
    headers = side.town.headers(Role.RECIPIENT, side.recipient)
    following: str | None = path
    while following and len(found) < PAGES_MAX:
        answer = client.get(side.town.served.url + following, headers=headers)
        found.append(canonical(side, answer))
        following = answer.json().get("next") if answer.status_code == httpx.codes.OK else None
    return found


def streamed(side: Side, client: httpx.Client, path: str, last_id: str = "") -> tuple[str, Answer]:
    """What a stream sends until its first comment; the last id, and all of it."""
    headers = side.town.headers(Role.RECIPIENT, side.recipient)
    if last_id:
        headers["Last-Event-ID"] = last_id
    text = ""
    with client.stream("GET", side.town.served.url + path, headers=headers) as answer:
        for part in answer.iter_text():
            text += part
            if "\n: " in text or answer.status_code != httpx.codes.OK:
                break
        kept = {k: v for k, v in answer.headers.items() if k != "date"}
        ids = re.findall(r"(?m)^id: (.*)$", text)
        body = text.partition("\n: ")[0]
        return (ids[-1] if ids else ""), (answer.status_code, kept, (named(side, body), len(body)))


def answers(side: Side, client: httpx.Client, secret: bytes, kept: set[int]) -> list[Answer]:
    """What a recipient gets of its world, by pages or rollups, and by another channel."""
    world = side.world
    query = {"purpose": ASKED_PURPOSE, "category": world.category}

    def path(channel: str, **more: str) -> str:
        return f"{BASE}/{channel}?{httpx.QueryParams({**query, **more})}"

    before = ""
    if world.operation is Operation.READ and world.channel == "stream":
        before, _ = streamed(side, client, path("stream"))
    side.store()
    side.know_names(secret)
    size = {"limit": str(world.limit)}
    if world.operation is Operation.DERIVE:
        bounds = {"from": DAY.isoformat(), "to": (DAY + timedelta(hours=6)).isoformat()}
        return pages(side, client, path("rollups", step="hour", **bounds, **size))
    found = pages(side, client, path("observations", **size))
    match world.channel:
        case "stream":
            return [*found, streamed(side, client, path("stream"), before)[1]]
        case "person":
            name = stranger(side, secret, kept)
            return found + pages(side, client, path("observations", person=name, **size))
        case _:
            return found + pages_of_export(side, client, path("export", format=world.channel))


def pages_of_export(side: Side, client: httpx.Client, path: str) -> list[Answer]:
    """One export."""
    headers = side.town.headers(Role.RECIPIENT, side.recipient)
    return [canonical(side, client.get(side.town.served.url + path, headers=headers))]


@dataclass
class Pairs:
    """A served city for any number of pairs, and what came of them."""

    town: Town
    client: httpx.Client
    secret: bytes
    count: int = 0
    told: Counter[str] = field(default_factory=Counter)
    """Pairs with rows in their answers, by channel; and those from which something was removed."""

    def compare(self, world: World) -> tuple[list[Answer], list[Answer]]:
        """The answers in a world, and in the same without what may not be had."""
        self.count += 1
        less = reduced(world)
        kept = {each.person for each in less.grants}
        sides = [
            Side(self.town, each, f"-{self.count}{which}")
            for which, each in (("a", world), ("b", less))
        ]
        found = []
        for side in sides:
            side.settle()
            found.append(answers(side, self.client, self.secret, kept))
        self.told["removed"] += less != world
        self.told["fenced"] += any(each.fenced for each in less.grants)
        self.told["several pages"] += len(found[0]) > 2
        if any("person " in str(answer) for answer in found[0]):
            derived = world.operation is Operation.DERIVE
            other = "export" if world.channel in FORMATS else world.channel
            self.told["rollups" if derived else other] += 1
        return found[0], found[1]


@contextmanager
def pairs_on(url: str, folder: Path) -> Iterator[Pairs]:
    """A server on a database, for pairs of worlds."""
    with (
        patch.object(personal_stream, "BEAT_SECONDS", 0.02),
        patch.object(personal_stream, "REST_BEATS", 1),
        serving(Settings(database_url=url, data=folder, page_rows_max=50)) as served,
        psycopg.connect(url, autocommit=True) as connection,
        httpx.Client(timeout=30) as client,
    ):
        connection.execute("SET synchronous_commit = off")
        if is_native(connection):
            connection.execute("SELECT ensure_partition(%s)", (DAY,))
            connection.execute("SELECT ensure_partition(%s)", (DAY + timedelta(hours=12),))
        town = Town(served, connection)
        yield Pairs(town, client, town.keys.secret)


def try_pairs(check: Callable[[World], None], count: int) -> None:
    """Generate so many worlds."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(WORLDS)
    def tried(world: World) -> None:
        check(world)

    tried()


def run(scale: float = 1.0) -> Iterator[Result]:
    """On embedded PostgreSQL, and on TimescaleDB where there is one."""
    for label, database in databases().items():
        different: list[World] = []
        with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
            folder = Path(name)
            with database(folder) as url, pairs_on(url, folder / "data") as pairs:

                def check(
                    world: World, pairs: Pairs = pairs, different: list[World] = different
                ) -> None:
                    one, other = pairs.compare(world)
                    if one != other:
                        different.append(world)

                try_pairs(check, max(20, round(PAIRS * scale)))
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(pairs.told.items()))
        yield Result(
            f"worlds_different_{label}", len(different), "pairs",
            goal=Goal("value", maximum=0.0), note=f"{pairs.count:,} pairs; with rows: {told}",
        )  # fmt: skip
