"""The demo city's feeds in the catalogue: its timetable, and who tells news of it."""

from datetime import UTC, datetime

from core.storage.pool import DatabaseRole, open_session
from deploy.feeds import DECLARE_GATEWAY, UPSERT_FEED
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_bytes
from domains.mobility.gtfs.store import Declared, import_feed
from gateways.simulators import bikes, buses

LICENCE = "CC0-1.0"
NEWS = (
    (buses.REALTIME, "gtfs-rt", "巷市バス（リアルタイム）", buses.TIMETABLE),
    (bikes.FEED, "gbfs", "巷サイクル", None),
)
"""(feed, kind, title, timetable) of what the demo's gateways push."""


def register(database_url: str) -> None:
    """Import the timetable that holds now, and register the feeds; again changes nothing."""
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
            session.execute(DECLARE_GATEWAY, {"id": feed})
        session.commit()
