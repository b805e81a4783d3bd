"""The audit log of decisions: append-only, written in the same transaction as what it permits."""

from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

from core.tokens import Principal

INSERT_DECISION = """
INSERT INTO audit.decision
  (principal, role, recipient, purpose, category, sector, outcome, reason)
VALUES (%(principal)s, %(role)s, %(recipient)s, %(purpose)s, %(category)s, %(sector)s,
        %(outcome)s, %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Record:
    """One decision about personal data: who asked for what, for whom and why, and the answer."""

    principal: str
    role: str | None
    recipient: str
    purpose: str | None
    category: str | None
    sector: str | None
    outcome: Literal["permitted", "refused"]
    reason: str


def refusal(
    principal: Principal,
    *,
    recipient: str,
    reason: str,
    purpose: str | None = None,
    category: str | None = None,
    sector: str | None = None,
) -> Record:
    """The record of a refused read."""
    role = principal.role.value if principal.role else None
    return Record(principal.name, role, recipient, purpose, category, sector, "refused", reason)


def record(connection: Connection[tuple[Any, ...]], entry: Record) -> None:
    """Append the decision; the caller's transaction commits it, so no audit means no data."""
    connection.execute(
        INSERT_DECISION,
        {name: getattr(entry, name) for name in entry.__slots__},
    )
