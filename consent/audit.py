"""The audit log of decisions: append-only, written in the same transaction as what it permits."""

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID, uuid4

from psycopg import Connection

from consent.log import subject_of
from core.tokens import Principal, Role

_INSERT = """
INSERT INTO audit.decision
  (id, principal, role, recipient, purpose, category, sector, outcome, reason, sigma, override)
SELECT %(id)s, %(principal)s, %(role)s, %(recipient)s, %(purpose)s, %(category)s, %(sector)s,
       %(outcome)s, %(reason)s, {state}
"""
INSERT_DECISION = _INSERT.format(state="%(sigma)s, %(override)s")
INSERT_PERMISSION = _INSERT.format(state="asker.sigma, %(override)s FROM asker")
"""Of whoever `asker` found, in the state that it found: nothing where it found nobody."""


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
    sigma: int | None = None
    """The last act of the state that it was decided on; INSERT_PERMISSION says it itself."""
    override: UUID | None = None
    """By which emergency override, in place of grants."""
    id: UUID = field(default_factory=uuid4)
    """Random: a sequence would tell how many there are."""


def permission(principal: Principal, *, purpose: str, category: str, sector: str) -> Record:
    """The record of a recipient's read: what it got is told by the provision records of its id."""
    role, name = principal.role.value if principal.role else None, principal.name
    by = principal.override
    reason = "override" if by else "grants"
    return Record(name, role, name, purpose, category, sector, "permitted", reason, override=by)


def own(principal: Principal, sector: str | None) -> Record:
    """The record of a person who reads what is held about them."""
    role, name = principal.role.value if principal.role else None, principal.name
    return Record(name, role, name, None, None, sector, "permitted", "own")


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
    connection.execute(INSERT_DECISION, parameters(connection, entry))


def parameters(connection: Connection[tuple[Any, ...]], entry: Record) -> dict[str, Any]:
    """A decision as its statement takes it: a person stands there by number."""
    values = {name: getattr(entry, name) for name in entry.__slots__}
    if entry.role == Role.CITIZEN:
        name = f"person/{subject_of(connection, entry.principal)}"
        values |= {
            each: name for each in ("principal", "recipient") if values[each] == entry.principal
        }
    return values
