"""`chimata import archive DIR...`: days that `chimata export` wrote, back into storage."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import domains
from core import archive
from core.clock import now_us
from core.errors import invalid
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import Session
from deploy.console import bar

FOUND, STORED, DUPLICATE, REFUSED = "found", "stored", "duplicate", "refused"

DECLARE = """
INSERT INTO gateway (id, data_class) VALUES (%(id)s, %(data_class)s)
ON CONFLICT (id) DO UPDATE SET data_class = excluded.data_class
"""


def run(session: Session, sources: Sequence[str]) -> dict[str, int]:
    """Append every day at or below these folders, with units, qualities and data classes.

    Rows have no batch identity, on purpose: those that are stored are recognised one by one, and
    those that retention has dropped since an earlier import come back.
    """
    folders = archive.find_days(map(Path, sources))
    counts = Counter({"days": len(folders), FOUND: 0, STORED: 0, DUPLICATE: 0, REFUSED: 0})
    stores: dict[str, SectorStore] = {}
    with bar(len(folders), "importing") as step:
        for folder in folders:
            manifest, parquet = archive.open_day(folder)
            if manifest.sector not in domains.names():
                raise invalid(str(folder), f"there is no sector {manifest.sector!r}")
            if manifest.sector not in stores:
                stores[manifest.sector] = SectorStore(domains.sector(manifest.sector))
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number)
                counts.update(_append(session, stores[manifest.sector], rows))
            step(folder)
    return dict(counts)


def _append(session: Session, store: SectorStore, rows: Any) -> Counter[str]:
    """One row group in one transaction; a gateway for each data class is declared to send it."""
    messages = []
    for data_class, decoded in archive.decode(rows).items():
        gateway = f"archive-{data_class.value}"
        session.execute(DECLARE, {"id": gateway, "data_class": data_class.value})
        messages.append(Message(gateway, "parquet", "import", now_us(), b"", b"", decoded))
    counts: Counter[str] = Counter()
    for outcome in store.append(session, messages):
        counts[FOUND] += outcome.counts.received
        counts[STORED] += outcome.counts.stored
        counts[DUPLICATE] += outcome.counts.duplicate
        counts[REFUSED] += outcome.counts.rejected
    flush = store.drain()
    if flush is not None:
        flush.write(session)
        session.commit()
    return counts
