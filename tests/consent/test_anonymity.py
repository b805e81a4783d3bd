"""Suppression against exact linear algebra: what is released isolates no fewer than k persons."""

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from consent import counting
from consent.anonymity import DOMINANCE_PERCENT, Cell, Path, is_safe, release, rests

Table = dict[Path, frozenset[int]]
"""The persons of each leaf."""


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """At most 10 persons in a tree of three depths, of which some leaves lie higher than others."""
    paths = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "1"), ("b", "2"), ("c",)]
    where = draw(st.lists(st.sampled_from(paths), max_size=10))
    return {p: frozenset(n for n, at in enumerate(where) if at == p) for p in set(where)}


def leaves(table: Table, values: dict[int, int] | None = None) -> list[Cell]:
    """As the database counts them."""
    found = []
    for path, persons in table.items():
        given_ = sorted(((values or {}).get(n, 0) for n in persons), reverse=True)
        found.append(Cell(path, len(persons), sum(given_), tuple(given_[:2])))
    return found


def persons_of(cell: Cell, table: Table) -> frozenset[int]:
    below = (who for path, who in table.items() if path[: len(cell.path)] == cell.path)
    return frozenset(itertools.chain.from_iterable(below))


def rank(rows: Iterable[Sequence[int]]) -> int:
    """Of a matrix, exactly."""
    matrix = [[Fraction(value) for value in row] for row in rows]
    found = 0
    for column in range(len(matrix[0]) if matrix else 0):
        pivot = next((r for r in range(found, len(matrix)) if matrix[r][column]), None)
        if pivot is None:
            continue
        matrix[found], matrix[pivot] = matrix[pivot], matrix[found]
        for row in range(found + 1, len(matrix)):
            factor = matrix[row][column] / matrix[found][column]
            matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[found], strict=True)]
        found += 1
    return found


def isolated(released: Sequence[frozenset[int]], everyone: int, k: int) -> list[tuple[int, ...]]:
    """Every set of fewer than k persons on whom alone some combination of released cells depends.

    There is one exactly if without the columns of these persons the matrix loses rank.
    """
    rows = [[int(n in persons) for n in range(everyone)] for persons in released]
    full = rank(rows)
    return [
        few
        for size in range(1, k)
        for few in itertools.combinations(range(everyone), size)
        if rank([[v for n, v in enumerate(row) if n not in few] for row in rows]) < full
    ]


@given(tables(), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_property_15_no_combination_isolates_fewer_than_k(table: Table, k: int) -> None:
    """Every weighted sum of counts and sums, over all cells of all margins."""
    told = release(leaves(table), k)
    everyone = sum(map(len, table.values()))
    assert isolated([persons_of(cell, table) for cell in told], everyone, k) == []
    assert all(rest == 0 or rest >= k for rest in rests(told))
    assert all(cell.persons == len(persons_of(cell, table)) for cell in told)


@given(tables(), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_no_more_is_hidden_than_must_be(table: Table, k: int) -> None:
    """Where nothing inside of a cell is too small, all is told; else one more is hidden at most."""
    told = {cell.path for cell in release(leaves(table), k)}
    for path in told:
        inside = {
            p[: len(path) + 1] for p in table if p[: len(path)] == path and len(p) > len(path)
        }
        sizes = {p: len(persons_of(Cell(p, 0), table)) for p in inside}
        small = [p for p, size in sizes.items() if size < k]
        hidden = [p for p in inside if p not in told]
        assert len(hidden) <= len(small) + (1 if small else 0)


def test_a_cell_too_small_takes_the_next_smallest_with_it() -> None:
    """Else everyone without the others were the one person."""
    counted = [Cell(("a",), 1), Cell(("b",), 12), Cell(("c",), 11)]
    told = [(cell.path, cell.persons) for cell in release(counted, 10)]
    assert told == [((), 24), (("b",), 12)]
    assert release(counted[:1], 10) == []
    assert [c.path for c in release(counted[1:], 10)] == [(), ("b",), ("c",)]


def test_a_small_cell_and_an_empty_one_look_the_same() -> None:
    shown = [release([Cell(("a",), few), Cell(("b",), 20 - few)], 10) for few in (1, 5, 9)]
    assert all(told == [Cell((), 20)] for told in shown)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=12), st.integers(1, 4))
def test_nobody_stands_out_in_a_sum(values: list[int], k: int) -> None:
    """The p% rule: a contributor who subtracts the own value misses the largest one by a tenth."""
    ordered = sorted(values, reverse=True)
    cell = Cell((), len(values), sum(values), tuple(ordered[:2]))
    missed = cell.total - ordered[1] - ordered[0]
    safe = len(values) >= k and missed * 100 >= DOMINANCE_PERCENT * ordered[0]
    assert is_safe(cell, k) == safe
    assert bool(release([cell], k)) == safe


@given(tables(), st.lists(st.integers(0, 50), min_size=10, max_size=10))
@settings(max_examples=200, deadline=None)
def test_every_rest_keeps_the_rule_of_sums(table: Table, values: list[int]) -> None:
    contributed = dict(enumerate(values))
    told = release(leaves(table, contributed), 2)
    for cell in told:
        within = [other for other in told if other.path[:-1] == cell.path and other.path]
        rest = persons_of(cell, table).difference(*(persons_of(o, table) for o in within))
        if rest:
            assert is_safe(leaves({(): rest}, contributed)[0], 2)


def test_squares_have_the_codes_of_the_standard() -> None:
    """JIS X 0410: Tokyo Station lies in 5339-46-11, the middle of Naha in 3927-25-54."""
    for latitude, longitude, code in (
        (35.6812, 139.7671, "53394611"),
        (26.2124, 127.6792, "39272554"),
    ):
        row, column = int(latitude * 120), int((longitude - 100) * 80)
        assert counting.square(row, column, "hour") == code
        assert counting.square(row // 10, column // 10, "day") == code[:6]
