"""Writing rows of which the database refuses some: each of those ends alone, as a rejection."""

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
from psycopg import Connection

from core.storage.columns import Rows

ROWS_REFUSED_MAX = 1_000
"""Of one append; a message with more of them is refused as a whole, by whoever called."""


def write_apart(
    connection: Connection[Any],
    rows: Rows,
    write: Callable[[Rows], None],
    refuse: Callable[[Rows, psycopg.Error], int],
) -> None:
    """Halve what is refused for its content until each row at fault is alone.

    `refuse` takes such a row and returns how many there were so far; beyond ROWS_REFUSED_MAX, and
    for any other error, the error is raised.
    """
    parts = [rows]
    while parts:
        part = parts.pop()
        try:
            with connection.transaction():  # a savepoint: what the part had written is undone
                write(part)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(part) > 1:
                halves = np.array_split(np.arange(len(part)), 2)
                parts += [part.take(half) for half in reversed(halves)]
            elif refuse(part, error) > ROWS_REFUSED_MAX:
                raise


def brief(error: psycopg.Error) -> str:
    """The server's reason in one line."""
    return str(error).strip().partition("\n")[0]
