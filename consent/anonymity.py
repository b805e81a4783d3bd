"""What of a table of counted persons may be told: k distinct persons, whatever is subtracted.

In one step of time each person is counted in one leaf; a cell is all leaves below a path: everyone,
a large square, a small one. So the cells of a step are nested or disjoint. What is left of a
released cell without the released ones inside of it is its rest. The rests of all released cells,
of all steps, are disjoint, and every released number is a sum of rests. Hence whatever is added and
subtracted depends on whole rests or on nothing; each of them has k persons or none.

Sums keep a rule of their own (p%): who contributes to one and subtracts the own value learns the
largest other value no better than to a tenth of it. Rests that keep it keep it together.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

K = 10
"""So many persons at least are behind whatever is told; a release may only ask for more."""
DOMINANCE_PERCENT = 10

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """Some persons of one step: how many, and the sum of what they contribute, none below 0.

    `path` says which: () is everyone, and each word of it narrows that.
    """

    path: Path
    persons: int
    total: int = 0
    largest: tuple[int, ...] = ()
    """The two largest contributions of one person each."""


def join(path: Path, cells: Iterable[Cell]) -> Cell:
    """Several cells without a common person as one."""
    parts = list(cells)
    largest = sorted((each for part in parts for each in part.largest), reverse=True)[:2]
    persons, total = sum(part.persons for part in parts), sum(part.total for part in parts)
    return Cell(path, persons, total, tuple(largest))


def is_safe(cell: Cell, k: int) -> bool:
    """Whether enough persons are in it, and none of them stands out in its sum."""
    first = cell.largest[0] if cell.largest else 0
    others = cell.total - sum(cell.largest)
    return cell.persons >= k and 100 * others >= DOMINANCE_PERCENT * first


def release(leaves: Iterable[Cell], k: int) -> list[Cell]:
    """The cells of one step that may be told, each before those inside of it.

    A cell that is not safe is as if it were empty. Where what is hidden inside of a cell is not
    safe either, the smallest of its safe parts is hidden with it: else the rest would tell it.
    """
    inside: dict[Path, list[Cell]] = defaultdict(list)
    for leaf in leaves:
        for depth in range(len(leaf.path) + 1):
            inside[leaf.path[:depth]].append(leaf)
    cells = {path: join(path, below) for path, below in inside.items()}
    parts: dict[Path, list[Cell]] = defaultdict(list)
    for path, cell in cells.items():
        if path:
            parts[path[:-1]].append(cell)
    if () not in cells or not is_safe(cells[()], k):
        return []
    told, wanted = [], [cells[()]]
    while wanted:
        cell = wanted.pop()
        told.append(cell)
        wanted += reversed(_told_parts(parts[cell.path], k))
    return told


def _told_parts(parts: Iterable[Cell], k: int) -> list[Cell]:
    """Which parts of a released cell are told, in the order of their paths."""
    ordered = sorted(parts, key=lambda cell: (cell.persons, cell.path))
    hidden = [cell for cell in ordered if not is_safe(cell, k)]
    told = [cell for cell in ordered if is_safe(cell, k)]
    while hidden and told and not is_safe(join((), hidden), k):
        hidden.append(told.pop(0))
    return sorted(told, key=lambda cell: cell.path)


def rests(told: Iterable[Cell]) -> list[int]:
    """Of how many persons the rest of each released cell of a step is: the proof, in numbers."""
    persons = {cell.path: cell.persons for cell in told}
    left = dict(persons)
    for path, count in persons.items():
        if path:
            left[path[:-1]] -= count  # a part is told only together with what it is a part of
    return list(left.values())
