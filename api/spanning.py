"""How the answers of several cells become one: pure, by what was asked for.

A page's cursor holds every cell's: a cell that is done is not in it, one that was down is null.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import orjson

Body = dict[str, Any]
Cursors = dict[str, str | None]
"""By cell: where its next page begins ("" is the start); null for one that was given up."""

CURSOR_CHARACTERS_MAX = 8_192
TAILS = frozenset({"changes"})
"""Pages that are followed for ever: a cell that is down is gone on with once it is back."""


def encode_cursors(cursors: Cursors) -> str:
    """One opaque text."""
    return base64.urlsafe_b64encode(orjson.dumps(cursors)).decode().rstrip("=")


def decode_cursors(text: str | None, cells: Iterable[str]) -> Cursors:
    """The cursors in `text`; a text that is none of ours is every cell's own."""
    every: Cursors = dict.fromkeys(cells, text or "")
    if not text or len(text) > CURSOR_CHARACTERS_MAX:
        return every
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return every
    if not isinstance(found, dict) or not all(isinstance(v, str | None) for v in found.values()):
        return every
    return {name: found[name] for name in every if name in found}


def shares(limit: int, cells: int) -> list[int]:
    """How many entries of a page each cell may give, 0 for those that have to wait."""
    each, more = divmod(limit, cells)
    return [each + (number < more) for number in range(cells)]


def following(body: Body) -> str | None:
    """A cell's own next cursor."""
    address = body.get("next")
    return parse_qs(urlsplit(address).query).get("after", [None])[0] if address else None


def merge_pages(
    path: str,
    query: Mapping[str, str],
    asked: Cursors,
    found: Mapping[str, Body],
    down: Iterable[str],
) -> Body:
    """One page of the pages found; cells that were not asked this time keep their cursor."""
    tail, missing = path.rpartition("/")[2] in TAILS, set(down)
    cursors: Cursors = {}
    for name, cursor in asked.items():
        if name in found:
            after = following(found[name])
            if after is not None:
                cursors[name] = after
        elif name in missing and not tail:
            cursors[name] = None
        else:
            cursors[name] = cursor
    merged = _concatenated(found)
    goes_on = any(cursor is not None for cursor in cursors.values())
    following_query = {**query, "after": encode_cursors(cursors)}
    if "next" in merged:
        merged["next"] = f"{path}?{urlencode(following_query)}" if goes_on else None
    if "complete" in merged:
        merged["complete"] = not missing and all(body["complete"] for body in found.values())
    return merged


def labelled(found: Mapping[str, Body]) -> dict[str, Body]:
    """The same, each entry of a list with the name of its cell."""
    return {
        cell: {
            name: [{**each, "cell": cell} for each in value] if isinstance(value, list) else value
            for name, value in body.items()
        }
        for cell, body in found.items()
    }


def merge_sectors(found: Mapping[str, Body]) -> Body:
    """The installed sectors are the same everywhere; their Things are counted together."""
    merged = [dict(sector) for sector in next(iter(found.values()))["sectors"]]
    for number, sector in enumerate(merged):
        sector["things"] = sum(body["sectors"][number]["things"] for body in found.values())
    return {"sectors": merged}


def newest(found: Mapping[str, Body]) -> str:
    """The cell that heard the thing last; the first where none says when."""
    return max(found, key=lambda name: str(found[name].get("last_seen") or ""))


def _concatenated(found: Mapping[str, Body]) -> Body:
    merged: Body = {}
    for body in found.values():
        for name, value in body.items():
            if isinstance(value, list):
                merged[name] = [*merged.get(name, ()), *value]
            else:
                merged.setdefault(name, value)
    return merged


def format_event_id(positions: Mapping[str, str]) -> str:
    """tokai/ports:55,signals:123;kinto/ports:9"""
    return ";".join(f"{cell}/{cursor}" for cell, cursor in positions.items())


def parse_event_id(text: str | None, cells: Iterable[str]) -> dict[str, str]:
    """The cells' own event ids in one of ours; none for what is none of ours."""
    parts = [part.partition("/") for part in (text or "").split(";")]
    return {cell: cursor for cell, slash, cursor in parts if slash and cell in set(cells)}
