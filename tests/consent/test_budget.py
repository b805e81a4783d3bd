"""The ledger of ε, and the noise that it pays for: exact samples, exact ratios."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

import domains
from consent import budget, releases
from consent.anonymity import Cell
from consent.budget import EPSILON_MAX, Account
from consent.counting import Counted, Plan
from consent.drafts import plan_of
from consent.noise import discrete_laplace
from core.errors import CityError

HEART = Account("health", "heart-rate")
DAY = datetime(2026, 3, 1, tzinfo=UTC) - timedelta(hours=9)
MASS_LEFT = Fraction(1, 10**6)


class Scripted:
    """A source of chance that repeats some choices, then stops at the next one, with its odds."""

    def __init__(self, script: tuple[int, ...]) -> None:
        self.script, self.used = script, 0

    def below(self, count: int) -> int:
        if self.used:
            raise StartedAgain
        return self._choose([Fraction(1, count)] * count)

    def happens(self, probability: Fraction) -> bool:
        return bool(self._choose([1 - probability, probability]))

    def _choose(self, odds: list[Fraction]) -> int:
        if self.used == len(self.script):
            raise Undecided(odds)
        chosen = self.script[self.used]
        self.used += 1
        return chosen


class StartedAgain(Exception):
    """The sampler threw away what it had: as if nothing had been."""


class Undecided(Exception):
    """The script has ended before the sample was there."""

    def __init__(self, odds: list[Fraction]) -> None:
        self.odds = odds


def distribution(scale: Fraction) -> tuple[dict[int, float], float]:
    """The probability of each sample, followed choice by choice; and what mass was not followed."""
    found: Counter[int] = Counter()
    left, again = Fraction(0), Fraction(0)
    open_ends: list[tuple[tuple[int, ...], Fraction]] = [((), Fraction(1))]
    while open_ends:
        script, mass = open_ends.pop()
        if mass < MASS_LEFT:
            left += mass
            continue
        try:
            found[discrete_laplace(scale, Scripted(script))] += mass  # type: ignore[assignment]
        except StartedAgain:
            again += mass
        except Undecided as undecided:
            for choice, odds in enumerate(undecided.odds):
                if odds:
                    open_ends.append(((*script, choice), mass * odds))
    return Counter({z: float(m / (1 - again)) for z, m in found.items()}), float(left / (1 - again))


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(2), Fraction(3, 2), Fraction(1, 2)])
def test_the_sampler_is_exact(scale: Fraction) -> None:
    """Followed through all its choices, it has the distribution that the proof is about."""
    found, left = distribution(scale)
    assert left < 0.01
    decay = math.exp(-1 / scale)
    for z in range(-3, 4):
        wanted = (1 - decay) / (1 + decay) * decay ** abs(z)
        assert found[z] <= wanted * (1 + 2 * left)
        assert wanted - found[z] <= 2 * left


def test_property_16_one_person_changes_no_probability_by_more_than_epsilon() -> None:
    """The ratio itself: of a count with and without someone, for every answer that may come."""
    for epsilon in (Fraction(1), Fraction(1, 2)):
        found, left = distribution(1 / epsilon)
        for answer in range(-2, 4):
            without, with_ = found[answer], found[answer - 1]
            assert with_ <= math.exp(epsilon) * (without + 2 * left)
            assert without <= math.exp(epsilon) * (with_ + 2 * left)


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(3), Fraction(48, 5)])
def test_samples_follow_the_distribution(scale: Fraction) -> None:
    """Dvoretzky, Kiefer, Wolfowitz: it fails by chance once in 10^9 runs."""
    count = 20_000
    most = math.sqrt(math.log(2 / 1e-9) / (2 * count))
    drawn = Counter(discrete_laplace(scale) for _ in range(count))
    decay = math.exp(-1 / scale)
    below, wanted_below = 0, 0.0
    for z in range(-200, 201):
        below += drawn[z]
        wanted_below += (1 - decay) / (1 + decay) * decay ** abs(z)
        assert abs(below / count - wanted_below) < most, z


def test_no_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        discrete_laplace(Fraction(0))


def noisy_plan(epsilon: str = "0.5", steps_max: int = 3, **changes: object) -> Plan:
    """Heart rates of a day by hour."""
    terms = {
        "property": "heart-rate", "purpose": "dpv:AcademicResearch", "resolution": "hour",
        "event_from": DAY.isoformat(), "event_to": (DAY + timedelta(days=1)).isoformat(),
        "k": 10, "mean": True, "bands": [60.0, 80.0], "clip": [40.0, 200.0], "squares": [],
        "epsilon": epsilon, "steps_max": steps_max, **changes,
    }  # fmt: skip
    return plan_of(domains.sector("health"), terms)


@given(
    own=st.lists(
        st.tuples(st.integers(0, 23), st.integers(0, 2), st.integers(0, 1600)),
        max_size=3,
        unique_by=lambda at: at[0],
    ),
    others=st.lists(
        st.tuples(st.integers(0, 23), st.integers(0, 2), st.integers(0, 1600)), max_size=30
    ),
)
@settings(max_examples=100, deadline=None)
def test_property_16_neighbours_differ_by_a_whole_series(
    own: list[tuple[int, int, int]], others: list[tuple[int, int, int]]
) -> None:
    """Whatever is of one person, all scales together: the log of the ratio is at most epsilon."""
    plan = noisy_plan()
    tables, scales = [], []

    def no_noise(scale: Fraction) -> int:
        scales.append(scale)
        return 0

    for seen in (others, others + own):
        told = dict(_numbers(plan, seen, no_noise))
        tables.append(told)
    half = len(scales) // 2
    assert scales[:half] == scales[half:], "how much noise there is tells nothing"
    assert len(scales) == 2 * 2 * 24 * 3, "each cell of the definition, empty or not, has noise"
    loss = Fraction(0)
    for key, (persons, total) in tables[1].items():
        loss += abs(persons - tables[0][key][0]) / scales[0]
        loss += abs(total - tables[0][key][1]) / scales[1]
    assert plan.epsilon is not None
    assert loss <= Fraction(plan.epsilon)


def _numbers(
    plan: Plan, seen: list[tuple[int, int, int]], noise: object
) -> list[tuple[object, tuple[int, int]]]:
    """Count and sum of every cell as the mechanism would tell them, whatever k is."""
    leaves: dict[datetime, list[Cell]] = {}
    paths = plan.paths()
    for hour in range(24):
        time = DAY + timedelta(hours=hour)
        for number, path in enumerate(paths):
            values = [v for h, n, v in seen if (h, n) == (hour, number)]
            if values:
                leaves.setdefault(time, []).append(Cell(path, len(values), sum(values)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(releases, "discrete_laplace", noise)
        releases.noisy(plan, Counted(1, (), leaves))
    found = {(t, c.path): (c.persons, c.total) for t, cells in leaves.items() for c in cells}
    return [(key, found.get(key, (0, 0))) for key in plan.domain()]


@pytest.fixture
def release(database_url: str) -> UUID:
    """A draft to debit for."""
    made = uuid4()
    with psycopg.connect(database_url) as connection:
        connection.execute(releases.INSERT_DEFINITION, {"id": made, "principal": "o",
                                                        "terms": Jsonb({})})  # fmt: skip
    return made


def test_property_16_the_ledger_only_rises(database_url: str, release: UUID) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE chimata_gate")
        connection.commit()
        for n in range(1, 4):
            budget.debit(connection, HEART, release, Decimal("0.7"))
            connection.commit()
            assert budget.spent(connection, HEART) == n * Decimal("0.7")
        with pytest.raises(CityError, match=r"0\.9 is left"):
            budget.debit(connection, HEART, release, Decimal("0.901"))
        connection.rollback()
        budget.debit(connection, HEART, release, Decimal("0.9"))
        connection.commit()
        assert budget.spent(connection, HEART) == EPSILON_MAX
        assert budget.spent(connection, Account("health", "steps")) == 0
        for change in (
            "UPDATE release.spent SET epsilon = 0.001",
            "DELETE FROM release.spent",
            "TRUNCATE release.spent",
            "INSERT INTO release.spent (release, population, recipient, data_set, epsilon) "
            "SELECT release, population, recipient, data_set, -1 FROM release.spent",
        ):
            with pytest.raises(psycopg.Error):
                connection.execute(change.encode())
            connection.rollback()
    denied = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with psycopg.connect(database_url) as connection, denied:
        connection.execute("DELETE FROM release.spent")


def test_property_16_debits_at_the_same_time_do_not_exceed_the_budget(
    database_url: str, release: UUID
) -> None:
    def debit(_: int) -> bool:
        try:
            with psycopg.connect(database_url) as connection:
                budget.debit(connection, HEART, release, Decimal("0.5"))
        except CityError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(debit, range(24)))
    assert sum(done) == 6
    with psycopg.connect(database_url) as connection:
        assert budget.spent(connection, HEART) == EPSILON_MAX
