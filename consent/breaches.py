"""When a leak, loss or damage of personal data has to be reported, and what a report holds.

Act on the Protection of Personal Information, Art. 26, and Rules 7, 8 and 10. Days are Japan's; the
day on which it became known is the first, and no holiday moves the last: never later than the law.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Literal

JAPAN = timezone(timedelta(hours=9))
MANY = 1000
"""More persons than these are a ground by themselves."""
PRELIMINARY_DAYS = (3, 5)
"""速報: promptly, which the guideline takes as about three to five days."""
FINAL_DAYS, FINAL_DAYS_WRONGFUL = 30, 60
"""確報."""

Ground = Literal["special-care", "property", "wrongful", "many"]
"""Rule 7: data that require care; a likely loss of property; a wrongful purpose; over 1,000."""
ITEMS = (
    "outline", "data", "persons", "cause", "secondary", "response", "publication", "prevention",
    "other",
)  # fmt: skip
"""Rule 8(1): what a report tells, one after the other."""
TOLD = ("outline", "data", "cause", "secondary", "other")
"""Rule 10: what the persons are told of it."""


@dataclass(frozen=True, slots=True)
class Due:
    """Before when each report is made; `goal` is the earlier end of the preliminary one's days."""

    goal: datetime
    preliminary: datetime
    final: datetime


def grounds(stated: Collection[Ground], persons: int) -> list[Ground]:
    """Why it has to be reported; none: it need not be."""
    found: set[Ground] = {*stated} - {"many"}
    return sorted({*found, "many"} if persons > MANY or "many" in stated else found)


def due(known_at: datetime, why: Collection[Ground]) -> Due | None:
    """When the reports are due; None where there is no ground."""
    if not why:
        return None
    first = known_at.astimezone(JAPAN).date()

    def end_of(day: int) -> datetime:
        return datetime.combine(first + timedelta(days=day), time(), JAPAN)

    final = FINAL_DAYS_WRONGFUL if "wrongful" in why else FINAL_DAYS
    return Due(end_of(PRELIMINARY_DAYS[0]), end_of(PRELIMINARY_DAYS[1]), end_of(final))


def overdue(expected: Due | None, reported: Collection[str], now: datetime) -> list[str]:
    """Which reports are late; who made the final one owes no preliminary one any more."""
    if expected is None or "final" in reported:
        return []
    late = [("preliminary", expected.preliminary), ("final", expected.final)]
    return [name for name, until in late if name not in reported and now >= until]


def missing(items: Mapping[str, str]) -> list[str]:
    """What a final report still lacks."""
    return [name for name in ITEMS if not items.get(name)]
