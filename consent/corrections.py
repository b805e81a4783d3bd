"""A correction that a person asks for: of an observation of theirs, by the store's own way.

Accepted, it goes in like any other correction (docs/decisions/0005-append.md): the row is replaced,
and what it replaced is kept beside it.
"""

import hashlib
from typing import Any

from consent import own
from consent.log import Session
from core.clock import from_datetime, now_us, parse_iso, to_datetime
from core.errors import CityError, invalid
from core.formats import plain
from core.sector import Context, Sector
from core.sensorthings import Decoded, kinds_of
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session

GATEWAY, FORMAT = "corrections", "json"
"""What the account calls this way in."""


def check(connection: Session, person: str | None, content: dict[str, Any]) -> None:
    """CityError `invalid` unless this is an observation of the person, and the value fits it."""
    moment = to_datetime(parse_iso(content["phenomenon_time"]))
    wanted = own.Wanted(content["sector"], moment, None, content["thing"], content["property"])
    found = own.select_rows(connection, person, wanted, None, 1)
    if not found or found[0]["phenomenon_time"] != moment:
        raise invalid("phenomenon_time", "there is no such observation of yours")
    decoded = _decoded(content)
    kinds = [kind.value for _, kind in kinds_of(decoded)]
    if decoded.rejected or kinds != [found[0]["kind"]]:
        raise invalid("result", f"must be a {found[0]['kind']}, as what it replaces")


def apply(database_url: str, sector: Sector, content: dict[str, Any]) -> None:
    """Store the corrected value; a second time is nothing new. CityError `conflict` if refused."""
    payload = _payload(content)
    digest = hashlib.sha256(payload).digest()
    message = Message(GATEWAY, FORMAT, "", now_us(), payload, digest, _decoded(content))
    with open_session(database_url, DatabaseRole.INGEST) as session:
        (outcome,) = SectorStore(sector).append(session, [message])
    if outcome.counts.stored + outcome.counts.duplicate != 1:
        why = outcome.rejected[0].detail if outcome.rejected else outcome.detail
        raise CityError("conflict", f"the store refuses it: {why}")


def _payload(content: dict[str, Any]) -> bytes:
    moment = from_datetime(to_datetime(parse_iso(content["phenomenon_time"])))
    named = {name: content[name] for name in ("thing", "property", "result")}
    return plain.encode([{**named, "phenomenon_time": moment}])


def _decoded(content: dict[str, Any]) -> Decoded:
    return plain.decode(_payload(content), Context(GATEWAY, now_us()))
