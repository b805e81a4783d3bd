"""The one statement that counts persons for a release, and what its cells may be called.

Of each person it takes, of each step of time, the last observation: so a person is in one cell of a
step. Steps are over and wholly permitted, by live grants whose operation is `anonymise`; what
describes several persons at once is left out, and so is who asks for a larger crowd.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise, product
from typing import Any

from psycopg.types.range import Range

from consent.anonymity import Cell, Path
from consent.levels import LEVELS, NUMBERS
from consent.log import Session
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.errors import CityError, invalid
from core.sector import ObservedProperty, Sector
from core.sensorthings import ResultKind

LEAVES_MAX = 100_000
COUNT_SECONDS_MAX = 300
PARTIES = 128
"""Permits are worked out for so many at once, within the statement: the time is square in them."""

# The grid of JIS X 0410: codes are of the squares between these, by first code and by hour and day.
SOUTH, NORTH, WEST, EAST = 0, 66, 100, 180
PER_DEGREE = {"hour": (120, 80), "day": (12, 8)}
"""Squares a degree of latitude and of longitude: 1 km (30" by 45") and 10 km (5' by 7.5')."""


_OF_KIND = {
    ResultKind.NUMBER: (
        "observation",
        "",
        "o.result <> 'NaN'",
        "width_bucket(served(o.result, p.decimals), %(bands)s::float8[])::text",
        "round((least(greatest(served(o.result, p.decimals), %(low)s), %(high)s) - %(low)s)"
        " * %(units)s)::bigint",
    ),
    ResultKind.CATEGORY: (
        "observation",
        "JOIN category c ON c.code = o.result::integer",
        "c.text = ANY(%(vocabulary)s)",
        "c.text",
        "0::bigint",
    ),
    ResultKind.POSITION: (
        "observation_position",
        "",
        f"o.latitude >= {SOUTH} AND o.latitude < {NORTH}"
        f" AND o.longitude >= {WEST} AND o.longitude < {EAST}",
        "floor(o.latitude * %(latitude)s)::integer || ' ' ||"
        f" floor((o.longitude - {WEST}) * %(longitude)s)::integer",
        "0::bigint",
    ),
}
_SELECT = """
WITH party AS MATERIALIZED (
  SELECT DISTINCT p.id FROM consent.granted g
  JOIN consent.party p ON p.subjects = ARRAY[g.subject]
  LEFT JOIN consent.crowd c ON c.subject = g.subject
  WHERE g.recipient = %(recipient)s AND g.operation = %(operation)s AND g.ended IS NULL
    AND coalesce(c.k, 0) <= %(k)s
), batch AS (
  SELECT array_agg(id) AS parties
  FROM (SELECT id, row_number() OVER (ORDER BY id) / %(parties)s AS number FROM party) AS numbered
  GROUP BY number
), permit AS MATERIALIZED (
  SELECT p.datastream_id, p.subjects[1] AS subject, d.decimals,
         consent.inward(range_agg(tstzrange(p.lower, p.upper)), %(step)s) AS times
  FROM batch b CROSS JOIN LATERAL
       consent.permits(%(recipient)s, %(purposes)s, %(above)s, %(operation)s, %(sector)s,
                       %(properties)s, %(categories)s, %(span)s, b.parties) AS p
  JOIN datastream d ON d.id = p.datastream_id AND d.data_class = 'personal'
    AND d.kind = %(kind)s AND d.unit = %(unit)s
  WHERE p.level <= %(level)s AND cardinality(p.subjects) = 1
  GROUP BY p.datastream_id, p.subjects, d.decimals
), last AS (
  SELECT DISTINCT ON (p.subject, time) p.subject,
         consent.down(o.phenomenon_time, %(step)s) AS time, {cell} AS cell, {value} AS value
  FROM permit p CROSS JOIN LATERAL unnest(p.times) AS span
  JOIN personal.{table} o ON o.datastream_id = p.datastream_id
    AND o.phenomenon_time >= lower(span) AND o.phenomenon_time < upper(span)
    AND o.phenomenon_time >= lower(%(span)s) AND o.phenomenon_time < upper(%(span)s) {joins}
  WHERE o.quality = 0 AND {where}
  ORDER BY p.subject, time, o.phenomenon_time DESC, p.datastream_id
), bounded AS MATERIALIZED (
  SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY subject ORDER BY random()) AS number
                 FROM last) AS numbered
  WHERE number <= coalesce(%(steps_max)s, number)
), leaf AS (
  SELECT time, cell, count(*) AS persons, sum(value)::bigint AS total,
         (array_agg(value ORDER BY value DESC))[1:2] AS largest
  FROM bounded GROUP BY time, cell
)
SELECT c.sigma, ARRAY(SELECT DISTINCT subject FROM bounded) AS subjects,
       l.time, l.cell, l.persons, l.total, l.largest
FROM consent.clock c LEFT JOIN leaf l ON true ORDER BY l.time, l.cell LIMIT %(limit)s
"""
SELECT_LEAVES = {
    kind: _SELECT.format(table=table, joins=joins, where=where, cell=cell, value=value)
    for kind, (table, joins, where, cell, value) in _OF_KIND.items()
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is counted: checked and complete, as `consent.releases` makes it of a draft."""

    sector: Sector
    declared: ObservedProperty
    purpose: str
    span: Range[datetime]
    resolution: str
    k: int
    mean: bool
    bands: tuple[float, ...]
    low: Decimal
    high: Decimal
    squares: tuple[str, ...]
    epsilon: Decimal | None
    steps_max: int | None

    @property
    def step(self) -> timedelta:
        """The length of a step of time."""
        return timedelta(seconds=LEVELS[NUMBERS[self.resolution]].seconds)

    @property
    def units(self) -> int:
        """Into how many whole parts the unit of a result is divided where results are added."""
        return int(10 ** (self.declared.decimals or 0))

    def times(self) -> Iterator[datetime]:
        """The beginning of each step."""
        time = self.span.lower
        while time is not None and self.span.upper is not None and time < self.span.upper:
            yield time
            time += self.step

    def paths(self) -> list[Path]:
        """Every cell without others inside of it that the definition alone allows, in order.

        Positions are of any square where none are listed: there is no list of all.
        """
        match self.declared.kind:
            case ResultKind.NUMBER:
                return [band_path(self.bands, n) for n in range(len(self.bands) + 1)]
            case ResultKind.CATEGORY:
                return [(text,) for text in sorted(self.declared.vocabulary)]
            case _:
                return [square_path(code) for code in sorted(set(self.squares))]

    def domain(self) -> Iterator[tuple[datetime, Path]]:
        """Each cell of `paths` at each step."""
        return product(self.times(), self.paths())


@dataclass(frozen=True, slots=True)
class Counted:
    """What one snapshot held: the leaves of each step, of whom, on which state of consent."""

    sigma: int
    subjects: tuple[int, ...]
    leaves: dict[datetime, list[Cell]]


def count(connection: Session, plan: Plan, recipient: int) -> Counted:
    """Count, in one statement; CityError `invalid` for more cells than a release may have."""
    connection.execute(f"SET LOCAL statement_timeout = '{COUNT_SECONDS_MAX}s'".encode())
    query = SELECT_LEAVES[plan.declared.kind].encode()
    rows = connection.execute(query, _scope(plan, recipient)).fetchall()
    if not rows:
        raise CityError("unavailable", "the log of consent has no clock")
    if len(rows) > LEAVES_MAX:
        raise invalid("event_to", f"there are more than {LEAVES_MAX} cells: take less time")
    path_of = _naming(plan)
    leaves: dict[datetime, list[Cell]] = {}
    for _, _, time, name, persons, total, largest in rows:
        if time is not None:
            contributed = (total, tuple(largest)) if plan.mean else (0, ())
            leaves.setdefault(time, []).append(Cell(path_of(name), persons, *contributed))
    return Counted(rows[0][0], tuple(rows[0][1]), leaves)


def band_path(bands: Sequence[float], number: int) -> Path:
    """The band of a number, such as 60/70, ../60 and 70/..; () where there is one band alone."""
    if not bands:
        return ()
    edges = ["..", *(f"{edge:.12g}" for edge in bands), ".."]
    return ("/".join(list(pairwise(edges))[number]),)


def square_path(code: str) -> Path:
    """A square of 10 km, or one of 1 km inside of the one of 10 km."""
    return (code,) if len(code) == len("533945") else (code[:6], code)


def square_of(name: str, resolution: str) -> str:
    """The code of a square whose row and column the database told."""
    row, _, column = name.partition(" ")
    return square(int(row), int(column), resolution)


def square(row: int, column: int, resolution: str) -> str:
    """The code of a square, by its row from the equator and its column from 100 degrees east."""
    if resolution == "day":
        (p, q), (u, v) = divmod(row, 8), divmod(column, 8)
        return f"{p:02}{u:02}{q}{v}"
    return f"{square(row // 10, column // 10, 'day')}{row % 10}{column % 10}"


def _naming(plan: Plan) -> Callable[[str], Path]:
    match plan.declared.kind:
        case ResultKind.NUMBER:
            return lambda name: band_path(plan.bands, int(name))
        case ResultKind.CATEGORY:
            return lambda name: (name,)
        case _:
            return lambda name: square_path(square_of(name, plan.resolution))


def _scope(plan: Plan, recipient: int) -> dict[str, Any]:
    category = str(plan.declared.category)
    reaching = CATEGORIES.reaching(category)
    latitude, longitude = PER_DEGREE[plan.resolution]
    return {
        "recipient": recipient,
        "operation": Operation.ANONYMISE.value,
        "k": plan.k,
        "level": NUMBERS[plan.resolution],
        "step": plan.step,
        "purposes": list(PURPOSES.reaching(plan.purpose)),
        "above": list(PURPOSES.above(plan.purpose)),
        "sector": plan.sector.name,
        "properties": [plan.declared.name] * len(reaching),
        "categories": list(reaching),
        "span": plan.span,
        "kind": plan.declared.kind.value,
        "unit": plan.declared.unit,
        "bands": list(plan.bands),
        "low": plan.low,
        "high": plan.high,
        "units": plan.units,
        "vocabulary": list(plan.declared.vocabulary),
        "latitude": latitude,
        "longitude": longitude,
        "steps_max": plan.steps_max,
        "parties": PARTIES,
        "limit": LEAVES_MAX + 1,
    }
