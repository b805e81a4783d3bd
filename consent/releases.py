"""Anonymised releases: a draft, the evidence of each step of Rule 34, a table that all may read.

A draft says what is to be counted. Of each step of the processing there is evidence: who did it,
when and how. Publishing counts under the live grants of that moment, checks what came out, and is
final: the table stays as it is, whatever is taken back later.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from consent import anonymity, audit, budget, counting, personal
from consent.anonymity import Cell
from consent.counting import Counted, Plan
from consent.gate import Gate
from consent.grants import SELECT_RECIPIENT
from consent.log import (
    NEWEST,
    SELECT_NOW,
    Place,
    Session,
    Written,
    one,
    row,
    rows,
    subject_of,
    unchanged,
    write,
)
from consent.noise import discrete_laplace
from consent.personal import Chunk
from consent.results import Row
from core.errors import CityError
from core.tokens import Principal

SCOPE, WHAT = "write:releases", "releases that are being prepared"
STEPS = ("identifying", "codes", "linking", "singular", "nature")
"""The items of Rule 34 of the enforcement rules, in their order (Art. 43(1) of the Act)."""
ATTEMPTS = 5
"""How often persons are counted anew where a grant among them was taken back meanwhile."""

INSERT_DEFINITION = """
INSERT INTO release.definition (id, principal, terms) VALUES (%(id)s, %(principal)s, %(terms)s)
ON CONFLICT (id) DO NOTHING
"""
SELECT_DRAFT = """
SELECT d.id, d.at, d.terms, p.at AS published_at, p.items, p.method,
       (SELECT count(*) FROM release.evidence e WHERE e.release = d.id AND NOT e.checked) AS steps
FROM release.definition d LEFT JOIN release.publication p ON p.release = d.id WHERE d.id = %(id)s
"""
INSERT_EVIDENCE = """
INSERT INTO release.evidence (release, step, checked, principal, method)
VALUES (%(release)s, %(step)s, %(checked)s, %(principal)s, %(method)s)
ON CONFLICT (release, step, checked) DO NOTHING
"""
SELECT_EVIDENCE = """
SELECT step, checked, at, principal, method FROM release.evidence WHERE release = %(id)s
ORDER BY step, checked
"""
INSERT_PUBLICATION = """
INSERT INTO release.publication
  (release, principal, sigma, sector, property, span, exact, items, method)
VALUES (%(release)s, %(principal)s, %(sigma)s, %(sector)s, %(property)s, %(span)s, %(exact)s,
        %(items)s, %(method)s)
"""
COPY_CELLS = "COPY release.cell (release, number, time, cell, persons, mean) FROM STDIN"
SELECT_OVERLAPPING = """
SELECT EXISTS (SELECT FROM release.publication
               WHERE exact AND sector = %(sector)s AND property = %(property)s AND span && %(span)s)
"""
_PUBLISHED = """
SELECT d.id, d.terms, p.at AS published_at, p.items, p.method
FROM release.publication p JOIN release.definition d ON d.id = p.release
"""
SELECT_PUBLISHED = f"{_PUBLISHED} WHERE d.id = %(id)s"
SELECT_PUBLISHED_PAGE = f"""{_PUBLISHED}
WHERE (p.at, p.release) < (%(at)s, %(id)s) ORDER BY p.at DESC, p.release DESC LIMIT %(limit)s
"""
SELECT_CELLS = """
SELECT number, time, cell, persons, mean FROM release.cell
WHERE release = %(id)s AND number > %(after)s ORDER BY number LIMIT %(limit)s
"""
SELECT_CROWD = """
SELECT c.k FROM consent.crowd c JOIN consent.subject s ON s.id = c.subject WHERE s.key = %(person)s
"""


@dataclass(frozen=True, slots=True)
class Published:
    """What is told of a release: Art. 43(3) and (4) of the Act."""

    items: dict[str, str]
    """Which information about individuals it holds, by language."""
    method: dict[str, str]
    """How it is provided, by language."""


@dataclass(frozen=True, slots=True)
class Told:
    """One cell as it is published; without a name it is everyone of its time."""

    time: datetime
    cell: str | None
    persons: int
    mean: float | None


def put_draft(
    connection: Session, principal: Principal, release: UUID, terms: dict[str, Any]
) -> None:
    """Keep what is to be released; CityError `conflict` for other terms under the same id."""
    one(connection, SELECT_RECIPIENT, key=terms["recipient"], field="recipient")
    draft = {"id": release, "principal": principal.name, "terms": Jsonb(terms)}
    connection.execute(INSERT_DEFINITION, draft)
    if (
        one(connection, "SELECT terms FROM release.definition WHERE id = %(id)s", id=release)
        != terms
    ):
        raise CityError("conflict", "another draft has this id: a draft is never changed")


def put_evidence(
    connection: Session, principal: Principal, release: UUID, step: str, method: str
) -> None:
    """Keep how a step was done, by whom, when; CityError `conflict` where it is said already."""
    draft_of(connection, release)
    said = {"release": release, "step": STEPS.index(step) + 1, "checked": False}
    connection.execute(INSERT_EVIDENCE, {**said, "principal": principal.name, "method": method})
    kept = [e["method"] for e in evidence(connection, release) if e["step"] == step]
    if kept[0] != method:
        raise CityError("conflict", f"the evidence of {step} is given already")


def evidence(connection: Session, release: UUID) -> list[Row]:
    """What is on record about the making of a release, step by step."""
    found = rows(connection, SELECT_EVIDENCE, id=release)
    return [{**each, "step": STEPS[each["step"] - 1]} for each in found]


def draft_of(connection: Session, release: UUID) -> Row:
    """A release in any state, with the state's name; CityError `not-found`."""
    found = row(connection, SELECT_DRAFT, id=release)
    if found is None:
        raise CityError("not-found", f"there is no release {release}")
    complete = "evidence-complete" if found.pop("steps") == len(STEPS) else "draft"
    return {**found, "state": "published" if found["published_at"] else complete}


def publish(
    gate: Gate,
    principal: Principal,
    release: UUID,
    said: Published,
    plan_of: Callable[[dict[str, Any]], Plan],
) -> None:
    """Count, check and publish: all of it or nothing; what is published already is left as it is.

    CityError `conflict` for a release whose evidence is not complete, that overlaps another one, or
    for which the budget does not suffice.
    """
    with gate.having(principal, SCOPE, WHAT, writes=True) as connection:
        draft = draft_of(connection, release)
        if draft["state"] == "published":
            if (draft["items"], draft["method"]) != (said.items, said.method):
                raise CityError(
                    "conflict", "it is published already, and said to be of other items"
                )
            return
        if draft["state"] != "evidence-complete":
            raise CityError("conflict", f"evidence of each step is needed: {', '.join(STEPS)}")
        plan = plan_of(draft["terms"])
        if plan.span.upper is None or plan.span.upper > one(connection, SELECT_NOW):
            raise CityError("conflict", "event_to is still to come: a step is told once it is over")
        recipient = one(
            connection, SELECT_RECIPIENT, key=draft["terms"]["recipient"], field="recipient"
        )
        _check_apart(connection, plan)
    if plan.epsilon is not None:
        account = budget.Account(plan.sector.name, plan.declared.name)
        with gate.having(principal, SCOPE, WHAT, writes=True) as connection:
            budget.debit(connection, account, release, plan.epsilon)
    for _ in range(ATTEMPTS):
        with gate.having(principal, SCOPE, WHAT, writes=True) as connection:
            if _publish(connection, principal, release, said, plan, recipient):
                return
    raise CityError("unavailable", "grants change faster than persons are counted: try again")


def _publish(
    connection: Session,
    principal: Principal,
    release: UUID,
    said: Published,
    plan: Plan,
    recipient: int,
) -> bool:
    """In one transaction; False where somebody counted has taken something back meanwhile.

    Who takes something back from now on waits for the barrier, which is held until the commit.
    """
    counted = counting.count(connection, plan, recipient)
    entry = audit.Record(
        principal.name, principal.role.value if principal.role else None, budget.EVERYONE,
        plan.purpose, plan.declared.category, plan.sector.name, "permitted", "anonymised release",
        counted.sigma,
    )  # fmt: skip
    audit.record(connection, entry)
    told = noisy(plan, counted) if plan.epsilon else exact(plan, counted)
    checked = check(plan, told)
    publication = {
        "release": release,
        "principal": principal.name,
        "sigma": counted.sigma,
        "sector": plan.sector.name,
        "property": plan.declared.name,
        "span": plan.span,
        "exact": plan.epsilon is None,
        "items": Jsonb(said.items),
        "method": Jsonb(said.method),
    }
    try:
        connection.execute(INSERT_PUBLICATION, publication)
    except psycopg.errors.ExclusionViolation as error:
        raise _overlapping() from error
    except psycopg.errors.UniqueViolation as error:
        raise CityError("conflict", "it was published at the same time") from error
    _store(connection, release, checked, told)
    personal.lease(connection, recipient)
    chunk = Chunk(entry.id, recipient, counted.sigma, counted.subjects, [], None)
    if personal.is_stale(connection, chunk):
        connection.rollback()
        return False
    return True


def _store(
    connection: Session, release: UUID, checked: Iterable[str], told: Iterable[Told]
) -> None:
    with connection.cursor() as cursor:
        for step, method in enumerate(checked, 1):
            found = {"release": release, "step": step, "checked": True, "method": method}
            cursor.execute(INSERT_EVIDENCE, {**found, "principal": "chimata"})
        with cursor.copy(COPY_CELLS) as copy:
            for number, each in enumerate(told, 1):
                copy.write_row((release, number, each.time, each.cell, each.persons, each.mean))


def exact(plan: Plan, counted: Counted) -> list[Told]:
    """The counts and means of the cells that may be told (consent/anonymity.py says why these)."""
    return [
        Told(
            time, cell.path[-1] if cell.path else None, cell.persons, _mean(plan, cell.total, cell)
        )
        for time, leaves in sorted(counted.leaves.items())
        for cell in anonymity.release(leaves, plan.k)
    ]


def noisy(plan: Plan, counted: Counted) -> list[Told]:
    """Every cell of the definition, counted with noise; those below k with it are left out.

    One person changes at most `steps_max` cells, each count by 1 and each sum by the width of the
    clipped range: adding noise of these scales, the whole table is epsilon-differentially private.
    """
    epsilon = Fraction(plan.epsilon or 0) / (2 if plan.mean else 1)
    steps = plan.steps_max or 0
    width = int((plan.high - plan.low) * plan.units) if plan.mean else 0
    found = {(time, leaf.path): leaf for time, leaves in counted.leaves.items() for leaf in leaves}
    told = []
    for time, path in plan.domain():
        leaf = found.get((time, path), Cell(path, 0))
        persons = leaf.persons + discrete_laplace(steps / epsilon)
        total = leaf.total + discrete_laplace(steps * width / epsilon) if plan.mean else 0
        if persons >= plan.k:
            cell = Cell(path, persons)
            name = path[-1] if path else None
            told.append(Told(time, name, persons, _mean(plan, total, cell)))
    return told


def _mean(plan: Plan, total: int, cell: Cell) -> float | None:
    if not plan.mean:
        return None
    mean = Fraction(plan.low) + Fraction(total, cell.persons * plan.units)
    within = min(max(mean, Fraction(plan.low)), Fraction(plan.high))
    return float(round(within, (plan.declared.decimals or 0) + 1))


def check(plan: Plan, told: Iterable[Told]) -> tuple[str, ...]:
    """What a look at the table itself says of each step of Rule 34; CityError where one fails.

    Names of cells come from the definition alone, so no text of the data can be among them.
    """
    names = {part for path in plan.paths() for part in path}
    free = plan.declared.kind == "position" and not plan.squares
    cells, times = list(told), set(plan.times())
    for each in cells:
        named = each.cell is None or each.cell in names or (free and each.cell.isdecimal())
        if not named or each.time not in times or each.persons < plan.k:
            raise CityError("unavailable", "the table holds what its definition does not allow")
    numbers = f"{len(cells)} cells"
    if plan.epsilon is None:
        nature = f"k = {plan.k} persons for what is left of any cell; no moment was released before"
    else:
        nature = (
            f"epsilon = {plan.epsilon} for one person's whole series, of {plan.steps_max} steps"
        )
    return (
        f"{numbers}: each is a time, a name of the definition, a count and a mean",
        f"{numbers}: no name comes from the data, so no individual identification code does",
        f"{numbers}: nothing is told of one person, so there is nothing to link by",
        f"{numbers}: none below {plan.k}; numbers are clipped to {plan.low} to {plan.high}",
        nature,
    )


def published(connection: Session, release: UUID) -> Row:
    """What is told of a published release; CityError `not-found` for any other."""
    found = row(connection, SELECT_PUBLISHED, id=release)
    if found is None:
        raise CityError("not-found", f"there is no published release {release}")
    return found


def published_page(connection: Session, before: Place | None, limit: int) -> list[Row]:
    """Published releases, the newest first, after a place in their order."""
    at, last = before or NEWEST
    return rows(connection, SELECT_PUBLISHED_PAGE, at=at, id=last, limit=limit)


def cells(connection: Session, release: UUID, after: int, limit: int) -> list[Row]:
    """Cells of a published release, by time; CityError `not-found`."""
    published(connection, release)
    return rows(connection, SELECT_CELLS, id=release, after=after, limit=limit)


def put_crowd(connection: Session, principal: Principal, k: int) -> Written:
    """Be counted only where each cell has so many persons at least."""
    if crowd(connection, principal) == k:
        return unchanged(connection)
    subject = subject_of(connection, principal.subject)
    return write(connection, "CROWD", principal, {"k": k}, subject=subject)


def crowd(connection: Session, principal: Principal) -> int:
    """The smallest crowd that a person asked for; k of every release where none was."""
    found = row(connection, SELECT_CROWD, person=principal.subject)
    return int(found["k"]) if found else anonymity.K


def _check_apart(connection: Session, plan: Plan) -> None:
    """CityError `conflict` where an exact release tells of some of the same moments."""
    sector, name = plan.sector.name, plan.declared.name
    if plan.epsilon is None and one(
        connection, SELECT_OVERLAPPING, sector=sector, property=name, span=plan.span
    ):
        raise _overlapping()


def _overlapping() -> CityError:
    return CityError(
        "conflict",
        "a release tells of some of these moments: their difference is who came and who went",
    )


def budget_of(connection: Session, terms: dict[str, Any]) -> dict[str, str]:
    """What is spent and what may be, in the data set of a draft."""
    account = budget.Account(terms["sector"], terms["property"])
    spent = budget.spent(connection, account)
    return {"epsilon_spent": f"{spent:f}", "epsilon_max": f"{budget.EPSILON_MAX:f}"}
