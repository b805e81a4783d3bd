"""A person's health data as FHIR R4: one resource a line, as FHIR Bulk Data writes NDJSON; pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

import orjson

from domains.health.wire import LOINC

CODES = {name: code for code, name in reversed(LOINC.items())}
"""The first LOINC code of each observed property."""


def ndjson(pages: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[bytes]:
    """Lines of what is a resource or can be one: positions and other sectors' rows are not."""
    for page in pages:
        told = (resource(row) for row in page if row["sector"] == "health")
        yield b"".join(orjson.dumps(each) + b"\n" for each in told if each is not None)


def resource(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sender's own resource, or an Observation of a plain value; None for what is neither."""
    result, kind = row["result"], row["kind"]
    if kind == "document":
        sent: dict[str, Any] | None = result.get("resource")
        return sent
    if kind not in _VALUES:
        return None
    name = row["property"].partition("/")[0]
    code: dict[str, Any] = {"text": row["property"]}
    if name in CODES:
        code["coding"] = [{"system": "http://loinc.org", "code": CODES[name]}]
    return {
        "resourceType": "Observation",
        # Not known to be sound: FHIR has no word for what was measured, but badly.
        "status": "unknown" if row["quality"] else "final",
        "code": code,
        "effectiveDateTime": row["phenomenon_time"].astimezone(UTC).isoformat(),
        "device": {"display": row["thing"]},
        **_VALUES[kind](result, row["unit"]),
    }


def _quantity(result: float, unit: str | None) -> dict[str, Any]:
    if unit is None:
        return {"valueQuantity": {"value": result}}
    told = {"value": result, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    return {"valueQuantity": told}


def _concept(result: str, _unit: str | None) -> dict[str, Any]:
    return {"valueCodeableConcept": {"text": result}}


_VALUES: dict[str, Callable[[Any, str | None], dict[str, Any]]] = {
    "number": _quantity,
    "category": _concept,
}
"""What a plain result becomes, by its kind."""
