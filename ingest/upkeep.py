"""What runs beside the appends: latest values, the account's line, rollups, partitions."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime

import psycopg

from core.errors import CityError, brief
from core.settings import Settings
from core.storage.ledger import hold_process_lock, prune
from core.storage.pool import DatabaseRole, Session, open_session
from core.storage.rejections import fold_old
from core.storage.retention import ROWS, Retention, Step, parse
from core.storage.rollup import Worker
from ingest.archiving import Archivist
from ingest.line import Line

log = logging.getLogger("chimata.ingest")

MAINTAIN_SECONDS = 15.0
ROLL_SECONDS = 2.0
SUMMARISE_SECONDS = 15.0
ROLL_REST = 3
"""Rest for each second of work: a quarter of a core summarises and rolls up a nation at 1 Hz."""
LOCK_SECONDS_MAX = 2
STOPPING_SECONDS = 0.05
KEEP_SECONDS = 0.1
PENDING_SECONDS = 0.25
"""Between what is told of messages that wait; each append tells, too."""
ARCHIVE_SECONDS = 600.0
"""Between two looks at what is to be archived and dropped."""

MAINTAIN = (
    "SELECT maintain_partitions('2000 years')",
    "SELECT set_columnstore(%(hours)s)",
    "SELECT seal_partition()",
)


class Keeper(threading.Thread):
    """Writes the latest values and this process's line of the account; both are rebuildable."""

    def __init__(
        self,
        settings: Settings,
        process: int,
        lines: Callable[[], Iterable[Line]],
        tell: Callable[[Session, bool], None],
        drained: threading.Event,
        stopping: threading.Event,
    ) -> None:
        super().__init__(name="projection", daemon=True)
        self._drained = drained
        self._settings = settings
        self._process = process
        self._lines = lines
        self._tell = tell
        self._stopping = stopping

    def run(self) -> None:
        """Until the lines have ended, so that what they drain last is written too."""
        session: Session | None = None
        finished = locked = False
        told_at = 0.0
        while not finished:
            self._drained.wait(KEEP_SECONDS)
            self._drained.clear()
            if self._stopping.is_set():
                time.sleep(STOPPING_SECONDS)
            lines = list(self._lines())
            # Asked before writing, so that what a line drains last is written too.
            finished = self._stopping.is_set() and not any(line.alive for line in lines)
            try:
                if session is None or session.closed:
                    session = open_session(self._settings.database_url, DatabaseRole.INGEST)
                    session.execute("SET synchronous_commit = off")
                    locked = False
                locked = locked or hold_process_lock(session, self._process)
                for line in lines:
                    line.write_latest(session)
                if finished or time.monotonic() - told_at > PENDING_SECONDS:
                    for line in lines:
                        line.write_pending(session)
                    told_at = time.monotonic()
                self._tell(session, finished)
            except Exception as error:  # noqa: BLE001 - without this thread nothing new is seen
                log.warning("projection not written, will retry: %s", brief(error))
                if session is not None:
                    session.close()
        if session is not None:
            session.close()


class Roller(threading.Thread):
    """Summarises new pages, computes the rollups when no other process of this database does.

    In this order: rows of a page without its summary are read for every minute that is computed.
    """

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        super().__init__(name="rollups", daemon=True)
        self._settings = settings
        self._stopping = stopping

    def run(self) -> None:
        """Until the stop; it rests longer than it worked, since the appends need the cores more."""
        session: Session | None = None
        worker = Worker()
        summarise_at = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if session is None or session.closed:
                    session = open_session(self._settings.database_url, DatabaseRole.INGEST)
                    session.execute("SET synchronous_commit = off")  # lost, it is computed again
                    session.commit()
                if began >= summarise_at:
                    summarise(session)
                    summarise_at = time.monotonic() + SUMMARISE_SECONDS
                worker.run(session, seconds_max=ROLL_SECONDS)
            except Exception as error:  # noqa: BLE001 - readers go on with the rows themselves
                log.warning("rollups not computed, will retry: %s", brief(error))
                if session is not None:
                    session.close()
            self._stopping.wait(max(ROLL_SECONDS, ROLL_REST * (time.monotonic() - began)))
        if session is not None:
            session.close()


def summarise(session: Session) -> None:
    """Have new rows found by their pages' summaries, unless someone vacuums: that does it, too."""
    with suppress(psycopg.errors.LockNotAvailable), session.transaction():
        session.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
        session.execute("SELECT summarise_open_partitions()")


class Maintainer(threading.Thread):
    """Seals closed partitions, drops what retention ends.

    Apart from the keeper: sealing a large day takes longer than latest values may trail.
    """

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._settings = settings
        self._stopping = stopping
        self._retention = Retention(parse(settings.retention))
        self._archivist = Archivist(settings) if settings.archive else None
        self._archive_at = float("-inf")

    def run(self) -> None:
        """Until the stop; what fails is tried again at the next turn."""
        while not self._stopping.is_set():
            try:
                with open_session(self._settings.database_url, DatabaseRole.INGEST) as session:
                    # Waiting in line for a table's lock would hold up every append behind us.
                    session.execute(f"SET lock_timeout = '{LOCK_SECONDS_MAX}s'")
                    for statement in MAINTAIN:
                        session.execute(statement, {"hours": self._settings.columnstore_hours})
                        session.commit()
                    self._retain(session)
                    self._prune_ledger(session)
                    self._fold_rejections(session)
            except (psycopg.Error, CityError) as error:
                log.warning("partitions not maintained, will retry: %s", brief(error))
            self._stopping.wait(MAINTAIN_SECONDS)

    def _retain(self, session: Session) -> None:
        """Let go what retention ends, step by step; with an archive only what that has."""
        cuts = self._retention.cuts(session, datetime.now(UTC))
        if time.monotonic() < self._archive_at or not self._retention.due(session, cuts):
            return
        rows = [cut for (_, _, source), cut in cuts.items() if source == ROWS]
        until = max(rows, default=None)
        if self._archivist is not None and until is not None:
            self._archive_at = time.monotonic() + ARCHIVE_SECONDS
            try:
                self._archivist.prepare(session, until)
            except OSError as error:
                log.warning("nothing is dropped before it is archived: %s", error)
                return
        for step in self._retention.steps(session, cuts):
            again = True
            while again:
                if self._stopping.is_set() or not self._may(session, step, until):
                    session.rollback()
                    return
                again = step.run(session)
                session.commit()
        self._retention.finish(cuts)

    def _may(self, session: Session, step: Step, until: datetime | None) -> bool:
        """Whether the archive, where there is one, has the rows that a step lets go."""
        if self._archivist is None or until is None or step.source != ROWS:
            return True
        return self._archivist.holds(session, until)

    def _prune_ledger(self, session: Session) -> None:
        """Forget old identities, step by step: each holds up appends for a moment only."""
        days = self._settings.ledger_days
        while days and not self._stopping.is_set() and prune(session, days):
            session.commit()

    def _fold_rejections(self, session: Session) -> None:
        """Let old payloads go, step by step as well."""
        days = self._settings.rejection_days
        while days and not self._stopping.is_set() and fold_old(session, days):
            session.commit()
