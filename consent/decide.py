"""The decision about personal data: pure, and a refusal unless a live grant says otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass

from core.sensorthings import DataClass
from core.tokens import Principal

READ_SHARED = "read:shared"
BY_CLASS = (DataClass.OPEN, DataClass.SHARED)
"""The classes that are read by class alone; every other one, known or not, counts as personal."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether rows may leave, and the reason that the audit log keeps."""

    allowed: bool
    reason: str


def decide(principal: Principal, recipient: str, purpose: str, category: str) -> Decision:
    """Default deny: no grants are kept yet, so no subject, purpose or category is permitted.

    The answer depends on its arguments alone, never on what is stored, so that a refusal tells
    nothing about whether there was anything to see.
    """
    del principal, recipient, purpose, category
    return Decision(False, "no-grant")


def classes_of(principal: Principal) -> tuple[str, ...]:
    """The data classes that the principal may read without any grant."""
    if READ_SHARED in principal.scopes:
        return (DataClass.OPEN.value, DataClass.SHARED.value)
    return (DataClass.OPEN.value,)


def handled_by_class(data_classes: Iterable[str]) -> bool:
    """Whether all of these are read by class; an unknown one is not."""
    known = {each.value for each in BY_CLASS}
    return all(each in known for each in data_classes)
