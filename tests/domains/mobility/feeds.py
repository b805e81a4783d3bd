"""Timetables for tests: the recorded ones, small made ones, and their way into a database."""

import io
import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import psycopg

from core.storage.pool import DatabaseRole, open_session
from deploy.timetables import Declared, Outcome, import_feed
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_bytes

RECORDED = {
    "caltrain": "gtfs/caltrain-2023/caltrain_gtfs.zip",
    "donan-bus-muroran": "gtfs-jp/donan-bus-muroran/gtfs_jp.zip",
    "mlit-sample-2017": "gtfs-jp/mlit-sample-2017/gtfs_jp.zip",
}
"""Feed id -> its path below the folder of recordings."""

SMALL: dict[str, str] = {
    "agency.txt": """agency_id,agency_name,agency_url,agency_timezone,agency_lang
a,千曳バス,https://example.com,Asia/Tokyo,ja
""",
    "stops.txt": """stop_id,stop_name,stop_lat,stop_lon,zone_id
s1,駅前,35.00,135.00,z1
s2,市役所,35.01,135.00,z2
s3,港,35.02,135.00,z2
""",
    "routes.txt": """route_id,agency_id,route_short_name,route_type
r1,a,1,3
""",
    "trips.txt": """route_id,service_id,trip_id,trip_headsign
r1,wd,t1,港
r1,wd,t2,港
""",
    "stop_times.txt": """trip_id,arrival_time,departure_time,stop_id,stop_sequence
t1,8:00:00,8:00:00,s1,1
t1,8:05:00,8:06:00,s2,2
t1,8:10:00,8:10:00,s3,3
t2,24:50:00,24:50:00,s1,1
t2,25:10:00,25:10:00,s3,5
""",
    "calendar.txt": """service_id,monday,tuesday,wednesday,thursday,friday,saturday,sunday,\
start_date,end_date
wd,1,1,1,1,1,1,1,20260401,20270331
""",
    "feed_info.txt": """feed_publisher_name,feed_publisher_url,feed_lang,\
feed_start_date,feed_end_date
千曳市,https://example.com,ja,20260401,20270331
""",
}
"""A valid feed of one bus line, as files; tests change it."""

TODAY = date(2026, 11, 23)


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """A zip of these files."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def imported(url: str, content: bytes, feed: str = "small", sharing: str | None = None) -> Outcome:
    """Import a packed feed into the database at `url`, as the command does."""
    report = Report()
    source = open_bytes(content, report, "feed.zip")
    with open_session(url, DatabaseRole.INGEST) as session:
        outcome = import_feed(session, source, report, Declared(feed, None, sharing), TODAY)
        session.commit()
    return outcome


def import_recorded(url: str, shared_data: Path, feed: str) -> Outcome:
    """Import one of RECORDED."""
    return imported(url, (shared_data / RECORDED[feed]).read_bytes(), feed)


TABLES = {
    "agency": "agency_id", "stop": "number", "route": "number", "service": "number",
    "service_date": "service, date", "trip": "number", "stop_time": "trip, sequence",
    "frequency": "trip, start_time", "shape": "number",
    "transfer": "from_stop, to_stop, type, from_route, to_route, from_trip, to_trip",
    "fare": "fare_id", "fare_rule": "fare_id, route, origin_id, destination_id, contains_id",
    "translation": "table_name, field_name, language, translation, record_id, field_value",
    "feed_file": "name",
}  # fmt: skip
"""Tables of a version -> what orders them."""


def everything(url: str, version: int) -> dict[str, list[dict[str, Any]]]:
    """All rows of a version, by table."""
    with psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        rows = {}
        for table, order in TABLES.items():
            query = f"SELECT to_jsonb(t) - 'version' FROM mobility.{table} t WHERE version = %s ORDER BY {order}"  # noqa: E501
            rows[table] = [row for (row,) in connection.execute(query, (version,)).fetchall()]
        return rows
