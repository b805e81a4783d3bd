"""What persons state once about what recipients may ask for: acts PREFER, UNPREFER and PRESET.

Each ends in the same act what was granted on a person's standing word and is no longer allowed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from consent import log
from consent.log import Session, Written
from consent.matching import TREES, Statement, Verdict, is_tighter
from consent.presets import DEFAULT, PRESETS
from consent.results import Row
from consent.vocabulary import VERSION, Operation
from core.errors import CityError, invalid
from core.tokens import Principal

STATEMENTS_MAX = 100
"""Of one person: beside those of a preset."""

_STATED = """
SELECT p.id, p.subject, p.verdict, p.purposes, p.categories, p.kinds, p.level, p.operations,
       p.countries, p.otherwise, p.preset, p.sigma, p.guardianship,
       p.guardianship IS NOT NULL AND NOT coalesce(w.valid @> clock_timestamp(), false) AS lapsed
FROM consent.preference p LEFT JOIN consent.guardianship w ON w.id = p.guardianship
"""
SELECT_PREFERENCE = f"{_STATED} WHERE p.id = %(id)s"
SELECT_PREFERENCES = f"""
{_STATED} WHERE p.subject = ANY(%(subjects)s)
ORDER BY p.subject, p.preset NULLS FIRST, p.sigma, p.id
"""
SELECT_NUMBER = "SELECT id FROM consent.subject WHERE key = %(key)s"


def put_preference(
    connection: Session, principal: Principal, said: Statement
) -> tuple[Written, bool]:
    """State something, or something else in its place; what is stated already is no new act.

    And whether that permits no more than before, whatever else is stated.
    """
    subject = log.subject_of(connection, principal.subject)
    check(said)
    said = replace(said, voice=principal.guardianship)
    before = log.row(connection, SELECT_PREFERENCE, id=said.id)
    if before is not None:
        if before["subject"] != subject or before["preset"] is not None:
            raise CityError("conflict", "this id was used before: give a new statement a new one")
        _check_voice(principal, before)
        if statement_of(before) == said:
            return log.unchanged(connection, before["sigma"]), True
    elif len(statements_of(connection, [subject])[subject]) >= STATEMENTS_MAX:
        raise CityError("conflict", f"you have {STATEMENTS_MAX} statements: take one back first")
    tighter = is_tighter(said, statement_of(before) if before else None)
    with log.explained("preference"):
        body = body_of(said)
        return log.write(connection, "PREFER", principal, body, subject=subject), tighter


def delete_preference(connection: Session, principal: Principal, preference: UUID) -> Written:
    """Take a statement back; one that is not there is taken back already."""
    subject = log.subject_of(connection, principal.subject)
    before = log.row(connection, SELECT_PREFERENCE, id=preference)
    if before is None:
        return log.unchanged(connection)
    if before["subject"] != subject or before["preset"] is not None:
        raise CityError("not-found", f"there is no statement {preference} of yours")
    _check_voice(principal, before)
    body = {"preference": str(preference)}
    with log.explained("preference"):
        return log.write(connection, "UNPREFER", principal, body, subject=subject)


def put_preset(connection: Session, principal: Principal, preset: str) -> Written:
    """Choose a preset in place of the one of before; what is stated beside it stays."""
    subject = log.subject_of(connection, principal.subject)
    voice = principal.guardianship
    wanted = [replace(each, voice=voice) for each in PRESETS[preset].of(subject)]
    before = [row for row in select_rows(connection, [subject]) if row["preset"] is not None]
    for row in before:
        _check_voice(principal, row)
    if {row["preset"] for row in before} <= {preset} and set(wanted) == set(
        map(statement_of, before)
    ):
        return log.unchanged(connection, max((row["sigma"] for row in before), default=0))
    body = {"preset": preset, "statements": [body_of(each) for each in wanted]}
    with log.explained("preset"):
        return log.write(connection, "PRESET", principal, body, subject=subject)


def select_own(connection: Session, principal: Principal) -> tuple[str, list[Row]]:
    """The preset of a person, and all statements: the person's own first."""
    found = log.row(connection, SELECT_NUMBER, key=principal.subject)
    rows = select_rows(connection, [found["id"]]) if found else []
    return next((row["preset"] for row in rows if row["preset"]), DEFAULT), rows


def select_rows(connection: Session, subjects: Sequence[int]) -> list[Row]:
    """The statements of some persons, the persons' own first."""
    return log.rows(connection, SELECT_PREFERENCES, subjects=list(subjects))


def statements_of(
    connection: Session, subjects: Sequence[int]
) -> Mapping[int, Sequence[Statement]]:
    """What each of some persons states, those of presets too."""
    said: dict[int, list[Statement]] = {subject: [] for subject in subjects}
    for row in select_rows(connection, subjects):
        said[row["subject"]].append(statement_of(row))
    return said


def statement_of(row: Row) -> Statement:
    """A stored statement. What a guardian allowed while there was one is asked from then on."""
    operations, verdict = row["operations"], Verdict(row["verdict"])
    return Statement(
        row["id"],
        Verdict.ASK if row["lapsed"] and verdict is Verdict.ALLOW else verdict,
        _tuple(row["purposes"]),
        _tuple(row["categories"]),
        _tuple(row["kinds"]),
        row["level"],
        None if operations is None else tuple(Operation(each) for each in operations),
        _tuple(row["countries"]),
        Verdict(row["otherwise"]),
        row["guardianship"],
    )


def body_of(said: Statement) -> dict[str, Any]:
    """A statement as the log has it."""
    return {
        "preference": str(said.id),
        "verdict": said.verdict.value,
        "purposes": _list(said.purposes),
        "categories": _list(said.categories),
        "kinds": _list(said.kinds),
        "level": said.level,
        "operations": _list(said.operations),
        "countries": _list(said.countries),
        "otherwise": said.otherwise.value,
        "version": VERSION,
    }


def check(said: Statement) -> None:
    """CityError `invalid` for a statement that says nothing, or what nobody can say."""
    fields = ("purposes", "categories", "kinds")
    for field, tree, codes in zip(fields, TREES, said.axes(), strict=True):
        for code in codes or ():
            tree.check(field, code)
    if said.verdict is Verdict.REFUSE and (said.level or said.operations or said.countries):
        raise invalid("verdict", "a refusal has no conditions: allow with conditions instead")
    if said.otherwise is Verdict.ALLOW:
        raise invalid("otherwise", "ask or refuse")


def _check_voice(principal: Principal, before: Row) -> None:
    """CityError `conflict` for what a guardian, or the ward, states as long as both have a say.

    The strictest wins: who wants more to be refused states that beside it.
    """
    if before["guardianship"] != principal.guardianship and not before["lapsed"]:
        raise CityError("conflict", "another who has a say here stated it: state yours beside it")


def _tuple(values: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _list(values: Iterable[str] | None) -> list[str] | None:
    return None if values is None else list(values)
