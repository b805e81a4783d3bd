"""The Merkle tree against RFC 6962's own definition, known vectors, and everything forged."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent import merkle

# The eight leaves and the root that Certificate Transparency's own tests use.
KNOWN = [bytes.fromhex(h) for h in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
KNOWN_ROOT = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def defined(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + defined(leaves[:k]) + defined(leaves[k:])).digest()


class Tree:
    """Nodes in a dict, appended in batches."""

    def __init__(self, batches: Sequence[Sequence[bytes]]) -> None:
        self.kept: dict[merkle.Position, bytes] = {}
        self.leaves: list[bytes] = []
        for batch in batches:
            edge = self.nodes(merkle.peaks(len(self.leaves)))
            for position, hashed in merkle.appended(len(self.leaves), batch, edge):
                assert position not in self.kept, "a node is written once"
                self.kept[position] = hashed
            self.leaves += batch

    def nodes(self, positions: Sequence[merkle.Position]) -> list[bytes]:
        return [self.kept[each] for each in positions]


def hashes(count: int) -> list[bytes]:
    return [merkle.leaf_hash(str(n).encode()) for n in range(count)]


def test_known_vector() -> None:
    tree = Tree([[merkle.leaf_hash(each) for each in KNOWN]])
    assert merkle.root(8, tree.nodes).hex() == KNOWN_ROOT
    assert merkle.leaf_hash(b"").hex().startswith("6e340b9cffb37a98")
    assert merkle.root(0, tree.nodes) == merkle.EMPTY


@given(st.lists(st.integers(0, 9), max_size=12).map(lambda sizes: sizes))
def test_any_batches_give_the_defined_root(sizes: list[int]) -> None:
    leaves = iter(hashes(sum(sizes)))
    tree = Tree([[next(leaves) for _ in range(size)] for size in sizes])
    for size in range(sum(sizes) + 1):
        assert merkle.root(size, tree.nodes) == defined(tree.leaves[:size])


def test_every_proof_up_to_40_leaves_holds_and_no_other() -> None:
    tree = Tree([hashes(40)])
    roots = [merkle.root(size, tree.nodes) for size in range(41)]
    for size in range(1, 41):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, tree.nodes)
            leaf = tree.leaves[index]
            assert merkle.includes(index, size, leaf, proof, roots[size])
            assert (
                not merkle.includes((index + 1) % size, size, leaf, proof, roots[size]) or size == 1
            )
            assert not merkle.includes(index, size, leaf, proof, roots[size - 1])
            assert not merkle.includes(index, size, leaf, [*proof, leaf], roots[size])
            assert not proof or not merkle.includes(index, size, leaf, proof[:-1], roots[size])
        for old in range(size + 1):
            proof = merkle.consistency_proof(old, size, tree.nodes)
            assert merkle.is_consistent(old, size, roots[old], roots[size], proof)
            if 0 < old < size:
                forged = defined([*tree.leaves[: old - 1], merkle.leaf_hash(b"forged")])
                assert not merkle.is_consistent(old, size, forged, roots[size], proof)
                assert not merkle.is_consistent(old, size, roots[old], forged, proof)
                assert not merkle.is_consistent(old, size, roots[old], roots[size], proof[:-1])


@given(
    st.integers(-1, 2**64), st.integers(-1, 2**64), st.lists(st.binary(max_size=33), max_size=70)
)
def test_anything_else_is_false_and_never_an_error(
    index: int, size: int, proof: list[bytes]
) -> None:
    assert not merkle.includes(index, size, b"x" * 32, proof, b"y" * 32)
    if index != size:
        assert not merkle.is_consistent(index, size, b"x" * 32, b"y" * 32, proof)


@pytest.mark.parametrize("size", [10_000_000, 2**40 + 12345])
def test_a_proof_is_small_and_needs_few_nodes(size: int) -> None:
    asked: list[merkle.Position] = []

    def nodes(positions: Sequence[merkle.Position]) -> list[bytes]:
        asked.extend(positions)
        return [bytes(32)] * len(positions)

    proof = merkle.inclusion_proof(size // 3, size, nodes)
    assert len(proof) * 32 <= 1024 or size > 2**32
    assert len(asked) < 2 * size.bit_length()
