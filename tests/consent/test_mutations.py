"""The record of broken rules stays true: each can still be broken, and its test still exists."""

import re

import pytest

from tests.conftest import ROOT
from tests.mutations import Mutation, is_noticed, recorded


@pytest.mark.parametrize("mutation", recorded(), ids=lambda m: f"{m.property}-{m.broken}")
def test_each_rule_can_still_be_broken(mutation: Mutation) -> None:
    path, _, name = mutation.test.partition("::")
    assert (ROOT / mutation.file).read_text().count(mutation.find) == 1
    assert mutation.find != mutation.replace
    assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file()


def test_each_property_has_a_test_of_its_name_and_a_rule_to_break() -> None:
    named = {
        int(number)
        for file in (ROOT / "tests").rglob("test_*.py")
        for number in re.findall(r"def test_property_([0-9]+)_", file.read_text())
    }
    assert named == {mutation.property for mutation in recorded()} == set(range(1, 23))


def test_a_rule_that_is_not_broken_is_no_finding() -> None:
    """The tree that the mutations change passes as it is; a broken one does not."""
    found = next(m for m in recorded() if m.property == 3)
    assert is_noticed(found)
    whole = Mutation(3, "nothing", found.file, found.find, found.find, found.test)
    assert not is_noticed(whole)
