"""One folder = one sector. File names are the plug-in interface; there is no registry."""

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from core.errors import CityError
from core.sector import Sector

HERE = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Every installed sector: the folders that have a sector.py."""
    return tuple(sorted(path.parent.name for path in HERE.glob("*/sector.py")))


@cache
def load(sector: str, part: str) -> ModuleType:
    """The module `part` (decode, rules, routes, ...) of a sector; not-found for an unknown one."""
    if sector not in names():
        raise CityError("not-found", f"there is no sector {sector!r}; see /v1/sectors")
    return import_module(f"domains.{sector}.{part}")


def sector(name: str) -> Sector:
    """What the sector declares."""
    declared: Sector = load(name, "sector").SECTOR
    return declared
