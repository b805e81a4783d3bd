"""Rows of the database as results that leave: a number, a text, a position or a JSON value."""

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]


def position_of(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A position result from its columns."""
    return {
        "longitude": row[prefix + "longitude"],
        "latitude": row[prefix + "latitude"],
        "speed": row["speed"],
        "course": row["course"],
    }


def result_of(kind: str, row: Mapping[str, Any], prefix: str = "") -> Any:
    """The result as it leaves: a number, a text, a position or a JSON value."""
    match kind:
        case "number":
            return row["result"]
        case "category":
            return row["text"]
        case "position":
            return position_of(row, prefix)
        case _:
            return row["document"]
