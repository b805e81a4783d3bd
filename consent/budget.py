"""The ledger of ε: what a population has given away of its privacy, for ever.

Losses add up over all releases of one data set to one recipient (sequential composition), whatever
span of time each is of: neighbours differ by one person's whole series. Open data have one
recipient: everyone.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from consent.log import Session, one
from core.errors import CityError

EPSILON_MAX = Decimal(3)
"""Over all releases, for each population, recipient and data set: a likelihood ratio of 20."""
EVERYONE = "everyone"
BUDGET = 0x45505349
"""First key of the advisory locks ("EPSI"): debits to one account are one after another."""

LOCK = "SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(account)s))"
SELECT_SPENT = """
SELECT coalesce(sum(epsilon), 0) FROM release.spent
WHERE population = %(population)s AND recipient = %(recipient)s AND data_set = %(data_set)s
"""
INSERT_SPENT = """
INSERT INTO release.spent (release, population, recipient, data_set, epsilon)
VALUES (%(release)s, %(population)s, %(recipient)s, %(data_set)s, %(epsilon)s)
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose privacy, towards whom, in which data."""

    population: str
    data_set: str
    recipient: str = EVERYONE

    def named(self) -> dict[str, Any]:
        """Its parts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def spent(connection: Session, account: Account) -> Decimal:
    """What was debited until now."""
    total: Decimal = one(connection, SELECT_SPENT, **account.named())
    return total


def debit(connection: Session, account: Account, release: UUID, epsilon: Decimal) -> None:
    """Debit, in a transaction that is committed before anything is counted.

    CityError `conflict` where the budget does not suffice. Nothing is ever paid back: a release
    that fails after this may have shown something to somebody.
    """
    key = "\n".join(account.named().values())
    connection.execute(LOCK, {"lock": BUDGET, "account": key})
    left = EPSILON_MAX - spent(connection, account)
    if epsilon > left:
        raise CityError("conflict", f"epsilon: of {EPSILON_MAX} for this data set {left} is left")
    connection.execute(INSERT_SPENT, {**account.named(), "release": release, "epsilon": epsilon})
