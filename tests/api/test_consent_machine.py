"""Consent over the real server: what recipients get is what the naive oracle says, act by act."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

import domains
from consent.levels import LEVELS
from consent.masks import Mask
from core.settings import Settings
from core.tokens import Role
from tests.api.conftest import serving
from tests.api.town import DAY, PATH, Town, iso
from tests.consent.oracle import EVER, Ask, Grant, Objection, Oracle, Row
from tests.consent.places import AREAS, PLACES, geojson

PERSONS = ("ai", "ken", "mio")
RECIPIENTS = ("clinic", "gym")
THINGS = ("band", "scale")
PROPERTIES = ("heart-rate", "body-weight", "steps")
PURPOSE_CODES = (
    "dpv:ServiceManagement", "dpv:ServicePersonalisation",
    "dpv:ProvidePersonalisedRecommendations", "health:ServiceProvision",
)  # fmt: skip
CATEGORY_CODES = (
    "pd:MedicalHealth", "pd:PhysicalHealth", "chimata:VitalSign", "chimata:HeartRate",
    "health:PersonGeneratedHealthData",
)  # fmt: skip
BY = st.sampled_from([None, None, "mio", "ken"])
"""Who acts for a person: itself, or another who may or may not."""
RESCUE = "infra:CriticalEmergencyResponseManagement"


class Machine(RuleBasedStateMachine):
    """People, recipients and devices do anything; each read agrees with the oracle."""

    town: Town
    shown: list[int]
    """How many answers had rows at all, and how many had reduced ones."""
    values = itertools.count(1)
    names = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        # One database for all runs: each run has people, recipients and devices of its own.
        self.mark = f"-{next(self.values)}"
        self.oracle = Oracle(
            categories={
                p.name: str(p.category) for p in domains.sector("health").properties if p.category
            }
        )
        self.before: dict[Ask, set[float]] = {}
        self.guardianships: dict[tuple[str, str], str] = {}

    @initialize(
        target=names,
        cut=st.integers(1, 10),
        seconds=st.lists(st.integers(0, 4 * 3600), min_size=6, max_size=12, unique=True),
    )
    def begin(self, cut: int, seconds: list[int]) -> MultipleResults[str]:
        """Two recipients, a band that changes hands, a scale of two persons, readings, grants."""
        for recipient in RECIPIENTS:
            self.move(recipient, "JP")
        self.bind("band", {"ai"}, 0, cut)
        self.bind("band", {"ken"}, cut, 12 - cut)
        self.bind("scale", {"ai", "mio"}, 0, 12)
        for thing, prop in (("band", "heart-rate"), ("band", "steps"), ("scale", "body-weight")):
            self.observe(thing, prop, seconds)
        for minute in (0, 60):
            self.travel("band", minute, ["ward"] * 8 + ["town", "abroad", "ward"], 4)
        for of in (None, "clinic"):
            self.file(of, True)
        self.guard("ai", "mio", False)
        purpose, category = PURPOSE_CODES[0], CATEGORY_CODES[0]
        return multiple(
            *(
                self.grant(person, "clinic", purpose, category, (0, 9), "now", level, True, area)
                for person, level, area in (("ai", 0, None), ("mio", 2, None), ("ken", 1, "town"))
            )
        )

    @rule(recipient=st.sampled_from(RECIPIENTS), country=st.sampled_from(["JP", "US", None]))
    def move(self, recipient: str, country: str | None) -> None:
        """Register, move abroad, or suspend."""
        key = recipient + self.mark
        if country is None:
            path = f"/v1/recipients/{key}"
            assert self.town.send("DELETE", path, Role.OPERATOR, "o").status_code == 200
        else:
            assert self.town.register(key, country).status_code == 200
        self.oracle.countries[recipient] = country
        self.oracle.acts += 1
        self.before.clear()

    @rule(of=st.sampled_from([None, *RECIPIENTS]), passed=st.booleans())
    def file(self, of: str | None, passed: bool) -> None:
        """Check what is written of the United States or of a recipient there, or begin a file."""
        key = of and of + self.mark
        # Of the country there is one file in all runs: each of them begins by writing it anew.
        known = self.oracle.files.get(("US", of))
        if known is None:
            assert self.town.file("US", key).status_code == 200
        else:
            assert self.town.check("US", key, passed=passed).status_code == 200
        self.oracle.acts += 1
        since = known[0] if known else self.oracle.acts if of else 0
        self.oracle.files["US", of] = since, known is None or passed
        self.before.clear()

    @rule(
        ward=st.sampled_from(["ai", "ai", "ken"]),
        guardian=st.sampled_from(["mio", "ken", "rin"]),
        ends=st.booleans(),
    )
    def guard(self, ward: str, guardian: str, ends: bool) -> None:
        """Become a guardian, or be one no longer: its grants end, its objections bind no more."""
        if ward == guardian or ends != ((ward, guardian) in self.oracle.guardians):
            return
        self.oracle.acts += 1
        self.before.clear()
        if not ends:
            adult = {"kind": "guardian-of-adult", "born": None}
            name = self.town.guard(ward + self.mark, guardian + self.mark, **adult)
            self.guardianships[ward, guardian] = name
            self.oracle.guardians.add((ward, guardian))
            return
        path = f"/v1/consent/guardianships/{self.guardianships[ward, guardian]}"
        assert self.town.send("DELETE", path, Role.OPERATOR, "o").status_code == 200
        self.oracle.guardians.remove((ward, guardian))
        voice = self.guardianships[ward, guardian]
        for grant in self.oracle.grants.values():
            grant.live = grant.live and grant.voice != voice
        for objection in self.oracle.objections:
            if objection.voice == voice:
                objection.until = min(objection.until, self.oracle.acts)

    def acting(self, person: str, by: str | None) -> tuple[str | None, bool]:
        """In whose voice someone acts for a person, and whether it may."""
        if by is None or by == person:
            return None, True
        return self.guardianships.get((person, by)), (person, by) in self.oracle.guardians

    def token(self, person: str, by: str | None) -> str | None:
        return None if by is None or by == person else by + self.mark

    @rule(
        things=st.sets(st.sampled_from(THINGS), min_size=1),
        category=st.sampled_from(CATEGORY_CODES),
        window=st.tuples(st.integers(0, 14000), st.integers(1, 8000)),
    )
    def emergency(self, things: set[str], category: str, window: tuple[int, int]) -> None:
        """Read without consent, while two operators say so and no longer."""
        if self.oracle.countries["clinic"] is None:
            return
        span = DAY + timedelta(seconds=window[0]), DAY + timedelta(seconds=sum(window))
        asked = {"purpose": RESCUE, "category": "pd:MedicalHealth"}
        path = f"{PATH}?{httpx.QueryParams(asked)}"
        recipient = "clinic" + self.mark
        proposed = self.town.propose(
            recipient, category=category, event_from=iso(span[0]), event_to=iso(span[1]),
            things=sorted(thing + self.mark for thing in things),
        )  # fmt: skip
        assert proposed.status_code == self.town.approve().status_code == 200
        answer = self.town.send("GET", path, Role.RESPONDER, recipient)
        assert answer.status_code == 200
        got = sorted(row["result"] for row in answer.json()["observations"])
        assert got == sorted(r.value for r in self.oracle.emergency(things, category, span))[:50]
        assert self.town.end_override().status_code == 200
        assert self.town.send("GET", path, Role.RESPONDER, recipient).status_code == 403

    @rule(
        thing=st.sampled_from(THINGS),
        persons=st.sets(st.sampled_from(PERSONS), min_size=1, max_size=2),
        begin=st.integers(0, 8),
        length=st.integers(1, 8),
    )
    def bind(self, thing: str, persons: set[str], begin: int, length: int) -> None:
        window = (
            DAY + timedelta(minutes=20 * begin),
            DAY + timedelta(minutes=20 * (begin + length)),
        )
        done = self.town.bind(thing + self.mark, [p + self.mark for p in persons], window)
        taken = any(
            bound == thing and window[0] < other[1] and other[0] < window[1]
            for bound, _, other in self.oracle.bindings
        )
        assert bool(done) != taken, "a moment of a Thing is bound once"
        if done:
            self.oracle.bindings.append((thing, frozenset(persons), window))
            self.before.clear()

    @rule(
        thing=st.sampled_from(THINGS),
        prop=st.sampled_from(PROPERTIES),
        seconds=st.lists(st.integers(0, 4 * 3600), min_size=1, max_size=5),
    )
    def observe(self, thing: str, prop: str, seconds: list[int]) -> None:
        """Late, early, in any order: whom it describes is fixed by its own time."""
        for second in seconds:
            row = Row((thing, prop), DAY + timedelta(seconds=second), float(next(self.values)))
            if any((r.stream, r.time) == (row.stream, row.time) for r in self.oracle.rows):
                continue
            self.oracle.rows.append(row)
            self.town.store(Row((thing + self.mark, prop), row.time, row.value))
        self.before.clear()  # there is more to see

    @rule(
        thing=st.sampled_from(THINGS),
        minute=st.integers(0, 200),
        places=st.lists(st.sampled_from(list(PLACES)), min_size=1, max_size=12),
        minutes=st.sampled_from([1, 3, 5, 6]),
    )
    def travel(self, thing: str, minute: int, places: list[str], minutes: int) -> None:
        """Be seen at places, one after another."""
        track = self.oracle.tracks.setdefault(thing, {})
        for number, place in enumerate(places):
            time = DAY + timedelta(minutes=minute + number * minutes)
            if time not in track:
                track[time] = PLACES[place]
                self.town.see(thing + self.mark, time, PLACES[place])
        self.before.clear()

    @rule(thing=st.sampled_from(THINGS), place=st.sampled_from(list(PLACES)))
    def stand(self, thing: str, place: str) -> None:
        """Be somewhere: it counts for what does not move."""
        self.oracle.places[thing] = PLACES[place]
        self.town.stand(thing + self.mark, PLACES[place])
        self.before.clear()

    @rule(
        target=names,
        person=st.sampled_from(PERSONS),
        recipient=st.sampled_from(RECIPIENTS),
        purpose=st.sampled_from(PURPOSE_CODES),
        category=st.sampled_from(["pd:MedicalHealth", *CATEGORY_CODES]),
        event=st.tuples(st.integers(0, 4), st.integers(2, 10)),
        valid=st.sampled_from(["now", "now", "now", "past", "future"]),
        level=st.integers(0, 3),
        abroad=st.booleans(),
        area=st.sampled_from([None, None, *AREAS]),
        by=BY,
    )
    def grant(
        self, person: str, recipient: str, purpose: str, category: str, event: tuple[int, int],
        valid: str, level: int, abroad: bool, area: str | None, by: str | None = None,
    ) -> str:  # fmt: skip
        name = str(uuid4())
        now = datetime.now(UTC)
        window = (DAY + timedelta(minutes=25 * event[0]), DAY + timedelta(minutes=25 * sum(event)))
        years = timedelta(days=400)
        span = {"now": (now - years, now + years), "past": (EVER[0], now - years),
                "future": (now + years, EVER[1])}[valid]  # fmt: skip
        countries = ("JP", "US") if abroad else ("JP",)
        granted = Grant(
            person,
            recipient,
            purpose,
            category,
            window,
            span,
            level,
            countries,
            self.oracle.acts + 1,
            areas=(AREAS[area],) if area else (),
        )
        granted.voice, may = self.acting(person, by)
        if granted.voice is not None and valid == "past":
            return name  # before it was a guardian's to say
        answer = self.put(name, granted, by)
        if not may:
            assert answer.status_code == 403
            return name
        if self.oracle.countries[recipient] is None:
            assert answer.status_code == 422, "a suspended recipient is granted nothing"
            return name
        assert answer.status_code == 200, answer.text
        self.oracle.acts += 1
        self.oracle.grants[name] = granted
        self.before.clear()
        return name

    def put(self, name: str, grant: Grant, by: str | None) -> httpx.Response:
        return self.town.grant(
            grant.person + self.mark, name, self.token(grant.person, by),
            recipient=grant.recipient + self.mark,
            purpose=grant.purpose, category=grant.category, event_from=iso(grant.event[0]),
            event_to=iso(grant.event[1]), valid_from=iso(grant.valid[0]),
            valid_to=iso(grant.valid[1]), resolution=LEVELS[grant.level].name,
            countries=list(grant.countries), area=geojson(grant.areas[-1]) if grant.areas else None,
        )  # fmt: skip

    @rule(
        name=names, cut=st.integers(0, 3), level=st.integers(0, 3), by=BY,
        area=st.sampled_from(["same", "same", "none", *AREAS]),
    )  # fmt: skip
    def narrow(self, name: str, cut: int, level: int, area: str, by: str | None) -> None:
        """Less time, space or detail is taken, more is refused; the same again is no act."""
        if name not in self.oracle.grants:
            return
        before = self.oracle.grants[name]
        begin = before.event[0] + timedelta(minutes=10 * cut)
        areas = before.areas
        if area != "same":
            said = (AREAS[area],) if area != "none" else ()
            areas = areas if said == areas[-1:] else areas + said if said else ()
        wider = before.areas and not (areas and before.areas[-1].covers(areas[-1]))
        after = self.oracle.narrowed(name, event=(begin, before.event[1]), level=level, areas=areas)
        answer = self.put(name, after, by)
        if not self.acting(before.person, by)[1]:
            assert answer.status_code == 403
        elif not before.live:
            assert answer.status_code == 409
        elif begin >= before.event[1] or self.oracle.countries[before.recipient] is None:
            assert answer.status_code == 422
        elif level < before.level or wider:
            assert answer.status_code == 409
        else:
            assert answer.status_code == 200, answer.text
            self.oracle.acts += after != before
            self.oracle.grants[name] = after

    @rule(name=names, again=st.booleans(), by=BY)
    def revoke(self, name: str, again: bool, by: str | None) -> None:
        """By the person or a guardian, whoever gave it."""
        if name not in self.oracle.grants:
            return
        grant = self.oracle.grants[name]
        may = self.acting(grant.person, by)[1]
        for _ in range(1 + again):
            ended = self.town.revoke(grant.person + self.mark, name, self.token(grant.person, by))
            assert ended.status_code == (200 if may else 403)
        if may and grant.live:
            self.oracle.acts += 1
            self.oracle.revoke(name)

    @precondition(lambda self: len(self.oracle.grants) > 2)
    @rule(
        person=st.sampled_from(PERSONS),
        recipient=st.sampled_from([None, *RECIPIENTS]),
        purpose=st.sampled_from([None, *PURPOSE_CODES]),
        by=BY,
    )
    def object(
        self, person: str, recipient: str | None, purpose: str | None, by: str | None
    ) -> None:
        if recipient is not None and self.oracle.countries[recipient] is None:
            return
        voice, may = self.acting(person, by)
        answer = self.town.object(
            person + self.mark, recipient and recipient + self.mark, purpose, self.token(person, by)
        )
        assert answer.status_code == (200 if may else 403), answer.text
        if may:
            self.oracle.acts += 1
            said = Objection(self.oracle.acts, person, recipient, purpose, voice)
            self.oracle.objections.append(said)

    @rule(
        name=names,
        purpose=st.sampled_from([None, None, *PURPOSE_CODES]),
        category=st.sampled_from([None, *CATEGORY_CODES]),
        window=st.one_of(st.none(), st.tuples(st.integers(0, 14000), st.integers(1, 8000))),
        limit=st.sampled_from([1, 3, 50]),
    )
    def read(
        self,
        name: str,
        purpose: str | None,
        category: str | None,
        window: tuple[int, int] | None,
        limit: int,
    ) -> None:
        """As the recipient of some grant, for what it says or for something else."""
        if name not in self.oracle.grants:
            return
        grant = self.oracle.grants[name]
        self.compare(
            grant.recipient, purpose or grant.purpose, category or grant.category, window, limit
        )

    def compare(
        self,
        recipient: str,
        purpose: str,
        category: str,
        window: tuple[int, int] | None,
        limit: int,
    ) -> None:
        span = EVER
        query = {"purpose": purpose, "category": category}
        if window:
            span = DAY + timedelta(seconds=window[0]), DAY + timedelta(seconds=sum(window))
            query |= {"from": span[0].isoformat(), "to": span[1].isoformat()}
        if self.oracle.countries[recipient] is None:
            path = f"{PATH}?{httpx.QueryParams(query)}"
            answer = self.town.send("GET", path, Role.RECIPIENT, recipient + self.mark)
            assert answer.status_code == 403
            return
        ask = Ask(recipient, purpose, category, span, datetime.now(UTC))
        got = self.town.ask(recipient + self.mark, limit, **query)
        expected = self.oracle.answer(ask)
        mask = Mask(self.town.keys.secret, recipient + self.mark)
        names = {t: mask.thing(t + self.mark) for t in THINGS}
        assert sorted(
            (r["thing"], r["property"], r["resolution"], r["phenomenon_time"], r["result"])
            for r in got
        ) == sorted(
            (names[s[0]], s[1], LEVELS[level].name, time.isoformat().replace("+00:00", "Z"), value)
            for s, level, time, value in expected
        )
        persons = {(r["result"], tuple(sorted(r["persons"]))) for r in got}
        assert persons == {
            (value, self.who(mask, stream, value)) for stream, _, _, value in expected
        }
        # Acts that take back show nothing that was not seen before.
        self.shown[0] += bool(expected)
        self.shown[1] += any(level for _, level, _, _ in expected)
        key = Ask(recipient, purpose, category, span, datetime.min)
        seen = {value for _, _, _, value in expected}
        if key in self.before:
            assert seen <= self.before[key]
        self.before[key] = seen

    def who(self, mask: Mask, stream: tuple[str, str], value: float) -> tuple[str, ...]:
        """The persons of a row, as its recipient knows them."""
        row = next(r for r in self.oracle.rows if (r.stream, r.value) == (stream, value))
        persons = next(
            persons
            for thing, persons, window in self.oracle.bindings
            if thing == stream[0] and window[0] <= row.time < window[1]
        )
        return tuple(sorted(mask.person(self.town.number(p + self.mark)) for p in persons))

    @invariant()
    def agrees(self) -> None:
        """After every act, what each recipient gets for the highest and the lowest purpose."""
        for recipient, purpose in itertools.product(
            RECIPIENTS, (PURPOSE_CODES[0], PURPOSE_CODES[2])
        ):
            if recipient in self.oracle.countries:
                self.compare(recipient, purpose, "pd:MedicalHealth", None, 50)

    def teardown(self) -> None:
        """Property 21: the log says everything that the state does."""
        connection = self.town.connection
        tables = connection.execute("SELECT name FROM consent.folded ORDER BY number").fetchall()
        queries = [f"SELECT t::text FROM consent.{table} t ORDER BY 1" for (table,) in tables]
        before = [connection.execute(query.encode()).fetchall() for query in queries]
        acts = connection.execute("SELECT count(*), max(sigma) FROM consent.log").fetchone()
        assert acts is not None
        assert acts[0] == (acts[1] or 0)
        assert connection.execute("SELECT consent.replay()").fetchone() == acts[:1]
        assert [connection.execute(query.encode()).fetchall() for query in queries] == before


@pytest.fixture
def any_town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """A town on either kind of server."""
    with (
        serving(Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)) as served,
        psycopg.connect(storage_url, autocommit=True) as connection,
    ):
        yield Town(served, connection)


def test_whatever_people_do_each_read_is_what_the_oracle_says(any_town: Town) -> None:
    """Properties 1 to 4, 7 to 9, 17, 18, 20, 21, in any order of acts, late rows and reads."""
    shown = [0, 0]
    machine = type("Machine", (Machine,), {"town": any_town, "shown": shown})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            phases=[Phase.generate],
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert min(shown) > 10, "nothing was permitted: this tested next to nothing"
