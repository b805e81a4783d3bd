"""Who reads what by the class of data alone; all else is personal, and read by grants."""

from collections.abc import Iterable

from core.sector import Sector
from core.sensorthings import DataClass
from core.tokens import Principal

READ_SHARED = "read:shared"
READ_PERSONAL = "read:personal"
READ_EMERGENCY = "read:emergency"
READ_OWN = "read:own"
WRITE_OWN = "write:own"
BY_CLASS = (DataClass.OPEN, DataClass.SHARED)
"""The classes that are read by class alone; every other one, known or not, counts as personal."""


def classes_of(principal: Principal) -> tuple[str, ...]:
    """The data classes that the principal may read without any grant."""
    if READ_SHARED in principal.scopes:
        return (DataClass.OPEN.value, DataClass.SHARED.value)
    return (DataClass.OPEN.value,)


def handled_by_class(data_classes: Iterable[str]) -> bool:
    """Whether all of these are read by class; an unknown one is not."""
    known = {each.value for each in BY_CLASS}
    return all(each in known for each in data_classes)


def read_by_class(sector: Sector) -> bool:
    """Whether any of a sector may be read by class."""
    return any(handled_by_class([each]) for each in sector.classes)
