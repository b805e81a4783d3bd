"""What a person's statements say to something that is asked for: allow, ask the person, or refuse.

Pure, and the same question as consent.allows of the database, which each grant on a person's
standing word must pass. A statement speaks of purposes, categories and kinds of recipient; left
out: of all. It *touches* what is asked for if it speaks of any of it: of it, of what is above it,
or of what a grant of it would reach. It *reaches* it as a grant would: from above, but not through
a term that needs a word of its own. What an allowing statement reaches it permits; what a
statement touches it restricts, by its verdict and its conditions, and the strictest wins.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from consent.recipient_kinds import KINDS
from consent.vocabulary import CATEGORIES, PURPOSES, Operation, Tree


class Verdict(StrEnum):
    """From the least to the most strict."""

    ALLOW = "allow"
    ASK = "ask"
    REFUSE = "refuse"


RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}
Codes = tuple[str, ...] | None
"""Terms with all below them; None: every term."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that a person said once; a refusal has no conditions."""

    id: UUID
    verdict: Verdict
    purposes: Codes = None
    categories: Codes = None
    kinds: Codes = None
    level: int = 0
    """The most exact that may be shown (consent.levels)."""
    operations: tuple[Operation, ...] | None = None
    countries: tuple[str, ...] | None = None
    otherwise: Verdict = Verdict.REFUSE
    """What holds where a condition, of operation or country, is broken."""
    voice: UUID | None = None
    """The guardianship in whose voice it was said; None: the person's own."""

    def axes(self) -> tuple[Codes, Codes, Codes]:
        """What it speaks of, in the order of TREES."""
        return self.purposes, self.categories, self.kinds

    def restricts(self) -> bool:
        """Whether there is anything that would be less without it."""
        return (
            self.verdict is not Verdict.ALLOW
            or self.level > 0
            or self.operations is not None
            or self.countries is not None
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a recipient asks for; its kind is None if nobody knows it."""

    purpose: str
    category: str
    kind: str | None
    operation: Operation
    level: int
    countries: tuple[str, ...]

    def axes(self) -> tuple[str, str, str | None]:
        """In the order of TREES."""
        return self.purpose, self.category, self.kind


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a code of consent.reasons, and the statement that says so, if one does."""

    code: str
    statement: Statement | None = None


@dataclass(frozen=True, slots=True)
class Matched:
    """The answer: its reasons are those of its verdict. `level`: how exactly it may be shown."""

    verdict: Verdict
    level: int
    reasons: tuple[Reason, ...]

    def voice(self) -> UUID | None:
        """In whose voice it is allowed: the person's own, or a guardian's where no other is."""
        voices = [each.statement.voice for each in self.reasons if each.statement]
        return None if None in voices else next(iter(voices), None)


TREES = (PURPOSES, CATEGORIES, KINDS)
Covers = Callable[[Tree, Codes, str], bool]


def touches(tree: Tree, named: Codes, code: str | None) -> bool:
    """Whether what is named, what is asked for, and all that belongs to either have a part in
    common; an unknown code may be anything."""
    if named is None or code not in tree or code is None:
        return True
    above = tree.above(code)
    return any(each in above or code in tree.reaching(each) for each in named)


def reaches(tree: Tree, named: Codes, code: str | None) -> bool:
    """Whether a word for what is named is one for the code; never for an unknown one."""
    if code not in tree or code is None:
        return False
    if named is None:
        return not any(tree.terms[each].explicit for each in tree.above(code))
    return any(each in tree.reaching(code) for each in named)


def match(statements: Iterable[Statement], asked: Asked) -> Matched:
    """What the statements of one person say: the strictest that touches it; nothing: ask."""
    axes = asked.axes()
    said: list[tuple[Verdict, Reason]] = []
    level, permitted, general = asked.level, False, False
    for each in statements:
        parts = tuple(zip(TREES, each.axes(), axes, strict=True))
        if not all(touches(*part) for part in parts):
            continue
        said += [(verdict, Reason(code, each)) for code, verdict in _restrictions(each, asked)]
        level = max(level, each.level)
        general |= each.verdict is Verdict.ALLOW
        if each.verdict is Verdict.ALLOW and all(reaches(*part) for part in parts):
            permitted = True
            said.append((Verdict.ALLOW, Reason("allowed", each)))
    if not permitted:
        code = "own-word" if general else "not-stated"
        said.append((Verdict.ASK, Reason(code if asked.kind in KINDS else "kind-unknown")))
    verdict = max((verdict for verdict, _ in said), key=RANK.__getitem__)
    reasons = tuple(reason for each, reason in said if each is verdict)
    if verdict is not Verdict.REFUSE and level > asked.level:
        reasons += (Reason("reduced"),)
    return Matched(verdict, level, reasons)


def _restrictions(statement: Statement, asked: Asked) -> Iterable[tuple[str, Verdict]]:
    """What a statement that touches the question has against it: codes of reasons, verdicts."""
    if statement.verdict is Verdict.REFUSE:
        yield "refused", Verdict.REFUSE
        return
    if statement.operations is not None and asked.operation not in statement.operations:
        yield "operation", statement.otherwise
    if statement.countries is not None and not set(asked.countries) <= set(statement.countries):
        yield "country", statement.otherwise
    if statement.verdict is Verdict.ASK:
        yield "asked", Verdict.ASK


def is_tighter(after: Statement | None, before: Statement | None) -> bool:
    """Whether saying one thing in place of another permits nothing more, whatever else is said.

    None: nothing is said. A partial order: what is not tighter need not be wider.
    """
    if after is not None and after.verdict is Verdict.ALLOW:
        if before is None or before.verdict is not Verdict.ALLOW:
            return False
        if not _within(after.axes(), before.axes(), reaches):
            return False
    if before is None or not before.restricts():
        return True
    return (
        after is not None
        and RANK[after.verdict] >= RANK[before.verdict]
        and _within(before.axes(), after.axes(), touches)
        and (after.verdict is Verdict.REFUSE or _is_stricter(after, before))
    )


def _within(inner: Sequence[Codes], outer: Sequence[Codes], covers: Covers) -> bool:
    """Whether, of each tree, the terms that one covers are covered by the other."""
    return all(
        covers(tree, many, code)
        for tree, few, many in zip(TREES, inner, outer, strict=True)
        for code in tree.terms
        if covers(tree, few, code)
    )


def _is_stricter(after: Statement, before: Statement) -> bool:
    """Whether each condition is at least as strict."""
    return (
        after.level >= before.level
        and RANK[after.otherwise] >= RANK[before.otherwise]
        and _subset(after.operations, before.operations)
        and _subset(after.countries, before.countries)
    )


def _subset(few: Iterable[str] | None, many: Iterable[str] | None) -> bool:
    return many is None or (few is not None and set(few) <= set(many))
