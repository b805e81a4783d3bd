"""Whose fault it is that an append failed: the database's state, or what it was asked to store."""

from enum import Enum

import psycopg

from core.errors import CityError

STATE_CLASSES = ("08", "25", "28", "3D", "3F", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that are the server's own state (PostgreSQL, appendix A).

Connection, transaction state, sign-in, missing database or schema, rollback, resources, locks,
operator, system."""
CONTENT_CLASSES = ("21", "22", "23", "54")
"""Those that a message's content can cause: data exceptions, integrity violations and limits."""


class Fault(Enum):
    """What to do with a batch that failed: wait; reject the message at fault; or find out."""

    AWAY = "away"
    REFUSED = "refused"
    UNCLEAR = "unclear"


def fault_of(error: Exception) -> Fault:
    """What an error of an append says; UNCLEAR is a missing table, say, or an internal error."""
    if not isinstance(error, psycopg.Error | CityError):
        return Fault.REFUSED
    state = getattr(error, "sqlstate", None)
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return Fault.REFUSED
    if state is None:
        # Without a word of the server: the connection, or psycopg itself cannot say it in SQL.
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | CityError)
        return Fault.AWAY if lost else Fault.UNCLEAR
    if state.startswith(CONTENT_CLASSES):
        return Fault.REFUSED
    return Fault.AWAY if state.startswith(STATE_CLASSES) else Fault.UNCLEAR
