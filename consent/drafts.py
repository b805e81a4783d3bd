"""What the draft of a release may say: checked when it is kept, a plan when it is counted."""

from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from math import isfinite
from typing import Any

from psycopg.types.range import Range

from consent.budget import EPSILON_MAX
from consent.counting import Plan
from consent.levels import LEVELS, NUMBERS
from consent.vocabulary import PURPOSES
from core.errors import invalid
from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ResultKind

STEPS_MAX = 1_000
CELLS_MAX = 10_000
"""Of a table whose cells can be listed beforehand."""
SQUARE_DIGITS = {"hour": 8, "day": 6}
ORIGIN = datetime.fromisoformat("1970-01-01T00:00:00+09:00")
"""From where steps are counted: midnight in Japan."""


def plan_of(sector: Sector, terms: dict[str, Any]) -> Plan:
    """The plan of a draft's terms; CityError `invalid` names what cannot be."""
    PURPOSES.check("purpose", terms["purpose"])
    declared = _declared(sector, terms["property"])
    span = _span(terms)
    low, high = _clip(declared, terms)
    bands, squares = tuple(terms["bands"]), tuple(terms["squares"])
    _check_names(declared.kind, bands, squares, terms)
    epsilon = Decimal(terms["epsilon"]) if terms["epsilon"] is not None else None
    if (epsilon is None) != (terms["steps_max"] is None):
        raise invalid("steps_max", "goes with epsilon: of how many steps one person counts at most")
    if epsilon is not None and not 0 < epsilon <= EPSILON_MAX:
        raise invalid("epsilon", f"over 0 and at most {EPSILON_MAX}")
    plan = Plan(
        sector, declared, terms["purpose"], span, terms["resolution"], terms["k"], terms["mean"],
        bands, low, high, squares, epsilon, terms["steps_max"],
    )  # fmt: skip
    steps = len(list(plan.times()))
    if steps > STEPS_MAX or steps * max(1, len(plan.paths())) > CELLS_MAX:
        raise invalid("event_to", f"at most {STEPS_MAX} steps of time and {CELLS_MAX} cells")
    return plan


def _declared(sector: Sector, name: str) -> ObservedProperty:
    declared = sector.by_name.get(name)
    if sector.data_class is not DataClass.PERSONAL:
        raise invalid("sector", f"{sector.name} is not personal: read it as it is")
    if declared is None or declared.category is None:
        raise invalid("property", f"{sector.name} declares no such property with a category")
    if declared.kind is ResultKind.DOCUMENT:
        raise invalid("property", "a document may tell anything inside: it cannot be counted")
    return declared


def _span(terms: dict[str, Any]) -> Range[datetime]:
    first, last = (datetime.fromisoformat(terms[name]) for name in ("event_from", "event_to"))
    seconds = LEVELS[NUMBERS[terms["resolution"]]].seconds
    for name, bound in (("event_from", first), ("event_to", last)):
        if (bound - ORIGIN).total_seconds() % seconds:
            raise invalid(name, f"must be the beginning of a {terms['resolution']} in Japan")
    if last <= first:
        raise invalid("event_to", "must be after event_from")
    if (last - first).total_seconds() > STEPS_MAX * seconds:
        raise invalid("event_to", f"at most {STEPS_MAX} steps of time after event_from")
    return Range(first, last, "[)")


def _clip(declared: ObservedProperty, terms: dict[str, Any]) -> tuple[Decimal, Decimal]:
    """Between which values one person's contribution to a sum is bounded."""
    if not terms["mean"]:
        return Decimal(0), Decimal(0)
    if declared.kind is not ResultKind.NUMBER or declared.minimum is None:
        raise invalid("mean", "is of numbers whose range is declared")
    least, most = Decimal(str(declared.minimum)), Decimal(str(declared.maximum))
    low, high = (Decimal(str(v)) for v in terms["clip"]) if terms["clip"] else (least, most)
    if not least <= low < high <= most:
        raise invalid("clip", f"two values inside of {least} to {most}, the lower first")
    return low, high


def _check_names(
    kind: ResultKind, bands: tuple[float, ...], squares: tuple[str, ...], terms: dict[str, Any]
) -> None:
    if bands and kind is not ResultKind.NUMBER:
        raise invalid("bands", "are of numbers")
    if not all(map(isfinite, bands)) or not all(a < b for a, b in pairwise(bands)):
        raise invalid("bands", "each edge is above the one before")
    if squares and kind is not ResultKind.POSITION:
        raise invalid("squares", "are of positions")
    digits = SQUARE_DIGITS[terms["resolution"]]
    if any(len(code) != digits for code in squares):
        raise invalid("squares", f"codes of JIS X 0410 with {digits} digits")
    if kind is ResultKind.POSITION and terms["epsilon"] is not None and not squares:
        raise invalid("squares", "list them for noise: also an empty one is told then")
