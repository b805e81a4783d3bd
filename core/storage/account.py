"""The account as it is read: received = stored + duplicate + rejected + held, by source or hour."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

Session = Connection[tuple[Any, ...]]

# What running processes hold; a line counts only while its owner's advisory lock is held.
HELD = """
SELECT h.sector, h.gateway, h.format, h.received, h.held,
       coalesce(h.hour, date_trunc('hour', now(), 'UTC')) AS hour
FROM ingest_process p
JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = p.id,
jsonb_to_recordset(p.pending)
  AS h (gateway text, sector text, format text, hour timestamptz, received bigint, held bigint)
"""
_WANTED = """(%(sector)s::text IS NULL OR sector = %(sector)s)
      AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
      AND (%(format)s::text IS NULL OR format = %(format)s)"""

# ruff: noqa: S608 - the parts are constants of this file


def _page(table: str, key: str, more: str) -> str:
    """Rows of a table and of what is held, after a key, in the order of the key."""
    return f"""
held AS ({HELD}),
page AS (
  SELECT {key}, sum(messages)::bigint AS messages, sum(unchanged)::bigint AS unchanged,
         sum(received)::bigint AS received, sum(stored)::bigint AS stored,
         sum(duplicate)::bigint AS duplicate, sum(rejected)::bigint AS rejected,
         sum(held)::bigint AS held
  FROM (
    (SELECT {key}, messages, unchanged, received, stored, duplicate, rejected, 0 AS held
     FROM {table} WHERE {_WANTED} {more} ORDER BY {key} LIMIT %(limit)s)
    UNION ALL
    SELECT {key}, 0, 0, received, 0, 0, 0, held FROM held WHERE {_WANTED} {more}
  ) AS counted
  GROUP BY {key} ORDER BY {key} LIMIT %(limit)s
)"""


AFTER_SOURCE = "AND (sector, gateway, format) > (%(after_1)s, %(after_2)s, %(after_3)s)"
AFTER_HOUR = """AND hour >= %(lower)s AND hour < %(upper)s
      AND (hour, sector, gateway, format)
          > (%(after_0)s::timestamptz, %(after_1)s, %(after_2)s, %(after_3)s)"""

# A boot counts from 0, whatever the sources of its batches: so what is missing is known of the boot
# alone, and is charged once, to the source of most of its batches.
SELECT_TOTALS = f"""
WITH {_page("account_total", "sector, gateway, format", AFTER_SOURCE)},
run AS (
  SELECT gateway, max(seq_max) + 1 - sum(batches) AS missing,
         (array_agg(sector ORDER BY batches DESC, sector, format))[1] AS sector,
         (array_agg(format ORDER BY batches DESC, sector, format))[1] AS format
  FROM boot WHERE gateway IN (SELECT gateway FROM page) GROUP BY gateway, boot
),
gap AS (SELECT sector, gateway, format, sum(missing)::bigint AS missing FROM run GROUP BY 1, 2, 3)
SELECT p.sector, p.gateway, p.format, messages, unchanged, received, stored, duplicate, rejected,
       held, (SELECT coalesce(sum(items), 0)::bigint FROM recovered r
              WHERE (r.sector, r.gateway, r.format) = (p.sector, p.gateway, p.format)),
       coalesce(g.missing, 0), NULL
FROM page p LEFT JOIN gap g USING (sector, gateway, format) ORDER BY sector, gateway, format
"""
SELECT_HOURS = f"""
WITH {_page("account", "hour, sector, gateway, format", AFTER_HOUR)}
SELECT sector, gateway, format, messages, unchanged, received, stored, duplicate, rejected, held,
       coalesce(items, 0), NULL, hour
FROM page LEFT JOIN recovered USING (sector, gateway, format, hour)
ORDER BY hour, sector, gateway, format
"""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One source's account, since ever or of one hour; what cannot be decoded counts as one.

    `recovered` are those of the rejected that were taken in after all, and then received once more.
    `missing` is of a source, not of an hour: nobody knows when it would have come.
    """

    sector: str
    gateway: str
    format: str
    messages: int
    unchanged: int
    received: int
    stored: int
    duplicate: int
    rejected: int
    held: int
    recovered: int
    missing: int | None
    hour: datetime | None

    @property
    def adds_up(self) -> bool:
        """received is counted at decode, the right side where rows were written: do they agree?"""
        return self.received == self.stored + self.duplicate + self.rejected + self.held


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines of the account: all of them, or one source's; hours in [lower, upper)."""

    by_hour: bool = False
    lower: datetime | str = "-infinity"
    upper: datetime | str = "infinity"
    gateway: str | None = None
    sector: str | None = None
    format: str | None = None


NO_KEY = ("-infinity", "", "", "")


def key_of(row: AccountRow) -> tuple[str, str, str, str]:
    """Where a page ends: give it as `after` for the next one."""
    return (row.hour.isoformat() if row.hour else NO_KEY[0], row.sector, row.gateway, row.format)


def account(
    connection: Session,
    wanted: Wanted = Wanted(),
    after: tuple[str, str, str, str] = NO_KEY,
    limit: int | None = None,
) -> list[AccountRow]:
    """Lines of the account, committed and held together, as of one snapshot; all without `limit`.

    Totals come by (sector, gateway, format), hours by (hour, sector, gateway, format).
    """
    scope = {
        "lower": wanted.lower,
        "upper": wanted.upper,
        "gateway": wanted.gateway,
        "sector": wanted.sector,
        "format": wanted.format,
        "limit": limit,
        **{f"after_{index}": part for index, part in enumerate(after)},
    }
    query = SELECT_HOURS if wanted.by_hour else SELECT_TOTALS
    return [AccountRow(*row) for row in connection.execute(query, scope)]
