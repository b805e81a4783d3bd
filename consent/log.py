"""The log of consent: one entry an act, which is the last statement of its transaction.

Modules of acts write by `write`; what an act does is told by its function consent.apply_<act>.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from consent.results import Row
from core.errors import CityError, brief, invalid
from core.tokens import Principal, Role

Session = Connection[tuple[Any, ...]]
Kind = Literal["self", "guardian", "delegate", "operator", "recipient", "platform"]
"""In whose name an act is done."""

Place = tuple[datetime, UUID]
"""Where a list of the newest goes on: after the time and the id of its last row."""
NEWEST = ("infinity", UUID(int=2**128 - 1))

WRITE = "SELECT * FROM consent.write(%(act)s, %(subject)s, %(actor)s, %(kind)s, %(body)s)"
SELECT_SUBJECT = "SELECT consent.subject_of(%(key)s)"
SELECT_NOW = "SELECT clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Written:
    """What an act became: its number, its time, and the recipients who may see less since."""

    sigma: int
    at: datetime
    less: tuple[int, ...] = ()


def write(
    connection: Session,
    act: str,
    principal: Principal,
    body: dict[str, Any],
    *,
    subject: int | None = None,
    kind: Kind | None = None,
) -> Written:
    """Append an act: of a person about `subject`, or of an operator about nobody alone.

    What a guardian does for a ward says by which guardianship.
    """
    by = principal.guardianship
    entry = {
        "act": act,
        "subject": subject,
        "actor": name_of(connection, principal),
        "kind": kind or ("operator" if subject is None else "guardian" if by else "self"),
        "body": Jsonb({**body, "guardianship": str(by)} if by else body),
    }
    row = connection.execute(WRITE, entry).fetchone()
    if row is None:
        raise CityError("unavailable", "the log of consent has no clock")
    return Written(row[0], row[1], tuple(row[2]))


def unchanged(connection: Session, sigma: int = 0) -> Written:
    """What an act is that says nothing new: the one of before, if it has a number."""
    return Written(sigma, one(connection, SELECT_NOW))


def subject_of(connection: Session, person: str | None) -> int:
    """The number of a person, new for one never heard of."""
    number: int = one(connection, SELECT_SUBJECT, key=person)
    return number


def name_of(connection: Session, principal: Principal) -> str:
    """What a record that lasts calls someone: a person by number, which erasure leaves nameless."""
    if principal.role is not Role.CITIZEN:
        return principal.name
    return f"person/{subject_of(connection, principal.name)}"


def window(lower: datetime, upper: datetime | None) -> str:
    """[lower, upper) as PostgreSQL reads it."""
    return f"[{lower.isoformat()},{upper.isoformat() if upper else ''})"


def check_window(name: str, lower: datetime, upper: datetime | None) -> None:
    """CityError `invalid` for a window that holds no time."""
    if upper is not None and upper <= lower:
        raise invalid(f"{name}_to", f"must be after {name}_from, {lower.isoformat()}")


def rows(connection: Session, query: str, **parameters: Any) -> list[Row]:
    """All rows of a query, bounded by its own LIMIT."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchall()


def row(connection: Session, query: str, **parameters: Any) -> Row | None:
    """The first row of a query, if there is one."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchone()


def one(connection: Session, query: str, *, field: str = "", **parameters: Any) -> Any:
    """The single value of a query; CityError `invalid` for the field that finds nothing."""
    found = connection.execute(query.encode(), parameters).fetchone()
    if found is None:
        raise invalid(field, "is not registered")
    return found[0]


@contextmanager
def explained(field: str) -> Iterator[None]:
    """What the log refuses, in the words of the API."""
    try:
        yield
    except psycopg.errors.ExclusionViolation as error:
        raise CityError(
            "conflict", "the Thing is bound at that time: a moment is bound once"
        ) from error
    except psycopg.errors.UniqueViolation as error:
        raise CityError("conflict", "this id was used before") from error
    except psycopg.errors.NoDataFound as error:
        raise CityError("not-found", f"there is no such {field}, or it has ended") from error
    except psycopg.errors.CheckViolation as error:
        raise CityError("conflict", f"{field}: {brief(error)}: give a new one") from error
