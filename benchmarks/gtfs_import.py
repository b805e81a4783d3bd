"""A city's timetable of 500,000 stop times until it can be asked for, beside COPY of its rows."""

import tempfile
import time
from collections.abc import Iterator
from datetime import date
from io import BytesIO
from pathlib import Path

import psycopg

from benchmarks import city_feed
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from deploy.timetables import Declared, import_feed
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_source

STOP_TIMES = 500_000
SECONDS_MAX = 20.0
AGAIN = "raw COPY of the same stop times into the same table"
TODAY = date(2026, 11, 23)
TAKE = "COPY (SELECT * FROM mobility.stop_time WHERE version = 1) TO STDOUT"
EMPTY = "DELETE FROM mobility.stop_time"
PUT = "COPY mobility.stop_time FROM STDIN"


def run(scale: float = 1.0) -> Iterator[Result]:
    """Make the feed, import it, and put its stop times once more as they lie."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "city.zip"
        written = city_feed.write(path, stop_times=round(STOP_TIMES * scale))
        for label, database in databases().items():
            with database(Path(folder) / label) as url:
                imported, copied = measure(url, path, written)
            yield Result(
                f"gtfs_import_{label}",
                imported,
                "s",
                ratio=imported / copied,
                ratio_to=AGAIN,
                goal=Goal("value", maximum=SECONDS_MAX),
                note=f"{written} stop times",
            )


def measure(url: str, path: Path, written: int) -> tuple[float, float]:
    """Seconds of the import, from the zip to the commit, and of COPY alone."""
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        began = time.perf_counter()
        report = Report()
        source = open_source(path, report)
        outcome = import_feed(connection, source, report, Declared("city"), TODAY)
        connection.commit()
        imported = time.perf_counter() - began
        assert outcome.counts["stop_times"] == written, outcome.counts
        assert not outcome.refused
        rows = BytesIO()
        with connection.cursor() as cursor, cursor.copy(TAKE) as out:
            for chunk in out:
                rows.write(chunk)
        connection.execute(EMPTY)
        connection.commit()
        began = time.perf_counter()
        with connection.cursor() as cursor, cursor.copy(PUT) as back:
            back.write(rows.getvalue())
        connection.commit()
        return imported, time.perf_counter() - began
