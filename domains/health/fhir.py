"""FHIR R4 resources: read strictly, checked by fhir.resources and the rules it leaves out; pure.

R4B models read R4 here: HL7 changed nothing in the resources that we take. Numbers stay as they
were written (Decimal): in FHIR their precision is meaning, and the models would round it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Never

import orjson

Resource = dict[str, Any]

VERSION = "4.0.1"
MEDIA_TYPE = "application/fhir+json"
ENTRIES_MAX = 1_000
DEPTH_MAX = 60
NUMBER_CHARACTERS_MAX = 40
EXPONENT_MAX = 40
ISSUES_MAX = 20
CODES = frozenset({
    "invalid", "structure", "required", "value", "invariant", "security", "login", "forbidden",
    "processing", "not-supported", "duplicate", "not-found", "too-long", "code-invalid",
    "extension", "too-costly", "business-rule", "conflict", "exception", "timeout", "throttled",
    "informational",
})  # fmt: skip
"""Of OperationOutcome.issue.code: those that we say."""
BUNDLES = frozenset({"transaction", "batch", "collection"})
METHODS = frozenset({"POST", "PUT"})
OBSERVED = frozenset({
    "registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error",
    "unknown",
})  # fmt: skip
"""Observation.status, which the models do not enforce."""
BUNDLE_TYPES = BUNDLES | {
    "document", "message", "transaction-response", "batch-response", "history", "searchset",
}  # fmt: skip
CONSENTED = frozenset({"draft", "proposed", "active", "rejected", "inactive", "entered-in-error"})
STATUS = {"Observation": OBSERVED, "Consent": CONSENTED}
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_TYPE_FAULTS = {
    "missing": ("required", "is missing"),
    "extra_forbidden": ("structure", "is not known"),
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to say of a resource; `where` is a FHIRPath of its parts."""

    code: str
    text: str
    where: str = ""
    severity: str = "error"


class FhirError(ValueError):
    """A resource that cannot be taken; never a value of it in any text."""

    def __init__(self, *issues: Issue) -> None:
        super().__init__("; ".join(f"{i.where}: {i.text}" if i.where else i.text for i in issues))
        self.issues = issues


def fault(code: str, text: str, where: str = "") -> FhirError:
    """The error of one issue."""
    return FhirError(Issue(code, text, where))


def outcome(issues: Sequence[Issue]) -> Resource:
    """The OperationOutcome of some issues; of none: that all went well."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": each.severity,
                "code": each.code,
                "details": {"text": each.text},
                **({"expression": [each.where]} if each.where else {}),
            }
            for each in issues or (Issue("informational", "all is stored", "", "information"),)
        ],
    }


# --- JSON -----------------------------------------------------------------------------------------


def read(raw: bytes | str) -> Resource:
    """A resource as it was written; FhirError for what is no JSON object that can be stored."""
    try:
        value = json.loads(
            raw,
            object_pairs_hook=_unique,
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_no_number,
        )
    except FhirError:
        raise
    except (ValueError, RecursionError) as error:
        raise fault("structure", f"not JSON ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise fault("structure", "not a JSON object")
    _check_depth(value)
    return value


def stored(text: str | bytes) -> Resource:
    """What was read before, and kept."""
    kept: Resource = json.loads(text, parse_float=Decimal)
    return kept


def write(value: Any) -> bytes:
    """JSON, each number as it was read."""
    return orjson.dumps(value, default=_exact)


def _exact(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError(f"{type(value).__name__} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> Resource:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise fault("structure", "a name stands twice in one object")
    return found


def _decimal(text: str) -> Decimal:
    number = Decimal(text)
    if len(text) > NUMBER_CHARACTERS_MAX or abs(number.adjusted()) > EXPONENT_MAX:
        raise fault("value", "a number has too many digits")
    return number


def _integer(text: str) -> int:
    if len(text) > NUMBER_CHARACTERS_MAX // 2:
        raise fault("value", "a number has too many digits")
    return int(text)


def _no_number(text: str) -> Never:
    raise fault("structure", f"{text} is no JSON")


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > DEPTH_MAX:
        raise fault("too-costly", f"nested deeper than {DEPTH_MAX}")
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise fault("structure", "a text holds a character that cannot be stored")
    elif isinstance(value, list):
        for each in value:
            _check_depth(each, depth + 1)
    elif isinstance(value, dict):
        for name, each in value.items():
            if each is None:
                raise fault("structure", "null is no value")
            _check_depth(name, depth + 1)
            _check_depth(each, depth + 1)


# --- what makes a resource a valid one ------------------------------------------------------------


def check(resource: Resource) -> None:
    """FhirError with all that is wrong with a resource and what it contains."""
    for where, each in nested(resource):
        kind = each.get("resourceType")
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind) or not _model(kind):
            raise fault("not-supported", "is no resource of FHIR R4", f"{where}.resourceType")
    kind = str(resource["resourceType"])
    from pydantic import ValidationError

    try:
        _model(kind).model_validate_json(write(resource))
    except ValidationError as error:
        raise FhirError(*_issues(kind, error)) from error
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise fault("structure", "cannot be read as a resource of its type", kind) from error
    issues = [*_invariants(kind, resource)]
    if issues:
        raise FhirError(*issues)


def check_bundle(bundle: Resource) -> None:
    """FhirError for what is wrong with a Bundle itself, whatever its entries hold."""
    parts = bundle.get("entry", [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise fault("structure", "is no list of entries", "Bundle.entry")
    hollow = [{name: each for name, each in part.items() if name != "resource"} for part in parts]
    check({**bundle, **({"entry": hollow} if parts else {})})
    if issues := list(_bundle_invariants(bundle)):
        raise FhirError(*issues)


def nested(resource: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """It, and all resources inside of it, with their paths."""
    kind = resource.get("resourceType")
    path = where or (kind if isinstance(kind, str) else "Resource")
    yield path, resource
    for name in ("contained", "entry", "parameter", "part"):
        parts = resource.get(name)
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            if not isinstance(part, dict):
                continue
            inner = f"{path}.{name}[{number}]"
            if name == "contained":
                yield from nested(part, inner)
            elif isinstance(part.get("resource"), dict):
                yield from nested(part["resource"], f"{inner}.resource")


def _model(kind: str) -> Any:
    from fhir.resources.R4B import get_fhir_model_class

    try:
        return get_fhir_model_class(kind)
    except (KeyError, ValueError, ImportError, AttributeError):
        return None


def _issues(kind: str, error: Any) -> Iterator[Issue]:
    """What the model says, by its places: its texts may quote what they refuse."""
    for each in error.errors(include_input=False, include_url=False)[:ISSUES_MAX]:
        code, text = _TYPE_FAULTS.get(each["type"], ("value", "is not valid"))
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in each["loc"])
        yield Issue(code, text, kind + where[:200])


def _invariants(kind: str, resource: Resource) -> Iterator[Issue]:
    if kind in STATUS and resource.get("status") not in STATUS[kind]:
        yield Issue("code-invalid", "is no code of its value set", f"{kind}.status")
    if kind == "Observation" and "dataAbsentReason" in resource and value_of(resource):
        yield Issue("invariant", "obs-6: only where there is no value", f"{kind}.dataAbsentReason")
    if kind == "Consent" and not ("policy" in resource or "policyRule" in resource):
        yield Issue("invariant", "ppc-1: a policy or a policyRule", kind)
    inside = resource.get("contained", ())
    if any("contained" in each for each in inside):
        yield Issue("invariant", "dom-2: nothing contained has contents", f"{kind}.contained")
    ids = {each.get("id") for each in inside}
    for reference in references(resource):
        if reference.startswith("#") and reference[1:] not in ids and reference != "#":
            yield Issue("invariant", "a reference to nothing that is contained", kind)


def _bundle_invariants(bundle: Resource) -> Iterator[Issue]:
    if bundle.get("type") not in BUNDLE_TYPES:
        yield Issue("code-invalid", "is no code of its value set", "Bundle.type")
    if "total" in bundle and bundle.get("type") not in ("searchset", "history"):
        yield Issue("invariant", "bdl-1: only of a search or a history", "Bundle.total")
    entries = bundle.get("entry", [])
    if len(entries) > ENTRIES_MAX:
        yield Issue("too-costly", f"over {ENTRIES_MAX} entries", "Bundle.entry")
    named = [
        (entry["fullUrl"], _version(entry.get("resource")))
        for entry in entries
        if entry.get("fullUrl")
    ]
    if len(set(named)) != len(named):
        yield Issue("invariant", "bdl-7: a fullUrl stands twice", "Bundle.entry")


def _version(resource: Any) -> str:
    meta = resource.get("meta") if isinstance(resource, dict) else None
    return str(meta.get("versionId")) if isinstance(meta, dict) else ""


def value_of(resource: Mapping[str, Any]) -> str:
    """The name of its value[x]; empty: it has none."""
    return next((n for n in resource if n.startswith("value") and n != "valueSet"), "")


def references(value: Any) -> Iterator[str]:
    """Every literal reference inside."""
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def has_modifiers(value: Any) -> bool:
    """Whether an extension inside changes the meaning; we know none, and may not pass over any."""
    if isinstance(value, dict):
        return "modifierExtension" in value or any(map(has_modifiers, value.values()))
    return isinstance(value, list) and any(map(has_modifiers, value))
