"""A soak's load says which row is which, its plan repeats, its comparison finds what is wrong."""

from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from core.errors import CityError
from core.settings import Settings
from deploy.soak import command, faults, load, verify
from deploy.soak.load import BLOCK, Load
from ingest.pipeline import Raw
from tests.ingest.helpers import running

START_US = 1_700_000_000_000_000
BLOCKS = 6
LOOSE = 70


@profile(deadline=None)
@given(
    seed=st.integers(0, 9),
    rows=st.integers(1, 700),
    seq=st.integers(0, 100_000),
    lag=st.integers(1, 80),
)
def test_a_row_is_found_by_its_stream_and_time(seed: int, rows: int, seq: int, lag: int) -> None:
    made = Load(seed, "soak-1", START_US, rows, lag)
    own = made.rows_of(seq)
    streams = own % load.STREAMS
    assert made.find(streams, made.times(own)).tolist() == own.tolist()
    nowhere = made.find(streams, made.times(own) + 1_000 * 7)
    assert (nowhere == -1).all()


@profile(max_examples=10, deadline=None)
@given(number=st.integers(0, 10_000))
def test_a_block_is_the_same_each_time_and_holds_each_sequence_once(number: int) -> None:
    made = Load(1, "soak-1", START_US, 8, 2)
    block = made.block(number)
    assert block == made.block(number)
    assert sorted(batch.seq for batch in block) == list(range(number * BLOCK, (number + 1) * BLOCK))


def test_a_plan_is_the_same_for_a_seed() -> None:
    first, again = (faults.plan(7, 300, 20, faults.GROUPS) for _ in range(2))
    assert first == again != faults.plan(8, 300, 20, faults.GROUPS)
    assert sum(faults.FAULTS[each.fault].group == "kill" for each in first) == 20
    assert {each.fault for each in first} == set(faults.FAULTS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (command.Options(via="pigeon"), "--via"),
        (command.Options(via="kafka"), "--kafka"),
        (command.Options(rate=0), "--minutes"),
        (command.Options(faults=("flood",)), "--faults"),
    ],
)
def test_options_that_make_no_sense_are_named(options: command.Options, named: str) -> None:
    with pytest.raises(CityError, match=named):
        command.run(options)


# -- the comparison -------------------------------------------------------------------------------


def stored(url: str) -> Load:
    """A load of some blocks and loose messages, in a database."""
    made = Load(3, "soak-3", START_US, 10, 2)
    raws = [
        Raw("test", batch.sector, made.gateway, batch.format, batch.payload, batch.boot,
            str(batch.seq))
        for number in range(BLOCKS) for batch in made.block(number)
    ]  # fmt: skip
    raws += [Raw("test", "edge", made.gateway, "json", made.loose(n)) for n in range(LOOSE)]
    with running(Settings(database_url=url, batch_seconds_max=0.01)) as channel:
        for raw in raws:
            assert channel.pipeline.submit(raw)
        channel.outcomes(len(raws))
    return made


def compared(url: str, made: Load) -> verify.Compared:
    found = verify.Compared()
    verify.compare(url, made, BLOCKS, LOOSE, loose_has_receipts=True, into=found)
    return found


ANY = (
    "(SELECT min(ctid) FROM observation WHERE append_id = (SELECT min(append_id) FROM observation))"
)
DAMAGES: dict[str, tuple[str, Callable[[verify.Compared], int]]] = {
    "lost": (f"DELETE FROM observation WHERE ctid = {ANY}", lambda found: found.lost),
    "twice": (f"INSERT INTO observation SELECT * FROM observation WHERE ctid = {ANY}",
              lambda found: found.twice),
    "wrong": (f"UPDATE observation SET result = result - 1 WHERE ctid = {ANY}",
              lambda found: found.wrong),
    "foreign": (f"UPDATE observation SET phenomenon_time = phenomenon_time + interval '7 ms'"
                f" WHERE ctid = {ANY}",
                lambda found: found.foreign),
    "unrejected": ("DELETE FROM rejection WHERE seq = 14", lambda found: found.unrejected),
    "miscounted": ("UPDATE account SET stored = stored + 1", lambda found: found.miscounted),
}  # fmt: skip


def test_the_comparison_finds_every_damage_and_nothing_else(database_url: str) -> None:
    made = stored(database_url)
    whole = compared(database_url, made)
    assert whole.faults() == [], whole.examples
    assert whole.sent == whole.stored > BLOCKS * 100
    assert whole.corrected == (BLOCKS - 2) * 10
    for damage, (statement, counted) in DAMAGES.items():
        with psycopg.connect(database_url) as connection:
            table = connection.execute(statement)
            assert table.rowcount > 0, damage
            connection.commit()
        found = compared(database_url, made)
        assert counted(found) > 0, damage
        assert found.faults()
