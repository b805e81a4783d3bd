"""Sets of spans behave as the sets of integers that they stand for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from core.spans import Span, inward, minus, outward, union, within

SPANS = st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), max_size=8)


def members(spans: list[Span]) -> set[int]:
    return {n for lower, upper in spans for n in range(lower, upper)}


@given(SPANS, SPANS, st.integers(1, 20))
def test_they_are_sets(a: list[Span], b: list[Span], width: int) -> None:
    joined, taken = union(a, b), union(b)
    assert members(joined) == members(a) | members(b)
    assert all(x[1] < y[0] for x, y in pairwise(joined))
    assert members(minus(union(a), taken)) == members(a) - members(b)
    assert members(within(a, -5, 9)) == members(a) & set(range(-5, 9))
    buckets = {n // width for n in members(a)}
    assert members(outward(union(a), width)) == {
        n for n in range(-200, 200) if n // width in buckets
    }
    whole = {k for k in buckets if set(range(k * width, (k + 1) * width)) <= members(a)}
    assert members(inward(union(a), width)) == {n for n in range(-200, 200) if n // width in whole}
