"""The record of broken rules stays true: each can still be broken, and its test still exists."""

import pytest

from tests.conftest import ROOT
from tests.mutations import Mutation, is_noticed, recorded


@pytest.mark.parametrize("mutation", recorded(), ids=lambda m: f"{m.property}-{m.broken}")
def test_each_rule_can_still_be_broken(mutation: Mutation) -> None:
    path, _, name = mutation.test.partition("::")
    assert (ROOT / mutation.file).read_text().count(mutation.find) == 1
    assert mutation.find != mutation.replace
    assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file()


def test_a_rule_that_is_not_broken_is_no_finding() -> None:
    """The tree that the mutations change passes as it is; a broken one does not."""
    found = next(m for m in recorded() if m.property == 3)
    assert is_noticed(found)
    whole = Mutation(3, "nothing", found.file, found.find, found.find, found.test)
    assert not is_noticed(whole)
