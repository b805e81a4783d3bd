"""What the demo city has besides its gateways: feeds in the catalogue, and riders' consent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx

from core.errors import CityError
from core.storage.pool import DatabaseRole, open_session
from core.tokens import Keys, Role, issue
from deploy.feeds import UPSERT_FEED
from gateways.simulators import bikes, buses, edge, riders

LICENCE = "CC0-1.0"
NEWS = (
    (buses.REALTIME, "gtfs-rt", "巷市バス（リアルタイム）", buses.TIMETABLE),
    (bikes.FEED, "gbfs", "巷サイクル", None),
)
"""(feed, kind, title, timetable) of what the demo's gateways push."""


def register(database_url: str) -> None:
    """Import the timetable that holds now, and register the feeds; again changes nothing."""
    from deploy.timetables import Declared, import_feed
    from domains.mobility.gtfs.problems import Report
    from domains.mobility.gtfs.source import open_bytes

    today = datetime.now(UTC).astimezone(buses.JAPAN).date()
    report = Report()
    source = open_bytes(buses.timetable(today.year), report, "demo")
    with open_session(database_url, DatabaseRole.INGEST) as session:
        import_feed(session, source, report, Declared(buses.TIMETABLE, LICENCE), today)
        for feed, kind, title, static in NEWS:
            told = {
                "id": feed, "kind": kind, "title": title, "static_feed": static,
                "licence": LICENCE, "attribution": "巷市", "sharing": "collaborative",
                "url": None, "poll_seconds": None,
            }  # fmt: skip
            session.execute(UPSERT_FEED, told)
        session.commit()


MAAS = "demo-maas"
"""The recipient whom riders let see where they are."""
PURPOSE = "dpv:ServicePersonalisation"
CATEGORIES = ("chimata:MovementTrack", "chimata:TransitTap")
NOTICE = sha256("デモ: あなたの移動を demo-maas に見せます".encode()).hexdigest()
GRANT_DAYS = 365
TOKEN_SECONDS = 600

Put = Callable[[str, Role, str, dict[str, Any]], None]


@contextmanager
def _putting(platform: str, keys: Keys, audience: str) -> Iterator[Put]:
    """`put(path, role, subject, body)` to the platform; what is there already is no error."""
    with httpx.Client(base_url=platform, timeout=30) as client:

        def put(path: str, role: Role, subject: str, body: dict[str, Any]) -> None:
            token = issue(
                keys, role, subject=subject, audience=audience, lifetime_seconds=TOKEN_SECONDS
            )
            headers = {"Authorization": f"Bearer {token}"}
            try:
                answer = client.put(f"/v1{path}", json=body, headers=headers)
            except httpx.HTTPError as error:
                raise CityError("unavailable", f"the platform: {type(error).__name__}") from error
            if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:
                raise CityError("unavailable", f"{path}: HTTP {answer.status_code}")

        yield put


def nodes(platform: str, keys: Keys, audience: str) -> None:
    """Say what hangs on each edge node; again changes nothing. CityError like `consent`."""
    with _putting(platform, keys, audience) as put:
        for node in edge.nodes():
            put(f"/edge/nodes/{node.name}/dependents", Role.OPERATOR, "demo", edge.dependents(node))


def consent(platform: str, keys: Keys, audience: str) -> None:
    """Say whose phone and card is whose, and grant what those riders grant who do.

    By the same routes as anybody: a second time changes nothing, and who takes a grant back in
    the demo stays without it. CityError `unavailable` when the platform does not take it.
    """
    with _putting(platform, keys, audience) as put:
        titles = {"title_ja": "デモMaaS", "title_en": "Demo MaaS", "country": "JP"}
        put(f"/recipients/{MAAS}", Role.OPERATOR, "demo", titles)
        since = datetime(2026, 1, 1, tzinfo=UTC)
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=GRANT_DAYS)
        for rider in riders.riders():
            for thing in (rider.phone, rider.card):
                put(
                    f"/consent/bindings/mobility/{thing}/{_id(thing)}", Role.OPERATOR, "demo",
                    {"persons": [rider.person], "event_from": since.isoformat()},
                )  # fmt: skip
            for category in CATEGORIES if rider.grants else ():
                put(
                    f"/consent/grants/{_id(rider.person + category)}", Role.CITIZEN, rider.person,
                    {"recipient": MAAS, "purpose": PURPOSE, "category": category,
                     "event_from": since.isoformat(), "valid_to": until.isoformat(),
                     "notice": NOTICE},
                )  # fmt: skip


def _id(name: str) -> str:
    """The same for the same, at every start."""
    return str(uuid5(NAMESPACE_URL, f"chimata-demo:{name}"))
