"""Proofs at size: one inclusion proof out of ten million leaves, and a checkpoint of 5,000 records.

The tree is loaded as the sequencer leaves it; what is timed is what serves people: the functions of
consent.proofs in the gate's role.
"""

import hashlib
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.consent import at, timed
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from consent import merkle, proofs
from consent.gate import Gate
from consent.receipts import Signer
from consent.subject_keys import SubjectKeys
from core.settings import Settings
from core.storage.pool import DatabaseRole, open_session

LEAVES = 10_000_000
BATCH = 500_000
PROOFS, CHECKPOINTS = 2_000, 5
PLACE_BYTES = 16
"""A proof in binary begins with its index and its size."""

FILL = (
    "INSERT INTO audit.leaf VALUES (%(last)s, gen_random_uuid(), '{}')",
    "INSERT INTO thing (sector, key) VALUES ('health', 'band')",
    "INSERT INTO datastream (thing_id, property, kind, data_class) "
    "SELECT id, 'heart-rate', 'number', 'personal' FROM thing",
    "INSERT INTO consent.subject (id, key) OVERRIDING SYSTEM VALUE "
    "SELECT n, 'person-' || n FROM generate_series(1, %(persons)s) n",
    "ANALYZE",
)
INSERT_RECORDS = """
WITH d AS (
  INSERT INTO audit.decision
    (principal, recipient, purpose, category, sector, outcome, reason, sigma)
  VALUES ('clinic', 'clinic', 'dpv:ServiceManagement', 'pd:MedicalHealth', 'health', 'permitted',
          'grants', 1) RETURNING id)
INSERT INTO audit.provision
  (decision, subjects, sector, datastream_id, grants, rows, time_min, time_max)
SELECT d.id, ARRAY[n], 'health', s.id, ARRAY[gen_random_uuid()], 1, now(), now()
FROM d CROSS JOIN (SELECT min(id) AS id FROM datastream) AS s
CROSS JOIN generate_series(1, %(count)s) AS n
"""


def fill(url: str, leaves: int) -> None:
    """A tree of so many leaves."""
    with psycopg.connect(url, autocommit=True) as connection:
        edge: list[bytes] = []
        for size in range(0, leaves, BATCH):
            count = min(BATCH, leaves - size)
            hashes = (hashlib.sha256(n.to_bytes(8)).digest() for n in range(size, size + count))
            made = merkle.appended(size, hashes, edge)
            last: dict[merkle.Position, bytes] = {}
            peaks = set(merkle.peaks(size + count))
            copy = "COPY audit.node (level, index, hash) FROM STDIN (FORMAT binary)"
            with connection.cursor().copy(copy) as into:
                into.set_types(("int2", "int8", "bytea"))
                for position, hashed in made:
                    into.write_row((*position, hashed))
                    if position in peaks:
                        last[position] = hashed
            known = dict(zip(merkle.peaks(size), edge, strict=True)) | last
            edge = [known[position] for position in merkle.peaks(size + count)]
        for statement in FILL:
            scope = {"last": leaves - 1, "persons": proofs.LEAVES_MAX}
            connection.execute(statement.encode(), scope if "%(" in statement else None)


def inclusions(url: str, leaves: int, times: int) -> tuple[list[float], int]:
    """Milliseconds of proofs of leaves at random, and the bytes of the longest."""
    chosen = iter([random.randrange(leaves) for _ in range(2 * times)])
    longest = 0
    with open_session(url, DatabaseRole.GATE) as session:
        nodes = proofs.nodes_of(session)

        def prove() -> None:
            nonlocal longest
            proof = merkle.inclusion_proof(next(chosen), leaves, nodes)
            longest = max(longest, len(proof))

        timed(prove, min(times, 100))
        return timed(prove, times), PLACE_BYTES + longest * merkle.HASH_BYTES


def checkpoints(url: str, keys: SubjectKeys, times: int, count: int) -> Iterator[float]:
    """Seconds in which so many records get their places and the tree is signed."""
    gate, signer = Gate(Settings(database_url=url)), Signer(Ed25519PrivateKey.generate())
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(times):
            connection.execute(INSERT_RECORDS, {"count": count})
            began = time.perf_counter()
            if gate.sequence(signer, bytes(32), keys) != count:
                raise RuntimeError("not every record got its place")
            yield time.perf_counter() - began
    gate.close()


def run(scale: float = 1.0) -> Iterator[Result]:
    """On embedded PostgreSQL, and on TimescaleDB where there is one."""
    leaves, records = round(LEAVES * scale), max(50, round(proofs.LEAVES_MAX * scale))
    for label, database in databases().items():
        with (
            tempfile.TemporaryDirectory(prefix="chimata-bench-") as name,
            database(Path(name)) as url,
        ):
            fill(url, leaves)
            taken, size = inclusions(url, leaves, max(50, round(PROOFS * scale)))
            yield Result(
                    f"proofs_inclusion_{label}", median(taken), "ms", (taken[0], taken[-1]),
                    goal=Goal("value", maximum=1.0),
                    note=f"{len(taken)} proofs among {leaves:,}, p99 {at(taken, 0.99):.2f} ms",
                )  # fmt: skip
            yield Result(f"proofs_bytes_{label}", size, "bytes", goal=Goal("value", maximum=1024.0))
            signed = list(
                checkpoints(url, SubjectKeys(Path(name) / "subjects"), CHECKPOINTS, records)
            )
            yield Result(
                    f"proofs_checkpoint_{label}", median(signed), "s", (min(signed), max(signed)),
                    goal=Goal("value", maximum=2.0), note=f"{records:,} records behind {leaves:,}",
                )  # fmt: skip
