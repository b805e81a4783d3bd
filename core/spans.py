"""Sets of time as sorted, disjoint spans of integers: what is to be computed, and where."""

from collections.abc import Iterable, Sequence

Span = tuple[int, int]
"""Half-open: [lower, upper)."""


def union(*sets: Iterable[Span]) -> list[Span]:
    """Everything that is in one of the sets; the result has no touching spans."""
    joined: list[Span] = []
    for lower, upper in sorted(span for each in sets for span in each):
        if lower >= upper:
            continue
        if joined and lower <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(upper, joined[-1][1]))
        else:
            joined.append((lower, upper))
    return joined


def minus(whole: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """What is in `whole` and not in `taken`."""
    left: list[Span] = []
    first = 0
    for lower, upper in whole:
        while first < len(taken) and taken[first][1] <= lower:
            first += 1
        begin, index = lower, first
        while index < len(taken) and taken[index][0] < upper:
            if taken[index][0] > begin:
                left.append((begin, taken[index][0]))
            begin = max(begin, taken[index][1])
            index += 1
        if begin < upper:
            left.append((begin, upper))
    return left


def outward(spans: Iterable[Span], width: int) -> list[Span]:
    """All buckets of this width that the spans touch."""
    return union((lower // width * width, -(-upper // width) * width) for lower, upper in spans)


def inward(spans: Iterable[Span], width: int) -> list[Span]:
    """All buckets of this width that lie wholly in one of the spans."""
    return union((-(-lower // width) * width, upper // width * width) for lower, upper in spans)


def within(spans: Iterable[Span], lower: int, upper: int) -> list[Span]:
    """What lies in [lower, upper)."""
    return union((max(low, lower), min(high, upper)) for low, high in spans)
