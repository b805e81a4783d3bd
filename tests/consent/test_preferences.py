"""Statements against what is asked for: a naive oracle, and that tightening never adds anything."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import permutations, product
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from consent.matching import RANK, TREES, Asked, Matched, Statement, Verdict, is_tighter, match
from consent.preferences import body_of, check
from consent.presets import PRESETS
from consent.reasons import LANGUAGES, describe, explain
from consent.recipient_kinds import KINDS
from consent.vocabulary import CATEGORIES, PURPOSES, VERSION, Operation, Tree

LEVELS_MAX = 4
COUNTRIES = ("JP", "US", "FR")
# Few terms, near each other, so that what is drawn meets: all ways to lie above, below and beside.
PURPOSE_CODES = (
    "dpv:ServiceManagement", "dpv:ServiceProvision", "health:ServiceProvision",
    "dpv:SellDataToThirdParties", "dpv:PublicBenefit", "dpv:ProtectionOfPublicSecurity",
)  # fmt: skip
CATEGORY_CODES = (
    "pd:MedicalHealth", "pd:Health", "pd:Genetic", "chimata:HeartRate", "pd:Location",
    "pd:PhysicalAddress",
)  # fmt: skip
KIND_CODES = (
    "dpv:ForProfitOrganisation", "chimata:Insurer", "chimata:TransportOperator",
    "dpv:GovernmentalOrganisation", "chimata:LawEnforcement",
)  # fmt: skip


def some(values: Iterable[str]) -> st.SearchStrategy[tuple[str, ...] | None]:
    """A few of them, or None for all."""
    several = st.lists(st.sampled_from(list(values)), min_size=1, max_size=3, unique=True)
    return st.none() | several.map(tuple)


verdicts = st.sampled_from([Verdict.ALLOW, Verdict.ALLOW, Verdict.ASK, Verdict.REFUSE])
statements = st.builds(
    Statement,
    st.integers(1, 2**64).map(lambda n: UUID(int=n)),
    verdicts,
    some(PURPOSE_CODES),
    some(CATEGORY_CODES),
    some(KIND_CODES),
    level=st.integers(0, LEVELS_MAX),
    operations=some(list(Operation)),
    countries=some(COUNTRIES),
    otherwise=st.sampled_from([Verdict.ASK, Verdict.REFUSE]),
)
questions = st.builds(
    Asked,
    st.sampled_from(PURPOSE_CODES),
    st.sampled_from(CATEGORY_CODES),
    st.sampled_from([*KIND_CODES, None]),
    st.sampled_from(list(Operation)),
    st.integers(0, LEVELS_MAX),
    st.lists(st.sampled_from(COUNTRIES), min_size=1, max_size=2, unique=True).map(tuple),
)


def permits(tree: Tree, granted: str, code: str) -> bool:
    """Whether a grant for one term is one for another: walked up, step by step."""
    while code != tree.root:
        if code == granted:
            return True
        if tree.terms[code].explicit:
            return False
        code = tree.terms[code].parent
    return False


def is_below(tree: Tree, code: str, top: str) -> bool:
    return code == top or (code != tree.root and is_below(tree, tree.terms[code].parent, top))


def is_plain(tree: Tree, code: str) -> bool:
    """Whether neither it nor anything above it needs a word of its own."""
    return code == tree.root or (
        not tree.terms[code].explicit and is_plain(tree, tree.terms[code].parent)
    )


def naive(said: Iterable[Statement], asked: Asked) -> tuple[Verdict, int]:
    """Term by term of all that a grant would reach: refused if anything of it is."""
    verdict, level, permitted = Verdict.ALLOW, asked.level, False
    for each in said:
        meets, covers = True, True
        for tree, named, code in zip(TREES, each.axes(), asked.axes(), strict=True):
            if code is None:
                covers = False
                continue
            wanted = {term for term in tree.terms if permits(tree, code, term)}
            forbidden = {t for t in tree.terms if any(is_below(tree, t, n) for n in named or ())}
            meets &= named is None or bool(wanted & forbidden)
            covers &= (
                is_plain(tree, code) if named is None
                else any(permits(tree, name, code) for name in named)
            )  # fmt: skip
        if not meets:
            continue
        broken = each.verdict is not Verdict.REFUSE and (
            (each.operations is not None and asked.operation not in each.operations)
            or (each.countries is not None and not set(asked.countries) <= set(each.countries))
        )
        for one in (each.verdict, *([each.otherwise] if broken else [])):
            verdict = max(verdict, one, key=RANK.__getitem__)
        level = max(level, each.level)
        permitted |= covers and each.verdict is Verdict.ALLOW
    return max(verdict, Verdict.ALLOW if permitted else Verdict.ASK, key=RANK.__getitem__), level


@settings(max_examples=500, deadline=None)
@given(st.lists(statements, max_size=4), questions)
def test_the_strictest_statement_wins_as_the_oracle_says(
    said: list[Statement], asked: Asked
) -> None:
    found = match(said, asked)
    assert (found.verdict, found.level) == naive(said, asked)
    assert found.reasons


def answers(said: list[Statement], asked: Asked) -> dict[str | None, Matched]:
    """What each kind of recipient would be told."""
    return {kind: match(said, replace(asked, kind=kind)) for kind in (*KINDS.terms, None)}


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.lists(statements, min_size=1, max_size=4), st.data())
def test_property_19_tightening_never_adds_a_recipient(
    said: list[Statement], data: st.DataObject
) -> None:
    """One statement, tighter, taken back or added: nothing becomes less strict for anybody."""
    before: Statement | None = data.draw(st.none() | st.sampled_from(said))
    after = data.draw(st.none() | statements | changed(before))
    assume(is_tighter(after, before))
    then = [each for each in said if each is not before] + ([after] if after else [])
    asked = data.draw(questions)
    was, now = answers(said, asked), answers(then, asked)
    for kind, found in now.items():
        assert RANK[found.verdict] >= RANK[was[kind].verdict], kind
        assert found.level >= was[kind].level or found.verdict is Verdict.REFUSE
    allowed = {kind for kind, found in now.items() if found.verdict is Verdict.ALLOW}
    assert allowed <= {kind for kind, found in was.items() if found.verdict is Verdict.ALLOW}


def test_property_19_tightening_never_adds_a_recipient_whatever_else_is_said() -> None:
    """Every pair of statements of a small world, tighter: alone, and beside a mild one."""
    mild = Statement(UUID(int=2), Verdict.ALLOW)
    world: list[Statement | None] = [None] + [
        Statement(UUID(int=1), verdict, kinds=kinds, level=level, countries=countries)
        for verdict in Verdict
        for kinds in (None, KIND_CODES[2:3])
        for level in (0, 3)
        for countries in (None, COUNTRIES[:1])
    ]
    asked = Asked("dpv:PublicBenefit", "pd:Location", None, Operation.READ, 0, COUNTRIES[:2])
    for (before, after), beside in product(permutations(world, 2), ([], [mild])):
        if not is_tighter(after, before):
            continue
        was = answers([*beside, *filter(None, [before])], asked)
        for kind, now in answers([*beside, *filter(None, [after])], asked).items():
            assert RANK[now.verdict] >= RANK[was[kind].verdict], (before, after, kind)
            assert now.level >= was[kind].level or now.verdict is Verdict.REFUSE, (before, after)


def changed(before: Statement | None) -> st.SearchStrategy[Statement]:
    """A statement with one thing changed, for the better or the worse."""
    if before is None:
        return statements
    return st.one_of(
        verdicts.map(lambda v: replace(before, verdict=v)),
        some(PURPOSE_CODES).map(lambda c: replace(before, purposes=c)),
        some(CATEGORY_CODES).map(lambda c: replace(before, categories=c)),
        some(KIND_CODES).map(lambda c: replace(before, kinds=c)),
        st.integers(0, LEVELS_MAX).map(lambda n: replace(before, level=n)),
        some(list(Operation)).map(lambda o: replace(before, operations=o)),  # type: ignore[arg-type]
        some(COUNTRIES).map(lambda c: replace(before, countries=c)),
        st.just(replace(before, otherwise=Verdict.ASK)),
    )


ALLOW = Statement(UUID(int=1), Verdict.ALLOW, ("dpv:PublicBenefit",), ("pd:Location",))


@pytest.mark.parametrize(
    ("after", "before", "tighter"),
    [
        (replace(ALLOW, level=3), ALLOW, True),
        (ALLOW, replace(ALLOW, level=3), False),
        (replace(ALLOW, countries=("JP",)), ALLOW, True),
        (replace(ALLOW, verdict=Verdict.ASK), ALLOW, True),
        (replace(ALLOW, level=1, otherwise=Verdict.ASK), replace(ALLOW, level=1), False),
        (None, ALLOW, True),
        (ALLOW, None, False),
        (replace(ALLOW, verdict=Verdict.REFUSE), None, True),
        (replace(ALLOW, kinds=KIND_CODES[:1]), ALLOW, True),
        (ALLOW, replace(ALLOW, kinds=KIND_CODES[:1]), False),
        # What a statement forbids elsewhere goes with its scope.
        (replace(ALLOW, level=3, kinds=KIND_CODES[:1]), replace(ALLOW, level=3), False),
        (None, replace(ALLOW, level=3), False),
    ],
)
def test_what_is_tighter(after: Statement | None, before: Statement | None, tighter: bool) -> None:
    assert is_tighter(after, before) is tighter


def test_special_care_needs_a_word_of_its_own() -> None:
    """Everything is allowed to everybody: that is no word for health, nor for an insurer."""
    everything = [Statement(UUID(int=1), Verdict.ALLOW)]
    purpose, kind = "dpv:ImprovePublicServices", "dpv:GovernmentalOrganisation"
    for category in CATEGORIES.terms:
        asked = Asked(purpose, category, kind, Operation.READ, 0, ("JP",))
        found = match(everything, asked)
        if CATEGORIES.is_special(category):
            assert found.verdict is Verdict.ASK
            assert [reason.code for reason in found.reasons] == ["own-word"]
            named = replace(everything[0], categories=(category,))
            assert match([named], asked).verdict is Verdict.ALLOW
    asked = Asked(purpose, "pd:Location", "chimata:Insurer", Operation.READ, 0, ("JP",))
    assert match(everything, asked).verdict is Verdict.ASK
    assert match(everything, replace(asked, kind=None)).verdict is Verdict.ASK


@settings(max_examples=200, deadline=None)
@given(st.lists(statements, max_size=3), questions)
def test_every_answer_has_its_reason_in_words(said: list[Statement], asked: Asked) -> None:
    found = match(said, asked)
    for reason in found.reasons:
        text = explain(reason, found, asked)
        assert tuple(text) == LANGUAGES
        assert all(text.values())
        assert "{" not in "".join(text.values())


def test_presets_mean_what_they_say() -> None:
    def verdict(preset: str, **other: object) -> Verdict:
        asked = Asked(
            "dpv:ImproveTransportMobility", "pd:TravelHistory", "dpv:GovernmentalOrganisation",
            Operation.READ, 0, ("JP",),
        )  # fmt: skip
        return match(PRESETS[preset].of(1), replace(asked, **other)).verdict  # type: ignore[arg-type]

    care = {"purpose": "health:ServiceProvision", "category": "chimata:HeartRate",
            "kind": "dpv:HealthcareOrganisation"}  # fmt: skip
    assert {name: verdict(name) for name in PRESETS} == {
        "ask-me": "ask", "care-and-public-benefit": "allow", "anonymous-only": "refuse",
        "nothing": "refuse",
    }  # fmt: skip
    shared = "care-and-public-benefit"
    assert verdict(shared, **care) == "allow"
    assert verdict(shared, **{**care, "kind": "chimata:Insurer"}) == "ask"
    assert verdict(shared, purpose="dpv:PersonalisedAdvertising") == "refuse"
    assert verdict(shared, countries=("US",)) == "refuse"
    assert verdict(shared, kind="chimata:TransportOperator") == "ask"
    assert verdict("anonymous-only", operation=Operation.ANONYMISE) == "allow"
    assert verdict("anonymous-only", operation=Operation.ANONYMISE, category="pd:Health") == "ask"
    assert verdict("nothing", **care) == "refuse"
    for preset in PRESETS.values():
        assert {*preset.title, *preset.meaning} == set(LANGUAGES)
        for each in preset.of(1):
            check(each)
            assert describe(each)["ja"] != describe(each)["en"]


SELECT_TERMS = """
SELECT tree, code, above, reaching, explicit, special FROM consent.term WHERE version = %s
"""


def test_the_vocabulary_is_the_same_in_both_languages(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(SELECT_TERMS, (VERSION,)).fetchall()
    trees = {"purpose": PURPOSES, "category": CATEGORIES, "kind": KINDS}
    assert len(rows) == sum(len(tree.terms) for tree in trees.values())
    for name, code, above, reaching, explicit, special in rows:
        tree = trees[name]
        assert (tuple(above), tuple(reaching)) == (tree.above(code), tree.reaching(code)), code
        assert (explicit, special) == (not is_plain(tree, code), tree.is_special(code)), code


STATE = "SELECT consent.state(%s, 1, NULL, NULL, 1)"
KIND_IS = """
CREATE OR REPLACE FUNCTION consent.kind_of(of_recipient integer) RETURNS text LANGUAGE sql STABLE
AS $$ SELECT nullif(current_setting('test.kind'), '') $$
"""
SELECT_ALLOWS = """
SELECT consent.allows(f) FROM jsonb_populate_record(NULL::consent.granted, %s) AS f
"""


@pytest.fixture(scope="module")
def stated(module_database_url: str) -> Iterable[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(module_database_url) as connection:
        connection.execute(KIND_IS)
        yield connection


@settings(max_examples=300, deadline=None)
@given(said=st.lists(statements, max_size=4, unique_by=lambda s: s.id), asked=questions)
def test_property_19_the_database_allows_what_the_statements_do(
    stated: psycopg.Connection[tuple[object, ...]], said: list[Statement], asked: Asked
) -> None:
    """consent.allows, which each grant of a delegate must pass, and the one that gives reasons."""
    found = match(said, asked)
    with stated.transaction(force_rollback=True):
        for each in said:
            stated.execute(STATE, (psycopg.types.json.Jsonb(body_of(each)),))
        stated.execute("SELECT set_config('test.kind', %s, true)", (asked.kind or "",))
        for level in {found.level, max(found.level - 1, 0)}:
            form = {
                "subject": 1, "recipient": 1, "purpose": asked.purpose, "category": asked.category,
                "operation": asked.operation.value, "level": level,
                "countries": list(asked.countries),
            }  # fmt: skip
            row = stated.execute(SELECT_ALLOWS, (psycopg.types.json.Jsonb(form),)).fetchone()
            enough = level >= match(said, replace(asked, level=0)).level
            assert row == (found.verdict is Verdict.ALLOW and enough,)
