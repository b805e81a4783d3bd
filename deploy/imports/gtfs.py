"""`chimata import gtfs FILE|FOLDER|URL...`: timetables of GTFS and GTFS-JP, a version each."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import invalid
from core.storage.pool import Session
from deploy.console import bar
from deploy.download import download
from deploy.timetables import Declared, Outcome, import_feed
from domains.mobility.gtfs import convert
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.source import open_source

OPTIONS = ("feed", "licence", "sharing")
STEPS = 2 * len(convert.MAKERS) + 1
BYTES_MAX = 256 << 20
"""Of a packed feed that is fetched."""
FEED = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

GENERIC = frozenset(
    ("gtfs", "jp", "gtfsjp", "static", "feed", "google", "transit", "data", "latest", "current",
     "download", "zip", "tmp")
)  # fmt: skip
"""Words of a file's name that say nothing of whose feed it is."""
DATE_DIGITS_MIN = 6

KEYS = {
    "stops": "stops", "routes": "routes", "trips": "trips", "stop_times": "stop_times",
    "agencies": "agency", "services": "services", "shapes": "shapes", "fares": "fare_attributes",
    "fare_rules": "fare_rules", "translations": "translations", "transfers": "transfers",
    "frequencies": "frequencies",
}  # fmt: skip
"""What is printed -> the count of mobility.feed_version.counts."""


def run(
    session: Session,
    sources: Sequence[str],
    *,
    feed: str | None = None,
    licence: str | None = None,
    sharing: str | None = None,
) -> dict[str, Any]:
    """Import each source; what is printed of several is their sum, and each below `feeds`.

    A feed's id is `feed`, else the source's name without what every feed is called
    (caltrain_gtfs.zip: caltrain), else its folder's (muroran/gtfs_jp.zip: muroran).
    """
    if feed is not None and len(sources) > 1:
        raise invalid("--feed", "is for one source")
    found = []
    with bar(STEPS * len(sources), "importing") as step:
        for source in sources:
            declared = Declared(feed or feed_of(source), licence, sharing)
            if not FEED.fullmatch(declared.feed):
                raise invalid("--feed", f"{declared.feed!r} is not of a-z, 0-9, - and _")
            found.append(_described(_import(session, source, declared, step)))
            session.commit()
    if len(found) == 1:
        return found[0]
    totals: Counter[str] = Counter()
    for each in found:
        totals.update({key: number for key, number in each.items() if key in (*KEYS, "refused")})
    return {**totals, "feeds": found}


def feed_of(source: str, generic: frozenset[str] = GENERIC) -> str:
    """The id of a source's feed by its name; see `run`. `generic` words say nothing of it."""
    if "://" in source:
        parts = urlsplit(source)
        names = [*reversed(parts.path.split("/")), parts.hostname or ""]
    else:
        path = Path(source).resolve()
        names = [path.name, *(parent.name for parent in list(path.parents)[:1])]
    for name in names:
        words = re.findall(r"[a-z0-9]+", name.lower().removesuffix(".zip"))
        own = [w for w in words if w not in generic and not _is_date(w)]
        if own:
            return "-".join(own)[:64].rstrip("-")
    raise invalid("--feed", f"{source} does not tell whose feed it is: say it")


def _is_date(word: str) -> bool:
    return word.isdigit() and len(word) >= DATE_DIGITS_MIN


def _import(
    session: Session, source: str, declared: Declared, step: Callable[[str], str]
) -> Outcome:
    report = Report()
    with _path(source) as path:
        opened = open_source(path, report, name=source.rpartition("/")[2] or source)
    return import_feed(session, opened, report, declared, datetime.now(UTC).date(), step)


@contextmanager
def _path(source: str) -> Iterator[Path]:
    if "://" not in source:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield download(source, Path(folder) / "feed.zip", BYTES_MAX)


def _described(outcome: Outcome) -> dict[str, Any]:
    quality = outcome.quality
    return {
        "feed": outcome.feed,
        "version": outcome.version,
        "known": outcome.known,
        **{key: outcome.counts.get(name, 0) for key, name in KEYS.items()},
        "refused": sum(outcome.refused.values()),
        "valid_from": outcome.valid_from and outcome.valid_from.isoformat(),
        "valid_to": outcome.valid_to and outcome.valid_to.isoformat(),
        "score": quality["score"],
        "problems": {each["code"]: each["count"] for each in quality["problems"]},
    }
