"""What operators read of the platform itself: account, gateways, gaps, figures; no observation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from consent.gate import Gate
from core.storage import account as accounts
from core.storage import figures as figures_
from core.storage import gateways as gateways_
from core.storage.account import NO_KEY, AccountRow, Wanted, key_of
from core.storage.clocks import ClockState
from core.storage.figures import SECONDS_BUCKETS, Figures, ProcessFigures
from core.storage.gateways import BEGINNING, Gap, Gateway, Place
from core.tokens import Principal

# What these reads take and give: the API reaches no storage but through here.
__all__ = (
    "BEGINNING", "NO_KEY", "SECONDS_BUCKETS", "AccountRow", "ClockState", "Figures", "Gap",
    "Gateway", "Place", "ProcessFigures", "Wanted", "account", "figures", "gaps", "gateways",
    "key_of",
)  # fmt: skip
SCOPE = "read:account"


def account(
    gate: Gate, principal: Principal, wanted: Wanted, after: tuple[str, str, str, str], limit: int
) -> list[AccountRow]:
    """A page of the account; errors as Gate.operating."""
    with _reading(gate, principal) as connection:
        return accounts.account(connection, wanted, after, limit)


def gateways(gate: Gate, principal: Principal, after: str, limit: int) -> list[Gateway]:
    """A page of the gateways."""
    with _reading(gate, principal) as connection:
        return gateways_.gateways(connection, after, limit)


def gaps(
    gate: Gate, principal: Principal, gateway: str, start: Place, limit: int
) -> tuple[Sequence[Gap], Place | None] | None:
    """A page of one gateway's gaps and where the next one starts; None: no such gateway."""
    with _reading(gate, principal) as connection:
        if not gateways_.is_known(connection, gateway):
            return None
        return gateways_.gaps(connection, gateway, start, limit)


def figures(gate: Gate, principal: Principal) -> Figures:
    """What the database knows for monitoring."""
    with _reading(gate, principal) as connection:
        return figures_.figures(connection)


@contextmanager
def _reading(gate: Gate, principal: Principal) -> Iterator[Connection[tuple[Any, ...]]]:
    with gate.operating(principal, SCOPE) as connection:
        yield connection
