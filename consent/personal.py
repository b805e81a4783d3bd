"""The one query that reads personal rows: it joins live grants, and its delivery is on record.

Rows, grants and the number σ of the last act are of one snapshot. What is delivered is written down
in the same transaction, as a provision record by Datastream (Art. 29 and 30 of the Act on the
Protection of Personal Information), before any of it is handed over.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from consent import audit
from consent.levels import LEVELS
from consent.masks import Place
from consent.results import Row, result_of
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.errors import CityError, invalid
from core.sector import ObservedProperty, Sector
from core.sensorthings import ResultKind
from core.tokens import Principal

Session = Connection[tuple[Any, ...]]
Span = Range[datetime]

# Where a recipient's readers hand over what they read; who takes a right back waits for them.
BARRIER = 0x47415445
"""First key of the advisory locks ("GATE"); the second one is the recipient's number."""
LEASE_SECONDS = 0.5
"""From its recheck to the socket a chunk may take so long; at twice that the server ends it."""

PARTIES = (16, 256)
"""So many parties are looked at in a page's first statement, and at most in a later one: twice as
many as before, while rows are few."""

READ_SECONDS_MAX = 20.0
SELECT_RECIPIENT = """
SELECT r.id, c.sigma, NULL AS category FROM consent.recipient r CROSS JOIN consent.clock c
WHERE r.key = %(key)s AND NOT r.suspended
"""
SELECT_RESPONDER = """
SELECT r.id, c.sigma, o.category FROM consent.recipient r CROSS JOIN consent.clock c
JOIN consent.override o ON o.recipient = r.id
WHERE o.id = %(override)s AND o.valid @> clock_timestamp()
  AND r.key = %(key)s AND NOT r.suspended
"""

EXACT = """
  (SELECT o.phenomenon_time AS time, o.phenomenon_time AS event, o.quality, {columns}
   FROM personal.{table} o {joins}
   WHERE p.kind = '{kind}' AND p.level = 0 AND o.datastream_id = p.datastream_id
     AND o.phenomenon_time >= p.start AND o.phenomenon_time < p.upper
   ORDER BY o.phenomenon_time LIMIT %(limit)s)"""
_REDUCED = """
  (SELECT DISTINCT ON (time) consent.down(o.phenomenon_time, p.step) AS time,
          o.phenomenon_time AS event, o.quality, {columns}
   FROM personal.{table} o {joins}
   WHERE p.kind = '{kind}' AND p.level > 0 AND o.datastream_id = p.datastream_id
     AND o.phenomenon_time >= p.start AND o.phenomenon_time < p.upper
   ORDER BY time, event DESC LIMIT %(limit)s)"""
NONE = {
    "result": "NULL::float8",
    "text": "NULL::text",
    "longitude": "NULL::float8",
    "latitude": "NULL::float8",
    "speed": "NULL::float8",
    "course": "NULL::float8",
    "document": "NULL::jsonb",
}
TOLD = (
    "jsonb_build_object('party', party, 'datastream_id', datastream_id, 'level', level,"
    " 'subjects', subjects, 'grants', grants, 'thing', thing, 'property', property, 'unit', unit,"
    " 'kind', kind)"
)
"""A permit as the last column of its own row: what Permit has."""
_PERMIT = {**NONE, "document": TOLD}
_NUMBER = {"result": "served(o.result, p.decimals)"}
_CATEGORY, _TEXT = "JOIN category c ON c.code = o.result::integer", {"text": "c.text"}
_PLACE = {name: f"o.{name}" for name in ("longitude", "latitude", "speed", "course")}
_CELL = {
    name: f"(floor(o.{name} / p.{name}) + 0.5) * p.{name}" for name in ("longitude", "latitude")
}
# A document may tell times and places anywhere inside: it is disclosed as it is, or not at all.
_BRANCHES = (
    (EXACT, ResultKind.NUMBER, "observation", "", _NUMBER),
    (EXACT, ResultKind.CATEGORY, "observation", _CATEGORY, _TEXT),
    (EXACT, ResultKind.POSITION, "observation_position", "", _PLACE),
    (EXACT, ResultKind.DOCUMENT, "observation_document", "", {"document": "o.result"}),
    (_REDUCED, ResultKind.NUMBER, "observation", "", _NUMBER),
    (_REDUCED, ResultKind.CATEGORY, "observation", _CATEGORY, _TEXT),
    (_REDUCED, ResultKind.POSITION, "observation_position", "", _CELL),
)


def branch(form: str, kind: ResultKind, table: str, joins: str, columns: dict[str, str]) -> str:
    """How the rows of one shape are read, exact or reduced."""
    named = ", ".join(f"{value} AS {name}" for name, value in {**NONE, **columns}.items())
    return form.format(table=table, kind=kind.value, joins=joins, columns=named)


EXACT_BRANCHES = " UNION ALL ".join(branch(*each) for each in _BRANCHES if each[0] is EXACT)
"""Rows as they are, of what stands as p: a Datastream, and the times `start` to `upper` of it."""

# What is permitted after a place of the order: parties by number, their Datastreams, levels, times.
# A series that is not personal by its own class, such as a pseudonymised one, no grant reaches.
PERMITTED = """
  SELECT p.*, d.decimals, l.step, l.longitude, l.latitude,
         row_number() OVER (ORDER BY p.party, p.datastream_id, p.level, p.lower) AS number,
         CASE WHEN (p.party, p.datastream_id, p.level) > (%(party)s, %(datastream)s, %(level)s)
             THEN p.lower
           WHEN (p.party, p.datastream_id, p.level) = (%(party)s, %(datastream)s, %(level)s)
             THEN greatest(p.lower, consent.up(%(event)s::timestamptz + interval '1 us', {step}))
           ELSE p.upper END AS start
  FROM {permits} AS p
  JOIN datastream d ON d.id = p.datastream_id AND d.data_class = 'personal'
  JOIN consent.level l ON l.number = p.level"""
PERMITS = """consent.permits(%(recipient)s, %(purposes)s, %(above)s, %(operation)s, %(sector)s,
                       %(properties)s, %(categories)s, {span}, %(parties)s)"""
BY_GRANTS = PERMITTED.format(step="l.step", permits=PERMITS.format(span="%(span)s"))
BY_OVERRIDE = PERMITTED.format(
    step="l.step",
    permits="""consent.overridden(%(override)s, %(recipient)s, %(purpose)s, %(sector)s,
                          %(properties)s, %(span)s, %(parties)s)""",
)

# A page ends where the loop stops. What a permit's rows share is said once, as a row of its own.
CHUNK = f"""
WITH permit AS MATERIALIZED ({{permitted}}
)
SELECT number, NULL AS event, NULL AS time, NULL AS quality, {", ".join(_PERMIT.values())}
FROM permit WHERE start < upper
UNION ALL (
  SELECT p.number, r.event, r.time, r.quality, {", ".join(f"r.{name}" for name in NONE)}
  FROM (SELECT * FROM permit WHERE start < upper ORDER BY number) AS p
  CROSS JOIN LATERAL ({{branches}}) AS r
  LIMIT %(limit)s)
"""  # noqa: S608 - the parts are constants of this module
_SHAPES = " UNION ALL ".join(branch(*each) for each in _BRANCHES)
SELECT_CHUNK = CHUNK.format(permitted=BY_GRANTS, branches=_SHAPES)
SELECT_CHUNK_OF_OVERRIDE = CHUNK.format(permitted=BY_OVERRIDE, branches=_SHAPES)
INSERT_PROVISIONS = """
INSERT INTO audit.provision
  (decision, subjects, sector, datastream_id, grants, rows, time_min, time_max)
SELECT %(decision)s, subjects, %(sector)s, datastream_id, grants,
       sum(rows), min(time_min), max(time_max)
FROM jsonb_to_recordset(%(delivered)s) AS delivered (
  subjects integer[], datastream_id integer, grants uuid[], rows integer,
  time_min timestamptz, time_max timestamptz)
GROUP BY subjects, datastream_id, grants
"""

INSERT_TO_TELL = """
INSERT INTO audit.to_tell (override, subject)
SELECT %(override)s, unnest(%(subjects)s::integer[]) ON CONFLICT DO NOTHING
"""

# Who has not granted anything to a recipient is no party of its questions. Where to begin is said
# twice, for a plan that merges would read the members of all who come before.
SELECT_PARTIES = """
SELECT p.id FROM consent.party p WHERE p.id >= %(party)s AND EXISTS (
  SELECT FROM consent.party_member m JOIN consent.granted g ON g.subject = m.subject
  WHERE m.party = p.id AND m.party >= %(party)s
    AND g.recipient = %(recipient)s AND g.ended IS NULL)
ORDER BY p.id LIMIT %(parties_max)s
"""
SELECT_PARTIES_OF_PERSON = """
SELECT m.party FROM consent.party_member m WHERE m.subject = %(person)s AND m.party >= %(party)s
ORDER BY m.party LIMIT %(parties_max)s
"""
# Of an override, every party is one whose Things may be where it holds.
SELECT_PARTIES_OF_OVERRIDE = """
SELECT p.id FROM consent.party p WHERE p.id >= %(party)s
  AND (%(person)s::integer IS NULL OR %(person)s = ANY(p.subjects))
  AND EXISTS (SELECT FROM consent.binding b JOIN consent.override o ON o.id = %(override)s
              WHERE b.party = p.id AND b.sector = o.sector AND b.event && o.event
                AND (o.things IS NULL OR b.thing = ANY(o.things)))
ORDER BY p.id LIMIT %(parties_max)s
"""
# Who asks, on record before any row is read, with the first parties of the question.
OPEN = """
WITH asker AS MATERIALIZED ({asker}), record AS ({record})
SELECT id, sigma, category, ARRAY({parties}) FROM asker
"""
TAKE_LEASE = """
SELECT set_config('idle_in_transaction_session_timeout', %(ends)s, true),
       pg_advisory_xact_lock_shared(%(barrier)s, %(recipient)s)
"""
SELECT_STALE = """
SELECT EXISTS (SELECT FROM consent.log WHERE sigma > %(sigma)s AND %(recipient)s = ANY(less)
               AND (subject IS NULL OR subject = ANY(%(subjects)s)))
"""


@dataclass(frozen=True, slots=True)
class Question:
    """What a recipient asks for: its purpose, a category with all below it, and a span of time."""

    sector: Sector
    purpose: str
    category: str
    operation: Operation
    span: Range[datetime]
    limit: int
    after: Place | None = None
    person: int | None = None
    """The number of the one person whom it is about; None: everyone."""
    properties: frozenset[str] | None = None
    """None: all observed properties, but those whose documents are identifying."""

    def check(self) -> None:
        """CityError `invalid` for a code that the vocabulary does not have."""
        PURPOSES.check("purpose", self.purpose)
        CATEGORIES.check("category", self.category)

    def reach(self, within: str | None = None) -> tuple[list[str], list[str]]:
        """Pairs: an observed property that is asked for, and a category whose grant reaches it.

        `within`: of those in this category alone.
        """
        asked = {self.category, within or self.category}
        pairs = [
            (declared.name, code)
            for declared in self.sector.properties
            if declared.category is not None
            and self._reads(declared)
            and asked <= set(CATEGORIES.above(declared.category))
            for code in CATEGORIES.reaching(declared.category)
        ]
        return [name for name, _ in pairs], [code for _, code in pairs]

    def _reads(self, declared: ObservedProperty) -> bool:
        if self.properties is None:
            return not declared.identifying
        return declared.name in self.properties


@dataclass(frozen=True, slots=True)
class Permit:
    """What the rows of one span of a Datastream share: whose they are, and by which grants."""

    party: int
    datastream_id: int
    level: int
    subjects: list[int]
    grants: list[str]
    thing: str
    property: str
    unit: str
    kind: str


Rows = Sequence[tuple[Any, ...]]
Piece = tuple[Permit, list[tuple[Any, ...]]]
"""The rows of a permit that are delivered; never none."""
EVENT = 1
"""The column of a row that holds its own time; that of a permit's own row is empty."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read and written down, not handed over yet; `more`: its last row, if more follow."""

    decision: UUID
    recipient: int
    sigma: int
    subjects: tuple[int, ...]
    rows: list[Row]
    more: Place | None


@dataclass(frozen=True, slots=True)
class Query:
    """One way of reading: a statement of SELECT_CHUNK's form; how its rows are told and recorded.

    Each row begins with its permit's number and its place in time; a row without one is a permit.
    """

    statement: str
    shown: Callable[[Permit, Rows], Iterator[Row]]
    provision: Callable[[Permit, Rows], Row]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    """Whether an answer without rows leaves no record: what asks every second would flood it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What was read for a recipient, before it is on record."""

    decision: UUID
    recipient: int
    sigma: int
    sector: str
    override: UUID | None
    subjects: tuple[int, ...]
    pieces: list[Piece]
    more: Place | None
    query: Query

    def chunk(self) -> Chunk:
        """Its rows, as they are handed over."""
        rows = [row for piece in self.pieces for row in self.query.shown(*piece)]
        return Chunk(self.decision, self.recipient, self.sigma, self.subjects, rows, self.more)


def span_of(lower: datetime | str, upper: datetime | str) -> Range[datetime]:
    """[lower, upper); a text stands for no bound."""
    first = lower if isinstance(lower, datetime) else None
    last = upper if isinstance(upper, datetime) else None
    if first and last and last <= first:
        return Range(empty=True)
    return Range(first, last, "[)")


def read(
    connection: Session, principal: Principal, question: Question, query: Query
) -> Delivery | None:
    """One chunk, in a transaction of one snapshot; None: such a recipient may read nothing."""
    override = principal.override
    if override and query.statement is not SELECT_CHUNK:
        return None
    permitted = audit.permission(
        principal,
        purpose=question.purpose,
        category=question.category,
        sector=question.sector.name,
    )
    scope = _scope(question, override)
    asker = {**audit.parameters(connection, permitted), **scope, "key": principal.name}
    found = connection.execute(_opening(question, override).encode(), asker).fetchone()
    if found is None:
        return None
    if override and question.operation is not Operation.READ:
        raise invalid("operation", "an emergency allows reading, and nothing else")
    recipient, sigma, within, parties = found
    properties, categories = question.reach(within)
    scope |= {"recipient": recipient, "properties": properties, "categories": categories}
    pieces: list[Piece] = []
    left = question.limit + 1
    ends_at = time.monotonic() + READ_SECONDS_MAX
    statement = SELECT_CHUNK_OF_OVERRIDE if override else query.statement
    for some in _batches(connection, scope, _of_parties(question, override), parties):
        if time.monotonic() > ends_at:
            raise CityError("unavailable", "that took too long: ask for one person, or less time")
        wanted = {**scope, **query.parameters, "parties": some, "limit": left}
        answer = connection.execute(statement.encode(), wanted, binary=True).fetchall()
        pieces += pieces_of(answer)
        left = question.limit + 1 - sum(len(rows) for _, rows in pieces)
        if left == 0:
            break
    # With those of the row that is taken away: that there is more is told of them, too.
    subjects = {subject for permit, _ in pieces for subject in permit.subjects}
    return Delivery(
        permitted.id,
        recipient,
        sigma,
        question.sector.name,
        override,
        tuple(sorted(subjects)),
        pieces,
        _shorten(pieces) if left == 0 else None,
        query,
    )


def record(connection: Session, delivery: Delivery) -> None:
    """Write down what is delivered of whom, in the transaction that read it."""
    delivered = [delivery.query.provision(*piece) for piece in delivery.pieces]
    items = {
        "decision": delivery.decision, "sector": delivery.sector, "delivered": Jsonb(delivered)
    }  # fmt: skip
    connection.execute(INSERT_PROVISIONS, items)
    if delivery.override:
        touched = sorted({subject for each in delivered for subject in each["subjects"]})
        told = {"override": delivery.override, "subjects": touched}
        connection.execute(INSERT_TO_TELL, told)


def pieces_of(answer: Sequence[tuple[Any, ...]]) -> Iterator[Piece]:
    """The rows of SELECT_CHUNK by their permits, in its order."""
    permits = {number: Permit(**told) for number, event, *_, told in answer if event is None}
    rows = (row for row in answer if row[EVENT] is not None)
    for number, of_permit in groupby(rows, itemgetter(0)):
        yield permits[number], list(of_permit)


def _shorten(pieces: list[Piece]) -> Place:
    """Take the last row away, which says only that there is more; the place of the one before."""
    pieces[-1][1].pop()
    if not pieces[-1][1]:
        pieces.pop()
    permit, rows = pieces[-1]
    return permit.party, permit.datastream_id, permit.level, rows[-1][EVENT]


def provision(permit: Permit, rows: Rows) -> Row:
    """What is on record of a piece: its rows come by time."""
    return {
        "subjects": permit.subjects,
        "datastream_id": permit.datastream_id,
        "grants": permit.grants,
        "rows": len(rows),
        "time_min": rows[0][EVENT].isoformat(),
        "time_max": rows[-1][EVENT].isoformat(),
    }


def _scope(question: Question, override: UUID | None) -> dict[str, Any]:
    """What every statement of a question asks for."""
    party, datastream, level, event = question.after or (0, 0, 0, None)
    return {
        "override": override,
        "purpose": question.purpose,
        "purposes": list(PURPOSES.reaching(question.purpose)),
        "above": list(PURPOSES.above(question.purpose)),
        "operation": question.operation.value,
        "sector": question.sector.name,
        "span": question.span,
        "party": party,
        "datastream": datastream,
        "level": level,
        "event": event,
        "person": question.person,
        "parties_max": PARTIES[0],
    }


def _of_parties(question: Question, override: UUID | None) -> str:
    """The statement that finds a question's parties, some at a time."""
    if override:
        return SELECT_PARTIES_OF_OVERRIDE
    return SELECT_PARTIES if question.person is None else SELECT_PARTIES_OF_PERSON


@cache
def _opening_of(parties: str, asker: str) -> str:
    """OPEN of one kind of question."""
    of_asker = parties.replace("%(recipient)s", "asker.id")
    return OPEN.format(asker=asker, record=audit.INSERT_PERMISSION, parties=of_asker)


def _opening(question: Question, override: UUID | None) -> str:
    asker = SELECT_RESPONDER if override else SELECT_RECIPIENT
    return _opening_of(_of_parties(question, override), asker)


def _batches(
    connection: Session, scope: Mapping[str, Any], select: str, parties: list[int]
) -> Iterator[list[int]]:
    """The parties of statement after statement, from the first ones on, until there are none."""
    most = PARTIES[0]
    while parties:
        yield parties
        if len(parties) < most:
            return
        most = min(2 * most, PARTIES[1])
        wanted = {**scope, "party": parties[-1] + 1, "parties_max": most}
        parties = [row[0] for row in connection.execute(select, wanted)]


def is_stale(connection: Session, chunk: Chunk) -> bool:
    """Whether someone in it has taken something back from its recipient since it was read."""
    scope = {"sigma": chunk.sigma, "recipient": chunk.recipient, "subjects": list(chunk.subjects)}
    found = connection.execute(SELECT_STALE, scope).fetchone()
    return found is None or bool(found[0])


def lease(connection: Session, recipient: int) -> None:
    """Share the recipient's barrier until the transaction ends, or the server ends it."""
    scope = {"ends": f"{2000 * LEASE_SECONDS:.0f}ms", "barrier": BARRIER, "recipient": recipient}
    connection.execute(TAKE_LEASE, scope)


def wait_for_leases(connection: Session, recipients: Sequence[int]) -> None:
    """Return once every chunk that was being handed to these recipients is there, or given up."""
    for recipient in sorted(recipients):
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (BARRIER, recipient))
        connection.commit()


def shown(permit: Permit, rows: Rows) -> Iterator[Row]:
    """Rows as the API tells them; their persons by number and their Thing by name, for the mask."""
    shared = {
        "persons": permit.subjects,
        "thing": permit.thing,
        "property": permit.property,
        "unit": permit.unit,
        "resolution": LEVELS[permit.level].name,
    }
    for _, _, begin, quality, *values in rows:
        result = values[0] if permit.kind == ResultKind.NUMBER else _result(permit.kind, values)
        yield {**shared, "phenomenon_time": begin, "result": result, "quality": quality}


def _result(kind: str, values: Sequence[Any]) -> Any:
    return result_of(kind, dict(zip(NONE, values, strict=True)))


PAGE = Query(SELECT_CHUNK, shown, provision)
"""Every row that is permitted, in the order of its place."""
