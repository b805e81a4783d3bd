"""A FHIR search for Observations: its parameters as a jsonpath over stored documents; pure.

A parameter that we do not know is refused: passed over, it would widen what is disclosed.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from domains.health import times
from domains.health.fhir import fault
from domains.health.observation import category_of_code
from domains.health.wire import DOCUMENTS

COUNT_DEFAULT = 100
VALUES_MAX = 50
CHARACTERS_MAX = 1_000
ALL = "pd:MedicalHealth"
FORMATS = frozenset({"json", "application/json", "application/fhir+json"})
SINGLE = ("patient", "_purpose", "_count", "_cursor", "_format")
PARAMETERS = (*SINGLE, "code", "date")
_ESCAPED = re.compile(r"\\([\\,|$])")
_PATIENT = re.compile(r"(?:(?P<base>https?://.+/)?Patient/)?(?P<name>[a-z2-7]{1,64})")


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for. `category`: what all of it tells of a person."""

    purpose: str
    category: str = ALL
    properties: frozenset[str] = field(default_factory=lambda: frozenset(DOCUMENTS.values()))
    path: str | None = None
    patient: str | None = None
    count: int | None = None
    cursor: str | None = None
    text: str = ""
    """All of it but the cursor."""


def parse(parameters: Iterable[tuple[str, str]], base: str) -> Search:
    """A search by its parameters in their order; FhirError for what is not known or not clear."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in PARAMETERS:
            raise fault("not-supported", f"takes {', '.join(PARAMETERS)} and no others", name[:60])
        if not value or len(value) > CHARACTERS_MAX or not value.isprintable():
            raise fault("value", "must be 1 to 1000 printable characters", name)
        given.setdefault(name, []).append(value)
    for name in SINGLE:
        if len(given.get(name, ())) > 1:
            raise fault("value", "stands twice", name)
    if "_purpose" not in given:
        raise fault("required", "for which purpose? See /v1/consent/vocabulary", "_purpose")
    if given.get("_format", ["json"])[0] not in FORMATS:
        raise fault("not-supported", "only JSON", "_format")
    conditions = [_codes(value) for value in given.get("code", ())]
    conditions += [_dates(value) for value in given.get("date", ())]
    category = _category([token for value in given.get("code", ()) for token in _tokens(value)])
    kept = [(name, values) for name, values in sorted(given.items()) if name != "_cursor"]
    return Search(
        given["_purpose"][0],
        category,
        frozenset(DOCUMENTS.values()) if category == ALL else frozenset({DOCUMENTS[category]}),
        f"$ ? ({' && '.join(conditions)})" if conditions else None,
        _patient(given["patient"][0], base) if "patient" in given else None,
        _count(given["_count"][0]) if "_count" in given else None,
        given.get("_cursor", [None])[0],
        json.dumps(kept),
    )


def _tokens(value: str) -> list[tuple[str | None, str | None]]:
    """(system, code) of each value of a token parameter; None: any, an empty system: none."""
    found: list[tuple[str | None, str | None]] = []
    for text in re.split(r"(?<!\\),", value):
        parts = [_ESCAPED.sub(r"\1", part) for part in re.split(r"(?<!\\)\|", text)]
        if len(parts) == 1 and parts[0]:
            found.append((None, parts[0]))
        elif len(parts) == 2 and any(parts):  # noqa: PLR2004
            found.append((parts[0], parts[1] or None))
        else:
            raise fault("value", "must be code, system|code, |code or system|", "code")
    if len(found) > VALUES_MAX:
        raise fault("too-costly", f"has over {VALUES_MAX} values", "code")
    return found


def _codes(value: str) -> str:
    wanted = []
    for system, code in _tokens(value):
        said = [f"@.code == {json.dumps(code)}"] if code else []
        if system is not None:
            said.append(f"@.system == {json.dumps(system)}" if system else "!exists(@.system)")
        wanted.append(f"exists(@.resource.code.coding[*] ? ({' && '.join(said)}))")
    return f"({' || '.join(wanted)})"


def _dates(value: str) -> str:
    values = value.split(",")
    if len(values) > VALUES_MAX:
        raise fault("too-costly", f"has over {VALUES_MAX} values", "date")
    return f"({' || '.join(map(times.condition, values))})"


def _category(tokens: Sequence[tuple[str | None, str | None]]) -> str:
    """What is asked for: what the codes of LOINC that we know tell, all of it with any other."""
    found = {category_of_code(system or "", code or "") or ALL for system, code in tokens}
    return found.pop() if len(found) == 1 else ALL


def _patient(value: str, base: str) -> str:
    match = _PATIENT.fullmatch(value)
    if match is None or match["base"] not in (None, f"{base}/"):
        raise fault("value", "must be the id that you know from an answer of yours", "patient")
    return match["name"]


def _count(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 9 or int(value) < 1:  # noqa: PLR2004
        raise fault("value", "must be a number from 1 on", "_count")
    return int(value)
