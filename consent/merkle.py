"""The Merkle tree of RFC 6962, section 2.1: append, inclusion and consistency proofs, checks; pure.

Only complete subtrees are nodes, and none ever changes: `Nodes` finds them by (level, index), where
level 0 are the leaves. A proof has at most 64 hashes of 32 bytes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

Hash = bytes
Position = tuple[int, int]
"""A complete subtree: its height, and its number among those of that height."""
Nodes = Callable[[Sequence[Position]], Sequence[Hash]]
"""Looks up the hashes of complete subtrees."""

HASH_BYTES = 32
PROOF_HASHES_MAX = 64
SIZE_MAX = 2**63
EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(content: bytes) -> Hash:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def node_hash(left: Hash, right: Hash) -> Hash:
    """The hash of a node over its two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def appended(
    size: int, leaves: Iterable[Hash], edge: Sequence[Hash]
) -> Iterator[tuple[Position, Hash]]:
    """The subtrees that leaves complete, behind a tree of `size` with these subtrees at its edge.

    `edge`: the hashes at `peaks(size)`, from the largest to the smallest subtree.
    """
    stack = list(edge)
    for index, leaf in enumerate(leaves, size):
        level, hashed = 0, leaf
        yield (0, index), hashed
        while index >> level & 1:
            hashed = node_hash(stack.pop(), hashed)
            level += 1
            yield (level, index >> level), hashed
        stack.append(hashed)


def peaks(size: int) -> list[Position]:
    """The complete subtrees at the right edge of a tree, from the largest to the smallest."""
    found, begin = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, begin >> level))
            begin += 1 << level
    return found


def root(size: int, nodes: Nodes) -> Hash:
    """The hash of the whole tree."""
    return _folded(list(nodes(peaks(size)))) if size else EMPTY


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[Hash]:
    """The audit path of a leaf, from the leaf up (2.1.1)."""
    return inclusion_proofs([(index, size)], nodes)[0]


def inclusion_proofs(places: Sequence[tuple[int, int]], nodes: Nodes) -> list[list[Hash]]:
    """The audit paths of leaves, each in the tree of its size, with one look at the nodes."""
    paths = [_path(index, 0, size) for index, size in places]
    spans = list(dict.fromkeys(span for path in paths for span in path))
    found = dict(zip(spans, _hashes(spans, nodes), strict=True))
    return [[found[span] for span in path] for path in paths]


def consistency_proof(old: int, size: int, nodes: Nodes) -> list[Hash]:
    """That a tree of `old` leaves is the beginning of one of `size` (2.1.2)."""
    return _hashes(_subproof(old, 0, size, whole=True), nodes) if 0 < old < size else []


def includes(index: int, size: int, leaf: Hash, proof: Sequence[Hash], whole: Hash) -> bool:
    """Whether the proof shows the leaf at that place under this root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size <= SIZE_MAX or not _well_formed([leaf, whole, *proof]):
        return False
    place, last, hashed = index, size - 1, leaf
    for each in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            hashed = node_hash(each, hashed)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            hashed = node_hash(hashed, each)
        place, last = place >> 1, last >> 1
    return last == 0 and hashed == whole


def is_consistent(old: int, size: int, before: Hash, after: Hash, proof: Sequence[Hash]) -> bool:
    """Whether the proof shows that nothing of the older tree was changed (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= size <= SIZE_MAX or not _well_formed([before, after, *proof]):
        return False
    if old in (0, size):
        return not proof and (before == EMPTY if old == 0 else before == after)
    path = [before, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    older = newer = path[0]
    for each in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            older, newer = node_hash(each, older), node_hash(each, newer)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            newer = node_hash(newer, each)
        place, last = place >> 1, last >> 1
    return last == 0 and older == before and newer == after


Span = tuple[int, int]


def _path(index: int, begin: int, end: int) -> list[Span]:
    """The spans of leaves whose hashes lead from one of [begin, end) up to their common root."""
    if end - begin == 1:
        return []
    middle = begin + _split(end - begin)
    if index < middle:
        return [*_path(index, begin, middle), (middle, end)]
    return [*_path(index, middle, end), (begin, middle)]


def _subproof(old: int, begin: int, end: int, *, whole: bool) -> list[Span]:
    """SUBPROOF of RFC 6962, 2.1.2: `old` leaves from `begin` on, in [begin, end)."""
    if old == end - begin:
        return [] if whole else [(begin, end)]
    middle = begin + _split(end - begin)
    if begin + old <= middle:
        return [*_subproof(old, begin, middle, whole=whole), (middle, end)]
    return [*_subproof(begin + old - middle, middle, end, whole=False), (begin, middle)]


def _hashes(spans: Sequence[Span], nodes: Nodes) -> list[Hash]:
    """The hashes of spans, each aligned to its subtree, with one look at the nodes."""
    parts = [[_shifted(p, begin) for p in peaks(end - begin)] for begin, end in spans]
    found = iter(nodes([position for part in parts for position in part]))
    return [_folded([next(found) for _ in part]) for part in parts]


def _shifted(position: Position, leaves: int) -> Position:
    level, index = position
    return level, index + (leaves >> level)


def _folded(edge: list[Hash]) -> Hash:
    """One hash of the subtrees at an edge, the smallest first into the next larger."""
    hashed = edge.pop()
    while edge:
        hashed = node_hash(edge.pop(), hashed)
    return hashed


def _split(size: int) -> int:
    """The largest power of two that is smaller."""
    return 1 << (size - 1).bit_length() - 1


def _well_formed(hashes: Sequence[Hash]) -> bool:
    return len(hashes) <= PROOF_HASHES_MAX + 2 and all(len(h) == HASH_BYTES for h in hashes)
