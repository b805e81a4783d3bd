"""Lets observations and rollups go by sector and data class, in short steps.

A rule is `[sector][:class][/tier]=days`: `signals=90d`, `*:shared=365d`, `*/minute=400d`; `90d` is
`*=90d`. Without a tier it is about the observations themselves. Of the rules that fit, one that
names the sector beats one that names the class, which beats one that names neither; where none
fits, everything is kept.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from core.errors import CityError
from core.sensorthings import DataClass
from core.storage.tiers import TIERS

Session = Connection[tuple[Any, ...]]

ROWS = "observation"
SOURCES = (ROWS, *(tier.name for tier in TIERS))
DATASTREAMS_A_STEP = 100
ROWS_A_STEP = 200_000
NAME = "CHIMATA_RETENTION"

_RULE = re.compile(r"(?:([a-z0-9-]+|\*)?(?::([a-z]+|\*))?(?:/([a-z]+))?=)?([0-9]{1,6})d")

SELECT_CLASSES = """
SELECT t.sector, d.data_class FROM datastream d JOIN thing t ON t.id = d.thing_id GROUP BY 1, 2
"""
SELECT_PIECES = """
SELECT source, piece::text, lower, upper FROM retention_pieces() WHERE lower < %(until)s
ORDER BY lower, 1, 2
"""
SELECT_DATASTREAMS = """
SELECT d.id FROM datastream d JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %(sector)s AND d.data_class = %(data_class)s AND d.id > %(after)s
ORDER BY d.id LIMIT %(limit)s
"""
# Rows that no tier has seen yet are not let go: the worker is a few seconds behind, as a rule.
SELECT_PENDING = """
SELECT EXISTS (SELECT FROM rollup_todo
               WHERE spans && tstzrange(NULL, %(until)s::timestamptz))
  OR EXISTS (SELECT FROM rollup_late WHERE lower < %(until)s)
  OR EXISTS (SELECT FROM sector_log l LEFT JOIN rollup_cursor c USING (sector)
             JOIN append a ON a.sector = l.sector AND a.id > coalesce(c.append_id, 0)
             WHERE a.time_min < %(until)s)
"""
RETIRE = """
INSERT INTO retired (sector, data_class, source, until)
VALUES (%(sector)s, %(data_class)s, %(source)s, %(until)s)
ON CONFLICT (sector, data_class, source)
DO UPDATE SET until = greatest(retired.until, excluded.until)
"""
DROP_PIECE = "SELECT drop_piece(to_regclass(%(piece)s))"
DELETE_ROWS = """
SELECT delete_rows(to_regclass(%(piece)s), %(datastreams)s, %(until)s, %(rows_max)s)
"""
SUPERSEDED = "superseded"
"""A piece that is not divided by time: what corrections took the place of."""
DELETE_SUPERSEDED = "SELECT delete_superseded(%(datastreams)s, %(until)s, %(rows_max)s)"
ALWAYS = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Rule:
    """How many days one source is kept; None stands for any sector or any class."""

    sector: str | None
    data_class: str | None
    source: str
    days: int

    def fits(self, sector: str, data_class: str, source: str) -> bool:
        """Whether it is about this."""
        return (
            self.source == source
            and self.sector in (None, sector)
            and self.data_class in (None, data_class)
        )


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of CHIMATA_RETENTION; CityError `invalid` that quotes what is wrong."""
    rules = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = _RULE.fullmatch(part)
        if not match or not int(match[4]):
            raise CityError("invalid", f"{NAME}: {part!r} is not like signals:open/minute=90d")
        sector, data_class = (None if name in (None, "*") else name for name in match.group(1, 2))
        if data_class is not None and data_class not in set(DataClass):
            raise CityError("invalid", f"{NAME}: {part!r} names no data class: {data_class}")
        source = match[3] or ROWS
        if source not in SOURCES:
            raise CityError("invalid", f"{NAME}: {part!r} names no tier: {source}")
        rules.append(Rule(sector, data_class, source, int(match[4])))
    return tuple(rules)


@dataclass(frozen=True, slots=True)
class Step:
    """One short transaction's work: drop a piece, or delete some Datastreams' rows in it."""

    source: str
    piece: str
    until: datetime
    datastreams: tuple[int, ...] = ()

    def run(self, session: Session) -> bool:
        """Do it; whether it has to be done again, since the rows were too many."""
        scope = {"piece": self.piece, "until": self.until, "rows_max": ROWS_A_STEP}
        if not self.datastreams:
            session.execute(DROP_PIECE, scope)
            return False
        delete = DELETE_SUPERSEDED if self.piece == SUPERSEDED else DELETE_ROWS
        row = session.execute(delete, {**scope, "datastreams": list(self.datastreams)}).fetchone()
        return bool(row and row[0] >= ROWS_A_STEP)


class Retention:
    """What the rules let go as days pass; it remembers how far it has come."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._done: dict[tuple[str, str, str], datetime] = {}

    def cuts(self, session: Session, now: datetime) -> dict[tuple[str, str, str], datetime]:
        """Before when (sector, class, source) is let go: the start of a UTC day."""
        classes = session.execute(SELECT_CLASSES).fetchall()
        session.commit()
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        found = {}
        for sector, data_class in classes:
            for source in SOURCES:
                days = self.days(sector, data_class, source)
                if days is not None:
                    found[sector, data_class, source] = today - timedelta(days=days)
        return found

    def days(self, sector: str, data_class: str, source: str) -> int | None:
        """How long a source is kept, by the rule that says most about it; None: for ever."""
        fitting = [rule for rule in self.rules if rule.fits(sector, data_class, source)]
        told = max(fitting, key=lambda r: (bool(r.sector), bool(r.data_class)), default=None)
        return told.days if told else None

    def due(self, session: Session, cuts: dict[tuple[str, str, str], datetime]) -> bool:
        """Whether there is something new to let go, and the rollups have seen all of it."""
        if not cuts or cuts == self._done:
            return False
        row = session.execute(SELECT_PENDING, {"until": max(cuts.values())}).fetchone()
        session.commit()
        return bool(row and not row[0])

    def finish(self, cuts: dict[tuple[str, str, str], datetime]) -> None:
        """Everything up to the cuts is gone."""
        self._done = dict(cuts)

    def steps(self, session: Session, cuts: dict[tuple[str, str, str], datetime]) -> Iterator[Step]:
        """What is to be done, oldest first; between steps the session has no transaction open."""
        until = max(cuts.values())
        classes = session.execute(SELECT_CLASSES).fetchall()
        pieces = session.execute(SELECT_PIECES, {"until": until}).fetchall()
        for (sector, data_class, source), cut in cuts.items():
            scope = {"sector": sector, "data_class": data_class, "source": source, "until": cut}
            session.execute(RETIRE, scope)
        session.commit()
        for source, piece, lower, upper in (*pieces, (ROWS, SUPERSEDED, *ALWAYS)):
            due = [(s, c, cuts.get((s, c, source))) for s, c in classes]
            if all(cut is not None and cut >= upper for _, _, cut in due):
                yield Step(source, piece, upper)
                continue
            for sector, data_class, before in due:
                if before is not None and before > lower:
                    for ids in _datastreams(session, sector, data_class):
                        yield Step(source, piece, before, ids)


def _datastreams(session: Session, sector: str, data_class: str) -> Iterator[tuple[int, ...]]:
    """Ids of a class, some at a time."""
    after = 0
    while True:
        scope = {"sector": sector, "data_class": data_class, "after": after}
        found = session.execute(
            SELECT_DATASTREAMS, {**scope, "limit": DATASTREAMS_A_STEP}
        ).fetchall()
        session.commit()
        if not found:
            return
        after = found[-1][0]
        yield tuple(row[0] for row in found)
