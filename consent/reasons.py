"""Statements and reasons in plain words, Japanese and English, for the person whose they are."""

from collections.abc import Callable, Iterable

from consent.levels import LEVELS
from consent.matching import Asked, Codes, Matched, Reason, Statement, Verdict
from consent.recipient_kinds import KINDS
from consent.vocabulary import CATEGORIES, PURPOSES, Operation, Tree

Words = dict[str, str]
"""The same in each language: ja, en."""
LANGUAGES = ("ja", "en")


def words(ja: str, en: str) -> Words:
    """Both languages of a text."""
    return {"ja": ja, "en": en}


VERDICTS = {
    Verdict.ALLOW: words("許可する", "Allow"),
    Verdict.ASK: words("そのつど確認する", "Ask me"),
    Verdict.REFUSE: words("断る", "Refuse"),
}
OPERATIONS = {
    Operation.READ: words("閲覧", "reading"),
    Operation.DERIVE: words("分析・加工", "deriving"),
    Operation.ANONYMISE: words("匿名化しての利用", "use once anonymised"),
    Operation.RESHARE: words("再提供", "passing on"),
}
STEPS = {
    "exact": words("そのままの値", "the exact values"),
    "minute": words("1分・100 mごと", "minutes and 100 m"),
    "quarter": words("15分・500 mごと", "quarters of an hour and 500 m"),
    "hour": words("1時間・1 kmごと", "hours and 1 km"),
    "day": words("1日・10 kmごと（市区町村程度）", "days and 10 km, about a town"),
}
EVERY = {
    PURPOSES.root: words("あらゆる目的", "any purpose"),
    CATEGORIES.root: words("あらゆる情報", "any data"),
    KINDS.root: words("あらゆる提供先", "anybody"),
}
BETWEEN = words("・", ", ")
STATED = words(
    "{verdict}：{categories}／{purposes}／{kinds}", "{verdict}: {categories}; {purposes}; {kinds}"
)
LIMITS = {
    "level": words("細かさは{limit}まで", "no more exact than {limit}"),
    "operations": words("{limit}だけ", "{limit} only"),
    "countries": words("{limit}の中だけ", "within {limit} only"),
}
HOME = words("日本", "Japan")

REASONS = {
    "allowed": words(
        "あなたの設定に合っています（{statement}）。", "It fits what you stated ({statement})."
    ),
    "reduced": words(
        "あなたの設定により、{level}より細かくは見せません。",
        "By what you stated, it is shown by {level} at most.",
    ),
    "refused": words(
        "あなたが断ると決めています（{statement}）。", "You stated to refuse it ({statement})."
    ),
    "operation": words(
        "{operation}は、あなたが決めた使い方に入っていません（{statement}）。",
        "You did not allow {operation} ({statement}).",
    ),
    "country": words(
        "データを扱う国が、あなたが決めた範囲の外です（{statement}）。",
        "The data would be where you do not want them to be ({statement}).",
    ),
    "asked": words(
        "あなたに確認すると決めています（{statement}）。", "You want to be asked ({statement})."
    ),
    "not-stated": words(
        "これについて、まだ何も決めていません。", "You have not stated anything about this."
    ),
    "own-word": words(
        "「{category}」を{kind}に「{purpose}」のために渡すには、それを名指しした許可が要ります。",
        "{category}, for “{purpose}”, for this kind of recipient ({kind}): that needs to be named.",
    ),
    "kind-unknown": words(
        "提供先の種類が登録されていないため、あなたに確認します。",
        "Nobody has recorded what kind of organisation this is, so you are asked.",
    ),
}


def title(tree: Tree, code: str | None) -> Words:
    """What a term is called; of one that the tree does not have, its code."""
    term = tree.terms.get(code or "")
    return words(term.ja, term.en) if term else words(code or "不明", code or "unknown")


def describe(statement: Statement) -> Words:
    """A statement in one line."""
    limits: list[tuple[str, Callable[[str], str]]] = []
    if statement.level:
        limits.append(("level", STEPS[LEVELS[statement.level].name].__getitem__))
    if statement.operations is not None:
        limits.append(("operations", _listed([OPERATIONS[each] for each in statement.operations])))
    if statement.countries is not None:
        limits.append(("countries", _listed(country(each) for each in statement.countries)))
    return {
        language: STATED[language].format(
            verdict=VERDICTS[statement.verdict][language],
            purposes=_named(PURPOSES, statement.purposes)(language),
            categories=_named(CATEGORIES, statement.categories)(language),
            kinds=_named(KINDS, statement.kinds)(language),
        )
        + "".join(
            f"; {LIMITS[name][language].format(limit=said(language))}" for name, said in limits
        )
        for language in LANGUAGES
    }


def explain(reason: Reason, matched: Matched, asked: Asked) -> Words:
    """A reason in one sentence."""
    said = describe(reason.statement) if reason.statement else words("", "")
    return {
        language: REASONS[reason.code][language].format(
            statement=said[language],
            level=STEPS[LEVELS[matched.level].name][language],
            operation=OPERATIONS[asked.operation][language],
            purpose=title(PURPOSES, asked.purpose)[language],
            category=title(CATEGORIES, asked.category)[language],
            kind=title(KINDS, asked.kind)[language],
        )
        for language in LANGUAGES
    }


def country(code: str) -> Words:
    """A country by its code; our own by its name."""
    return HOME if code == "JP" else words(code, code)


def _named(tree: Tree, codes: Codes) -> Callable[[str], str]:
    return _listed([EVERY[tree.root]] if codes is None else [title(tree, each) for each in codes])


def _listed(texts: Iterable[Words]) -> Callable[[str], str]:
    kept = list(texts)
    return lambda language: BETWEEN[language].join(each[language] for each in kept)
