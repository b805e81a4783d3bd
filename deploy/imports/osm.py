"""`chimata import osm FILE|URL...`: the ways on foot of extracts of OpenStreetMap, as one network.

All files of one command are one network; it replaces the one before. The licence is the ODbL, so
every answer that uses it names the contributors.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg.types.json import Jsonb

from core.storage.pool import Session
from deploy.console import bar
from deploy.download import download
from domains.mobility.network import street_load
from domains.mobility.osm.contract import contract
from domains.mobility.osm.read import Raw, read

BYTES_MAX = 1 << 30
"""Of an extract that is fetched."""
LICENCE = "ODbL-1.0"
ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0, https://www.openstreetmap.org/copyright"

LOCK = "LOCK TABLE mobility.street_network IN SHARE ROW EXCLUSIVE MODE"
SELECT_KNOWN = "SELECT id FROM mobility.street_network WHERE sha256 = %(sha256)s"
INSERT_NETWORK = """
INSERT INTO mobility.street_network (sha256, licence, attribution, counts, refused)
VALUES (%(sha256)s, %(licence)s, %(attribution)s, %(counts)s, %(refused)s) RETURNING id
"""
INSERT_PART = """
INSERT INTO mobility.street_part (network, name, part, body)
VALUES (%(network)s, %(name)s, %(part)s, %(body)s)
"""
DELETE_OTHERS = "DELETE FROM mobility.street_network WHERE id <> %(network)s"


def run(session: Session, sources: Sequence[str]) -> dict[str, Any]:
    """Read every source, then store their network in one transaction; the same again is `known`."""
    raw = Raw()
    with bar(len(sources) + 2, "importing") as step:
        for source in sources:
            with _path(source) as (path, name):
                read(path, name, raw)
            step(name)
        arrays, counts = contract(raw)
        step("network")
        counts.update(raw.found)
        pieces = street_load.parts(arrays)
        sha256 = hashlib.sha256()
        for name, number, body in pieces:
            sha256.update(f"{name}/{number}/{len(body)}/".encode() + body)
        known = _store(session, sha256.digest(), pieces, counts, raw.refused)
        session.commit()
        step("stored")
    return {
        "known": known,
        **{key: counts[key] for key in sorted(counts)},
        "refused": dict(raw.refused),
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
    }


def _store(
    session: Session, sha256: bytes, pieces: list[tuple[str, int, bytes]],
    counts: dict[str, int], refused: dict[str, int],
) -> bool:  # fmt: skip
    """Whether it was there already; readers have the network before until this is committed."""
    session.execute(LOCK)
    if session.execute(SELECT_KNOWN, {"sha256": sha256}).fetchone():
        return True
    values = {
        "sha256": sha256, "licence": LICENCE, "attribution": ATTRIBUTION,
        "counts": Jsonb(counts), "refused": Jsonb(refused),
    }  # fmt: skip
    for (network,) in session.execute(INSERT_NETWORK, values).fetchall():
        for name, part, body in pieces:
            given = {"network": network, "name": name, "part": part, "body": body}
            session.execute(INSERT_PART, given)
        session.execute(DELETE_OTHERS, {"network": network})
    return False


@contextmanager
def _path(source: str) -> Iterator[tuple[Path, str]]:
    """Where it is, and its name, by which its format is known."""
    if "://" not in source:
        yield Path(source), Path(source).name
        return
    name = urlsplit(source).path.rpartition("/")[2] or "extract"
    with tempfile.TemporaryDirectory() as folder:
        # Its own name stays outside of the file system; the suffix says how to read it.
        suffix = "".join(Path(name).suffixes[-2:])[-12:]
        yield download(source, Path(folder) / f"extract{suffix}", BYTES_MAX), name
