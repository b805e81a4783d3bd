"""Consent at size: one decision, a bulk read against the same read without it, a revoke, the audit.

Grants are loaded as the log's fold leaves them, five a person; what is timed is what serves people:
the gate's own functions, on the primary, every commit durable.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from uuid import UUID, uuid4

import psycopg

import domains
from api.personal import Asked
from api.personal_handover import leased
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from consent import audit, door, grants, personal
from consent.decide import READ_PERSONAL
from consent.gate import Gate
from consent.masks import Mask
from consent.personal import Chunk, Question, span_of
from consent.results import Row
from consent.vocabulary import Operation
from core.settings import Settings
from core.storage.pool import DatabaseRole, open_session
from core.tokens import SCOPES, Principal, Role

GRANTS = 5_000_000
SMALL = 100
"""The smaller size is so many times smaller."""
A_PERSON = 5
RECIPIENTS = 50
READERS, ROWS = 1_000, 1_000
"""Persons who granted to the first recipient and have rows, and how many rows each."""
DECISIONS, REVOKES, CHUNKS, RECORDS = 2_000, 500, 100, 6_000
CHUNK = 10_000
THREADS = 16
PURPOSE, CATEGORY = "dpv:ServiceManagement", "pd:MedicalHealth"
YEAR = datetime.now(UTC).year

FILL = (
    "INSERT INTO consent.recipient SELECT n, 'recipient-' || n, 'n', 'n', 'JP', false "
    "FROM generate_series(1, %(recipients)s) n",
    "INSERT INTO consent.subject (id, key) OVERRIDING SYSTEM VALUE "
    "SELECT n, 'person-' || n FROM generate_series(1, %(persons)s) n",
    "INSERT INTO consent.party SELECT n, ARRAY[n] FROM generate_series(1, %(persons)s) n",
    "INSERT INTO consent.party_member SELECT n, n FROM generate_series(1, %(persons)s) n",
    "INSERT INTO consent.binding SELECT gen_random_uuid(), 'health', 'band-' || n, n, "
    "'[2000-01-01,)' FROM generate_series(1, %(persons)s) n",
    # The first persons grant to the first recipient, everyone to others at random.
    "INSERT INTO consent.granted SELECT gen_random_uuid(), n, n, NULL, (n - 1) / %(each)s + 1, "
    "CASE WHEN n %% %(each)s = 0 AND n <= %(readers)s * %(each)s THEN 1 "
    "     ELSE 2 + floor(random() * (%(recipients)s - 1))::int END, "
    "%(purpose)s, %(category)s, 'read', '[2000-01-01,)', '[2000-01-01,2100-01-01)', 0, '{JP}', "
    "decode(repeat('00', 32), 'hex') FROM generate_series(1, %(grants)s) n",
    "UPDATE consent.clock SET sigma = %(grants)s",
    "INSERT INTO thing (sector, key) SELECT 'health', 'band-' || n "
    "FROM generate_series(1, %(readers)s) n",
    "INSERT INTO datastream (thing_id, property, kind, data_class) "
    "SELECT id, 'heart-rate', 'number', 'personal' FROM thing ORDER BY id",
    "INSERT INTO personal.observation (phenomenon_time, result, append_id, datastream_id, quality) "
    "SELECT %(day)s::timestamptz + r * interval '1 minute', r, 1, d.id, 0 "
    "FROM datastream d CROSS JOIN generate_series(0, %(rows)s - 1) r ORDER BY d.id, r",
    "ANALYZE",
)
DAY = f"{YEAR}-01-02 00:00+00"
# The same rows in the same order, joined to what their answer needs, without a person's say.
SELECT_WITHOUT = """
WITH stream AS MATERIALIZED (
  SELECT d.*, t.key AS thing FROM datastream d JOIN thing t ON t.id = d.thing_id
  WHERE d.id > %(after)s ORDER BY d.id LIMIT %(streams)s)
SELECT id AS number, NULL AS event, NULL AS time, NULL AS quality, NULL::float8 AS result,
       NULL::text, NULL::float8, NULL::float8, NULL::float8, NULL::float8,
       jsonb_build_object('party', 1, 'datastream_id', id, 'level', 0, 'subjects', ARRAY[1],
         'grants', ARRAY[1], 'thing', thing, 'property', property, 'unit', unit, 'kind', kind)
FROM stream
UNION ALL (
  SELECT d.id, o.phenomenon_time, o.phenomenon_time, o.quality, served(o.result, d.decimals),
         NULL, NULL, NULL, NULL, NULL, NULL
  FROM (SELECT * FROM stream ORDER BY id) d CROSS JOIN LATERAL (
    SELECT * FROM personal.observation o WHERE o.datastream_id = d.id
    AND o.phenomenon_time >= '2000-01-01' ORDER BY o.phenomenon_time LIMIT %(limit)s) AS o
  LIMIT %(limit)s)
"""
SELECT_PERMITS = """
SELECT datastream_id, level, subjects, grants FROM consent.permits(
  %(recipient)s, %(purposes)s, %(purposes)s, 'read', 'health', ARRAY['heart-rate', 'heart-rate'],
  ARRAY['chimata:HeartRate', 'pd:MedicalHealth'], '(,)'::tstzrange, ARRAY[%(party)s]::bigint[])
"""


def recipient(number: int) -> Principal:
    return Principal(
        Role.RECIPIENT, f"recipient-{number}", None, None, SCOPES[Role.RECIPIENT], 2**40
    )


def fill(url: str, count: int, readers: int, rows: int) -> None:
    """So many grants, and rows of the persons who granted to the first recipient."""
    scope = {
        "grants": count, "persons": count // A_PERSON, "each": A_PERSON, "recipients": RECIPIENTS,
        "purpose": PURPOSE, "category": CATEGORY, "readers": readers, "rows": rows, "day": DAY,
    }  # fmt: skip
    with psycopg.connect(url, autocommit=True) as connection:
        native = connection.execute("SELECT to_regclass('partition_range')").fetchone()
        if native and native[0]:
            connection.execute("SELECT ensure_partition(%s)", (DAY,))
        for statement in FILL:
            connection.execute(statement.encode(), scope if "%(" in statement else None)


def timed(act: Callable[[], object], times: int) -> list[float]:
    """Milliseconds of each."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


def at(taken: Sequence[float], part: float) -> float:
    """A percentile of sorted numbers."""
    return taken[min(len(taken) - 1, int(len(taken) * part))]


def decisions(url: str, readers: int, times: int) -> list[float]:
    """One person's permit for a recipient who may have one, in one round trip of a kept session."""
    turn = iter(range(times * 10))
    with open_session(url, DatabaseRole.GATE) as session:

        def decide() -> None:
            number = next(turn)
            scope = {
                "recipient": 1 + number % RECIPIENTS,
                "purposes": [PURPOSE],
                "party": 1 + number * 7919 % readers,
            }
            session.execute(SELECT_PERMITS, scope, prepare=True).fetchall()

        timed(decide, min(times, 100))
        return timed(decide, times)


class Bulk:
    """A chunk of one recipient, and the same rows without a person's say, by the same pool."""

    def __init__(self, gate: Gate, limit: int) -> None:
        sector, span = domains.sector("health"), span_of("", "")
        question = Question(sector, PURPOSE, CATEGORY, Operation.READ, span, limit)
        mask = Mask(bytes(32), "recipient-1")
        self.asked = Asked(gate, recipient(1), question, mask, "")
        self.limit = limit

    def consented(self) -> None:
        """Until the rows are there and their record is durable."""
        self._check(self.asked.gate.disclose(self.asked.principal, self.asked.question).rows)

    def without(self) -> None:
        """The rows in one snapshot, as every read by class has it."""
        self._check(self._rows())

    def answered(self) -> None:
        """Until the bytes of the answer may leave under their lease."""

        def body(chunk: Chunk) -> bytes:
            return door.encode({"observations": self.asked.named(chunk.rows)})

        asked = self.asked
        encoded, chunk, lease = leased(asked.gate, asked.principal, asked.question, body)
        lease.release()
        self._check(chunk.rows)
        self.size = len(encoded)

    def plain(self) -> None:
        """The bytes of the same answer, with the names as they are stored."""
        rows = self._rows()
        encoded = door.encode({"observations": rows})
        self._check(rows)
        if len(encoded) < self.size / 2:
            raise RuntimeError("these are other rows")

    def _rows(self) -> list[Row]:
        scope = {"limit": self.limit + 1, "after": 0, "streams": 24}
        with self.asked.gate.having(self.asked.principal, READ_PERSONAL, "") as session:
            answer = session.execute(SELECT_WITHOUT, scope, binary=True).fetchall()
            return [r for piece in personal.pieces_of(answer) for r in personal.shown(*piece)]

    def _check(self, rows: Sequence[Row]) -> None:
        if len(rows) < self.limit:
            raise RuntimeError(f"{len(rows)} of {self.limit} rows")


def in_turns(
    first: Callable[[], None], second: Callable[[], None], times: int
) -> tuple[list[float], float]:
    """Milliseconds of the first, and the median of its ratios to the second right beside it."""
    timed(first, 6)  # the plans of both are kept from then on
    timed(second, 6)
    pairs = []
    for turn in range(times):
        if turn % 2:
            pairs.append((timed(first, 1)[0], timed(second, 1)[0]))
        else:
            other = timed(second, 1)[0]
            pairs.append((timed(first, 1)[0], other))
    return sorted(a for a, _ in pairs), median(a / b for a, b in pairs)


def revokes(gate: Gate, url: str, times: int) -> list[float]:
    """Taking a grant back, until the answer."""
    with psycopg.connect(url) as connection:
        found: list[tuple[UUID, str]] = connection.execute(
            "SELECT grant_id, key FROM consent.granted g JOIN consent.subject s "
            "ON s.id = g.subject ORDER BY g.given DESC LIMIT %s", (times,)
        ).fetchall()  # fmt: skip
    turn = iter(found)

    def revoke() -> None:
        grant, person = next(turn)
        citizen = Principal(Role.CITIZEN, person, None, person, SCOPES[Role.CITIZEN], 2**40)
        gate.act(citizen, "write:own", lambda c: grants.revoke(c, citizen, grant))

    return timed(revoke, len(found))


def records(url: str, count: int) -> float:
    """Durable audit records a second, each a commit of its own, by THREADS sessions."""

    def write(share: int) -> None:
        with open_session(url, DatabaseRole.GATE) as session:
            for _ in range(share):
                entry = audit.refusal(recipient(1), recipient="recipient-1", reason=str(uuid4()))
                audit.record(session, entry)
                session.commit()

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, [max(1, count // THREADS)] * THREADS))
    return max(1, count // THREADS) * THREADS / (time.perf_counter() - began)


def run(scale: float = 1.0) -> Iterator[Result]:
    """On embedded PostgreSQL, and on TimescaleDB where there is one."""
    large = max(10_000, round(GRANTS * scale))
    readers, rows = max(20, round(READERS * scale)), max(20, round(ROWS * max(scale, 0.1)))
    limit = min(CHUNK, readers * rows // 2)
    for label, database in databases().items():
        middles = {}
        for count in (max(1_000, large // SMALL), large):
            with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
                folder = Path(name)
                with database(folder) as url:
                    fill(url, count, min(readers, count // A_PERSON), rows)
                    times = max(50, round(DECISIONS * scale))
                    taken = decisions(url, min(readers, count // A_PERSON), times)
                    middles[count] = median(taken)
                    if count < large:
                        continue
                    yield from of_decisions(label, taken, count, middles)
                    settings = Settings(database_url=url, page_rows_max=CHUNK)
                    gate = Gate(settings)
                    yield from of_gate(label, gate, url, scale, limit)
                    gate.close()


def of_decisions(
    label: str, taken: list[float], count: int, middles: dict[int, float]
) -> Iterator[Result]:
    """Their median and p99, and the median against the smaller size."""
    small = min(middles)
    yield Result(
        f"consent_decision_p50_{label}", middles[count], "ms", (taken[0], taken[-1]),
        ratio=middles[count] / middles[small], ratio_to=f"the same at {small:,} grants",
        goal=Goal("ratio", maximum=1.5),
        note=f"{len(taken)} decisions about {READERS:,} persons at most, at {count:,} grants",
    )  # fmt: skip
    yield Result(
        f"consent_decision_p99_{label}", at(taken, 0.99), "ms", goal=Goal("value", maximum=5.0)
    )


def of_gate(label: str, gate: Gate, url: str, scale: float, limit: int) -> Iterator[Result]:
    """A bulk read, revokes, and audit records."""
    chunks, times = Bulk(gate, limit), max(5, round(CHUNKS * scale))
    taken, ratio = in_turns(chunks.consented, chunks.without, times)
    yield Result(
        f"consent_bulk_{label}", median(taken), "ms", (taken[0], taken[-1]),
        ratio=ratio, ratio_to="the same rows without consent",
        goal=Goal("ratio", maximum=1.3), note=f"chunks of {limit:,} rows, records included",
    )  # fmt: skip
    taken, ratio = in_turns(chunks.answered, chunks.plain, times)
    yield Result(
        f"consent_answer_{label}", median(taken), "ms", (taken[0], taken[-1]),
        ratio=ratio, ratio_to="the same answer without consent",
        goal=Goal("ratio", maximum=1.3), note=f"{limit:,} rows as JSON, names and lease included",
    )  # fmt: skip
    taken = revokes(gate, url, max(20, round(REVOKES * scale)))
    yield Result(
        f"consent_revoke_p99_{label}", at(taken, 0.99), "ms", (taken[0], taken[-1]),
        goal=Goal("value", maximum=50.0), note=f"{len(taken)} revokes, p50 {median(taken):.1f} ms",
    )  # fmt: skip
    yield Result(
        f"consent_audit_{label}", records(url, max(THREADS * 5, round(RECORDS * scale))),
        "records/s", goal=Goal("value", minimum=1_500.0), note=f"{THREADS} sessions",
    )  # fmt: skip
