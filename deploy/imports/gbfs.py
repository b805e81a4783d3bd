"""`chimata import gbfs FOLDER|FILE|URL...`: feeds of shared vehicles, in any version of GBFS."""

import hashlib
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson

import domains
from core.clock import now_us
from core.errors import CityError, invalid
from core.sector import Context
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import Session
from deploy.console import bar
from deploy.download import download
from domains.mobility.gbfs.decode import decoded
from domains.mobility.gbfs.read import (
    HISTORY,
    Document,
    GbfsError,
    index_of,
    merged,
    parse,
    read_document,
    spoken,
)
from domains.mobility.sector import SECTOR
from ingest.check import check

OPTIONS = ("feed", "licence", "sharing")
FILE_BYTES_MAX = 64 << 20
FILES_MAX = 200
"""Files of one feed, in all of its languages."""
FUTURE_SECONDS_MAX = 900.0
FEED = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

# What was not said keeps what it was.
UPSERT_FEED = """
INSERT INTO mobility.feed (id, kind, title, url, licence, sharing, changed_at, checked_at)
VALUES (%(feed)s, 'gbfs', coalesce(%(title)s, %(feed)s), %(url)s, %(licence)s,
        coalesce(%(sharing)s, 'collaborative'), now(), now())
ON CONFLICT (id) DO UPDATE SET
  title = coalesce(%(title)s, mobility.feed.title),
  licence = coalesce(%(licence)s, mobility.feed.licence),
  sharing = coalesce(%(sharing)s, mobility.feed.sharing), checked_at = now(), changed_at = now()
RETURNING kind
"""
COUNTED = {
    "station_information": "stations", "station_status": "station_status",
    HISTORY: "history", "vehicle_status": "vehicles", "vehicle_types": "vehicle_types",
    "system_regions": "regions", "system_pricing_plans": "pricing_plans",
    "system_alerts": "alerts", "geofencing_zones": "geofencing_zones",
}  # fmt: skip
"""Name of a file -> what its items are called in the answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a feed: where it is, its name in GBFS and its language, "" where not said."""

    where: str
    name: str = ""
    language: str = ""


def run(
    session: Session,
    sources: Sequence[str],
    *,
    feed: str | None = None,
    licence: str | None = None,
    sharing: str | None = None,
) -> dict[str, Any]:
    """Import each source as one feed: a folder of files, a gbfs.json with all it lists, one file.

    A feed's id is `feed`, else its folder's name, or the system_id of what comes by a URL. Counts
    are of items found, by kind; `observations`, `duplicate` and `refused` of what was stored.
    """
    if feed is not None and len(sources) > 1:
        raise invalid("--feed", "is for one source")
    totals: Counter[str] = Counter()
    problems: list[str] = []
    with bar(len(sources), "importing") as step:
        for source in sources:
            documents, refused = _documents(source)
            name = feed or _feed_of(source, documents)
            if not FEED.fullmatch(name):
                raise invalid("--feed", f"{name!r} is not of a-z, 0-9, - and _")
            url = source if "://" in source and not urlsplit(source).query else None
            _declare(session, name, _title(documents), url, licence, sharing)
            counts, told = _store(session, name, documents, refused)
            totals.update(counts)
            problems += [f"{name}: {each}" for each in told]
            step(name)
    return {**totals, "problems": problems[:100]}


def _feed_of(source: str, documents: Iterable[Document]) -> str:
    if "://" not in source:
        path = Path(source).resolve()
        named = path.name if path.is_dir() else path.parent.name
    else:
        systems = (item["system_id"] for d in documents for item in d.items if "system_id" in item)
        named = next(systems, urlsplit(source).hostname or "")
    return "-".join(re.findall(r"[a-z0-9_]+", named.lower()))[:64].strip("-")


def _title(documents: Iterable[Document]) -> str | None:
    for document in documents:
        if document.name == "system_information" and document.items:
            texts = document.items[0].get("name", ())
            return next((str(each["text"])[:200] for each in texts), None)
    return None


def _declare(
    session: Session, feed: str, title: str | None, url: str | None, licence: str | None,
    sharing: str | None,
) -> None:  # fmt: skip
    given = {"feed": feed, "title": title, "url": url, "licence": licence, "sharing": sharing}
    row = session.execute(UPSERT_FEED, given).fetchone()
    if row is None or row[0] != "gbfs":
        raise CityError("conflict", f"the feed {feed!r} is of another kind: {row and row[0]}")


# -- files ------------------------------------------------------------------------------------


def _documents(source: str) -> tuple[list[Document], list[str]]:
    """What a source holds, a file of several languages as one, and what of it cannot be read."""
    found: dict[str, list[Document]] = {}
    refused: list[str] = []
    histories = []
    files = _sources(source, refused)
    for file in files:
        try:
            body = parse(_bytes(file.where))
            document = read_document(body, now_us(), file.name)
        except (GbfsError, CityError, OSError) as error:
            refused.append(f"{_short(file.where)}: {error}")
            continue
        if document is not None and document.name == HISTORY:
            histories.append(document)
        elif document is not None:
            if file.language:
                document = spoken(document, file.language)
            found.setdefault(document.name, []).append(document)
    return [*(merged(each) for each in found.values()), *histories], refused


def _sources(source: str, refused: list[str]) -> list[Source]:
    """The files of a source: of a folder all, by a gbfs.json those that it lists."""
    path = Path(source)
    if "://" not in source and not path.exists():
        raise invalid("FILE", f"{source} does not exist")
    if "://" not in source and path.is_dir():
        index = path / "gbfs.json"
        files = sorted(str(each) for each in path.glob("*.json"))[:FILES_MAX]
        if not files:
            raise invalid("FILE", f"{source} has no .json files")
        listed = _listed(str(index), refused, path) if index.is_file() else []
        known = {each.where for each in listed}
        return [*listed, *(Source(file) for file in files if file not in known)]
    return _listed(source, refused, None) or [Source(source)]


def _listed(source: str, refused: list[str], folder: Path | None) -> list[Source]:
    """What a gbfs.json lists: from the web, or by the same names in its own folder."""
    try:
        body = parse(_bytes(source))
    except (GbfsError, CityError, OSError) as error:
        refused.append(f"{_short(source)}: {error}")
        return []
    found = []
    for language, name, url in index_of(body)[:FILES_MAX]:
        if "://" in source:
            found.append(Source(_web(source, url), name, language))
        else:
            beside = (folder or Path(source).parent) / f"{Path(urlsplit(url).path).name}"
            if beside.is_file() and name != "gbfs":
                found.append(Source(str(beside), name, language))
    return [each for each in found if each.name not in ("gbfs", "gbfs_versions")]


def _web(index: str, url: str) -> str:
    """Never from the web to a file of this machine."""
    where = urljoin(index, url)
    if urlsplit(where).scheme not in {"http", "https"}:
        raise invalid("URL", "gbfs.json lists what is not on the web")
    return where


def _bytes(where: str) -> bytes:
    if "://" in where:
        with tempfile.TemporaryDirectory() as folder:
            return download(where, Path(folder) / "file.json", FILE_BYTES_MAX).read_bytes()
    path = Path(where)
    if path.stat().st_size > FILE_BYTES_MAX:
        raise CityError("too-large", f"is over {FILE_BYTES_MAX >> 20} MiB")
    return path.read_bytes()


def _short(where: str) -> str:
    """The name of a file: an address may have a key in it."""
    return Path(urlsplit(where).path).name or "the feed"


# -- storage ----------------------------------------------------------------------------------


def _store(
    session: Session, feed: str, documents: Sequence[Document], refused: Sequence[str]
) -> tuple[Counter[str], list[str]]:
    """One transaction a document; and the latest values, which the API reads."""
    store = SectorStore(SECTOR)
    derive = domains.load(SECTOR.name, "rules").derive
    counts: Counter[str] = Counter({"refused": len(refused)})
    problems = list(refused)
    memory: dict[Any, Any] = {}
    for document in documents:
        received_at = now_us()
        found = derive(decoded(document, Context(feed, received_at, memory)))
        checked = check(SECTOR, found, received_at, FUTURE_SECONDS_MAX)
        problems += [each.detail for each in checked.rejected]
        if name := COUNTED.get(document.name):
            counts[name] += document.found
        payload = orjson.dumps([document.name, document.time, document.items])
        digest = hashlib.sha256(payload).digest()
        message = Message(feed, "gbfs", "import", received_at, payload, digest, checked)
        for outcome in store.append(session, [message]):
            counts["observations"] += outcome.counts.stored
            counts["duplicate"] += outcome.counts.duplicate
            counts["refused"] += outcome.counts.rejected
    flush = store.drain()
    if flush is not None:
        flush.write(session)
    session.commit()
    return counts, problems
