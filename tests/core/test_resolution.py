"""Declared resolution: what is stored is short, and what is served is the decimal that came."""

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.resolution import DECIMALS_MAX, NOISE, UNDECLARED, groomed, served

decimals = st.integers(0, DECIMALS_MAX)
results = st.floats(allow_nan=False, allow_infinity=False)


def as_stored(result: float, places: int) -> float:
    return float(groomed(np.array([result]), np.array([places], np.int8))[0])


def as_served(result: float, places: int) -> float:
    return float(served(np.array([result]), np.array([places], np.int8))[0])


@settings(max_examples=500, deadline=None)
@given(st.integers(-(10**13) + 1, 10**13 - 1), decimals)
def test_a_decimal_comes_back_as_it_was(digits: int, places: int) -> None:
    meant = float(f"{digits}e-{places}")
    assert as_served(as_stored(meant, places), places) == meant


@settings(max_examples=500, deadline=None)
@given(results, decimals)
def test_a_result_with_more_digits_comes_back_but_for_noise(result: float, places: int) -> None:
    told = as_served(as_stored(result, places), places)
    assert abs(told - result) <= NOISE * abs(result)


@settings(max_examples=500, deadline=None)
@given(st.integers(-(2**40), 2**40), st.integers(0, 40), decimals)
def test_a_binary_fraction_is_not_taken_for_a_decimal(numerator: int, bits: int, d: int) -> None:
    result = numerator / 2**bits
    assert as_served(as_stored(result, d), d) == result


@given(results)
def test_an_undeclared_resolution_keeps_every_bit(result: float) -> None:
    assert as_stored(result, UNDECLARED) == result
    assert as_served(result, UNDECLARED) == result


def test_what_is_stored_of_decimals_ends_in_zeros() -> None:
    meant = np.arange(0, 50, 0.1)
    stored = groomed(meant, np.full(len(meant), 1, np.int8))
    assert not (stored.view(np.int64) & (2**40 - 1)).any()
    assert (meant.view(np.int64) & (2**40 - 1)).any()


@pytest.fixture(scope="module")
def samples() -> list[tuple[float, int | None]]:
    rng = np.random.default_rng(0)
    wide = np.concatenate([rng.normal(0, 10.0**e, 40) for e in range(-9, 16)])
    return [(float(x), None if d < 0 else int(d)) for x in wide for d in (-1, 0, 1, 3, 9)]


def test_sql_serves_the_same(database_url: str, samples: list[tuple[float, int | None]]) -> None:
    stored = [(as_stored(x, UNDECLARED if d is None else d), d) for x, d in samples]
    with psycopg.connect(database_url) as connection:
        told = connection.execute(
            "SELECT served(n.x, n.d) FROM unnest(%s::float8[], %s::smallint[])"
            " WITH ORDINALITY AS n (x, d, i) ORDER BY n.i",
            (*map(list, zip(*stored, strict=True)),),
        ).fetchall()
    expected = [as_served(x, UNDECLARED if d is None else d) for x, d in stored]
    assert [row[0] for row in told] == expected
