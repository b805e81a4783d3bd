"""Retention drops only what the archive has: days are exported, and looked at again at the drop.

until = archivist.prepare(session, until)   # may take hours, and holds nothing up
if archivist.holds(session, until):         # in the transaction that drops
    drop(session, until)
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import domains
from core.sector import Sector
from core.settings import Settings
from core.storage.pool import Session

SELECT_OLDEST = {
    True: "SELECT min(lower) FROM partition_range",
    False: """
SELECT min(range_start) FROM timescaledb_information.chunks
WHERE hypertable_schema = 'public' AND hypertable_name LIKE 'observation%'
""",
}
SELECT_NATIVE = "SELECT to_regclass('partition_range') IS NOT NULL"
SELECT_POSITIONS = "SELECT sector, append_id FROM sector_log"
# Appends wait until the drop is done: a late row is either archived, or stored after it.
LOCK_LOGS = "SELECT FROM sector_log ORDER BY sector FOR UPDATE"
SELECT_LATE = """
SELECT count(*) FROM append a
JOIN unnest(%(sectors)s::text[], %(appends)s::bigint[]) AS seen (sector, append_id) USING (sector)
WHERE a.id > seen.append_id AND a.time_min < %(until)s
"""


class Archivist:
    """Exports the closed days of every sector that is not personal to CHIMATA_ARCHIVE."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path(settings.archive)
        self._seen: dict[str, int] = {}

    def prepare(self, session: Session, until: datetime) -> datetime:
        """Archive what is stored of the days before `until`; the moment before which all is.

        What cannot be archived raises: CityError, psycopg.Error or OSError; then nothing is to be
        dropped.
        """
        from consent import archive
        from consent.gate import Gate

        day = until.astimezone(UTC).date()
        self._seen = dict(_fetch(session, SELECT_POSITIONS))
        oldest = self._oldest(session)
        gate = Gate(self._settings)
        try:
            for sector in _sectors():
                for each in _days(oldest, day):
                    archive.export_day(gate, sector, each, self._folder)
        finally:
            gate.close()
        return datetime(day.year, day.month, day.day, tzinfo=UTC)

    def holds(self, session: Session, until: datetime) -> bool:
        """Whether nothing has come for the days before `until` since they were archived.

        Nothing can come either, before the session's transaction ends.
        """
        session.execute(LOCK_LOGS)
        names = [sector.name for sector in _sectors()]
        appends = [self._seen.get(name, 0) for name in names]
        scope = {"sectors": names, "appends": appends, "until": until}
        found = session.execute(SELECT_LATE, scope).fetchone()
        return found is not None and found[0] == 0

    def _oldest(self, session: Session) -> date | None:
        ((native,),) = _fetch(session, SELECT_NATIVE)
        ((oldest,),) = _fetch(session, SELECT_OLDEST[native])
        return None if oldest is None else oldest.astimezone(UTC).date()


def _fetch(session: Session, query: str) -> list[tuple[Any, ...]]:
    """Rows, in a transaction of their own."""
    found = session.execute(query.encode()).fetchall()
    session.commit()
    return found


def _sectors() -> list[Sector]:
    from consent import archive

    return [each for each in map(domains.sector, domains.names()) if archive.is_exported(each)]


def _days(oldest: date | None, until: date) -> Iterator[date]:
    day = oldest or until
    while day < until:
        yield day
        day += timedelta(days=1)
