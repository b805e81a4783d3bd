"""Acts in any order: what delegates granted stays within what is stated, by the log alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from consent.matching import Asked, Statement, Verdict, match
from consent.preferences import body_of
from consent.presets import PRESETS, SPACE
from consent.vocabulary import VERSION, Operation
from tests.consent.test_preferences import KIND_CODES, questions, statements

AI = 1
KINDS = dict(enumerate(KIND_CODES, 1))
"""Of recipients, by their numbers."""
MANDATES = {UUID(int=1): False, UUID(int=2): True}
"""Whether they are for data that require care, too."""
NOW = datetime.now(UTC)
WINDOW = f"[{NOW.isoformat()},{(NOW + timedelta(days=9)).isoformat()})"
KIND_IS = """
CREATE OR REPLACE FUNCTION consent.kind_of(of_recipient integer) RETURNS text LANGUAGE sql STABLE
AS $$ SELECT ('{{{}}}'::text[])[of_recipient] $$;
CREATE OR REPLACE FUNCTION consent.is_reviewed(recipient integer, purpose text, category text)
RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT true $$
"""
WRITE = "SELECT less FROM consent.write(%s, %s, 'bank', %s, %s)"
SELECT_LIVE = """
SELECT g.grant_id, g.recipient FROM consent.granted g JOIN consent.origin o USING (grant_id)
WHERE g.ended IS NULL AND o.delegated
"""
SELECT_STATE = """
SELECT (SELECT array_agg(p::text ORDER BY id) FROM consent.preference p),
       (SELECT array_agg(g::text ORDER BY g.sigma) FROM consent.granted g),
       (SELECT array_agg(m::text ORDER BY id) FROM consent.mandate m),
       (SELECT array_agg(o::text ORDER BY grant_id) FROM consent.origin o)
"""


@pytest.fixture(scope="module")
def store(module_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(module_database_url) as connection:
        connection.execute(KIND_IS.format(",".join(KINDS.values())).encode())
        for number in KINDS:
            said = {"key": f"r{number}", "title_ja": "r", "title_en": "r", "country": "JP"}
            connection.execute(WRITE, ("REGISTER", None, "operator", Jsonb(said)))
        said = {"key": "bank", "title_ja": "b", "title_en": "b"}
        connection.execute(WRITE, ("REGISTER_DELEGATE", None, "operator", Jsonb(said)))
        yield connection


@dataclass
class Said:
    """What was said, as plain Python."""

    preferences: dict[UUID, Statement] = field(default_factory=dict)
    preset: tuple[Statement, ...] = ()
    mandates: set[UUID] = field(default_factory=set)
    grants: dict[str, tuple[UUID, Asked]] = field(default_factory=dict)
    """Live ones."""

    def allows(self, asked: Asked) -> bool:
        found = match([*self.preferences.values(), *self.preset], asked)
        return found.verdict is Verdict.ALLOW and found.level == asked.level

    def settle(self) -> set[str]:
        """End what is not allowed any more; which grants."""
        gone = {
            name
            for name, (mandate, asked) in self.grants.items()
            if mandate not in self.mandates or not self.allows(asked)
        }
        for name in gone:
            del self.grants[name]
        return gone


acts = st.one_of(
    st.tuples(st.just("PREFER"), st.integers(1, 3), statements),
    st.tuples(st.just("UNPREFER"), st.integers(1, 3), st.none()),
    st.tuples(st.just("PRESET"), st.sampled_from(list(PRESETS)), st.none()),
    st.tuples(st.just("DELEGATE"), st.sampled_from(list(MANDATES)), st.none()),
    st.tuples(st.just("UNDELEGATE"), st.sampled_from(list(MANDATES)), st.none()),
    st.tuples(st.just("GRANT"), st.sampled_from(list(MANDATES)), questions),
    st.tuples(st.just("GRANT"), st.sampled_from(list(MANDATES)), questions),
)


class Bank:
    """Writes acts to the log, and to the plain model."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection, self.said, self.count = connection, Said(), 0

    def live(self) -> dict[str, int]:
        return {str(name): r for name, r in self.connection.execute(SELECT_LIVE).fetchall()}

    def write(self, act: str, body: dict[str, Any], kind: str = "self") -> list[int] | None:
        """The recipients who see less; None: refused."""
        try:
            with self.connection.transaction():
                row = self.connection.execute(WRITE, (act, AI, kind, Jsonb(body))).fetchone()
        except (psycopg.errors.IntegrityError, psycopg.errors.NoDataFound):
            return None
        assert row is not None
        return list(row[0])

    def do(self, act: str, name: Any, more: Any) -> None:
        before = self.live()
        less = getattr(self, act.lower())(name, more)
        gone = self.said.settle()
        after = self.live()
        assert set(after) == set(self.said.grants)
        assert {before[each] for each in gone if each in before} <= set(less or [])

    def prefer(self, number: int, said: Statement) -> list[int] | None:
        if said.verdict is Verdict.REFUSE:
            said = replace(said, level=0, operations=None, countries=None)
        said = replace(said, id=UUID(int=number))
        self.said.preferences[said.id] = said
        return self.write("PREFER", body_of(said))

    def unprefer(self, number: int, _: None) -> list[int] | None:
        known = self.said.preferences.pop(UUID(int=number), None)
        less = self.write("UNPREFER", {"preference": str(UUID(int=number))})
        assert (less is None) == (known is None)
        return less

    def preset(self, name: str, _: None) -> list[int] | None:
        self.said.preset = PRESETS[name].of(AI)
        stated = [body_of(each) for each in self.said.preset]
        return self.write("PRESET", {"preset": name, "statements": stated})

    def delegate(self, mandate: UUID, _: None) -> list[int] | None:
        body = {"mandate": str(mandate), "delegate": "bank", "special": MANDATES[mandate],
                "valid": WINDOW, "version": VERSION}  # fmt: skip
        less = self.write("DELEGATE", body)
        if less is not None:
            self.said.mandates.add(mandate)
        return less

    def undelegate(self, mandate: UUID, _: None) -> list[int] | None:
        less = self.write("UNDELEGATE", {"mandate": str(mandate)})
        assert (less is not None) == (mandate in self.said.mandates)
        self.said.mandates.discard(mandate)
        return less

    def grant(self, mandate: UUID, asked: Asked) -> list[int] | None:
        if asked.kind is None:
            return None
        self.count += 1
        name = str(uuid5(SPACE, f"{self.count}"))
        number = next(n for n, kind in KINDS.items() if kind == asked.kind)
        body = {
            "grant": name, "mandate": str(mandate), "recipient": number, "purpose": asked.purpose,
            "category": asked.category, "operation": asked.operation.value, "event": WINDOW,
            "valid": WINDOW, "level": asked.level, "countries": list(asked.countries),
            "notice": "00" * 32,
        }  # fmt: skip
        less = self.write("GRANT", body, "delegate")
        special = asked.category in ("pd:MedicalHealth", "pd:Health", "pd:Genetic",
                                     "chimata:HeartRate")  # fmt: skip
        permitted = (
            mandate in self.said.mandates
            and (MANDATES[mandate] or not special)
            and self.said.allows(asked)
        )
        assert (less is not None) == permitted
        if permitted:
            self.said.grants[name] = (mandate, asked)
            event("granted")
        return less


EASY = (
    ("DELEGATE", UUID(int=2), None),
    ("PREFER", 3, Statement(UUID(int=3), Verdict.ALLOW)),
    (
        "GRANT",
        UUID(int=2),
        Asked("dpv:PublicBenefit", "pd:Location", KIND_CODES[0], Operation.READ, 0, ("JP",)),
    ),
)
"""What each run begins with: else most have nothing to take back."""


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(acts, min_size=1, max_size=12))
def test_property_19_what_delegates_granted_stays_within_what_is_stated(
    store: psycopg.Connection[Any], said: list[tuple[str, Any, Any]]
) -> None:
    """After each act, the live grants are those that the plain model allows; so after a replay."""
    with store.transaction(force_rollback=True):
        bank = Bank(store)
        for act, name, more in (*EASY, *said):
            bank.do(act, name, more)
        before = store.execute(SELECT_STATE).fetchone()
        store.execute("SELECT consent.replay()")
        assert store.execute(SELECT_STATE).fetchone() == before
