"""Polls the feeds of the catalogue: each in its own time, a slow one in nobody's way."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import httpx
import orjson

from core.errors import CityError
from gateways import polling
from gateways.polling import Polled, Validators

if TYPE_CHECKING:
    from core.storage.pool import Session

AT_ONCE = 8
TICK_SECONDS = 1.0
BYTES_MAX = {"gtfs": 256 * 1024**2, "gtfs-rt": 8 * 1024**2, "gbfs": 8 * 1024**2}
FILES_MAX = 30
"""Of one GBFS feed."""
BACKOFF_SECONDS_MAX = 3_600.0
TOKEN_SECONDS = 24 * 3600
PUSH_SECONDS_MAX = 60.0

SELECT_POLLED = """
SELECT id, kind, url, poll_seconds, etag, last_modified, checked_at FROM mobility.feed
WHERE url IS NOT NULL AND poll_seconds IS NOT NULL ORDER BY id
"""
UPDATE_POLLED = """
UPDATE mobility.feed SET checked_at = now(), error = NULL, etag = %(etag)s,
  last_modified = %(last_modified)s,
  changed_at = CASE WHEN %(changed)s THEN now() ELSE changed_at END
WHERE id = %(id)s
"""
UPDATE_FAILED = "UPDATE mobility.feed SET error = %(error)s WHERE id = %(id)s"
ERROR_CHARACTERS_MAX = 500

NO_VALIDATORS = Validators()

Tell = Callable[[str], None]


def key_file(data: Path, feed: str) -> Path:
    """Where the key of a feed's URL is kept, for its owner alone."""
    return data / "keys" / "feeds" / feed


@dataclass(frozen=True, slots=True)
class Due:
    """One feed that is to be polled."""

    id: str
    kind: str
    url: str
    poll_seconds: int
    validators: Validators
    checked_at: datetime | None


@dataclass(slots=True)
class _Turn:
    """When a feed is polled next, and what is under way."""

    at: float
    failures: int = 0
    running: "Future[bool] | None" = None


@dataclass
class Poller:
    """Fetches what is due, imports timetables, and pushes the rest as the feed's own gateway.

    What is pushed takes the way of any gateway's: HTTP ingest, with a token for that feed alone.
    """

    database_url: str
    data: Path
    platform: str
    audience: str
    tell: Tell
    _turns: dict[str, _Turn] = field(default_factory=dict)
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)

    def run(self, stop: Event, *, only: Sequence[str] | None = None, once: bool = False) -> int:
        """Until `stop`, or each feed once; how many polls failed at the end."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="feed") as pool:
            if once:
                found = self._feeds(only)
                if missing := set(only or ()) - {feed.id for feed in found}:
                    raise CityError("not-found", f"{min(missing)!r} is no feed with a URL")
                return sum(not good for good in pool.map(self.poll, found))
            while not stop.wait(TICK_SECONDS):
                try:
                    self._start_due(pool, self._feeds(only))
                except CityError as error:
                    self.tell(f"feeds cannot be looked up: {error.detail}")
        return 0

    def poll(self, feed: Due) -> bool:
        """One feed, now; whether it went well. What went wrong is told and kept with the feed."""
        try:
            told, polled = self._take(feed)
            said = polled.validators
            self._note(
                UPDATE_POLLED, id=feed.id, changed=polled.body is not None, etag=said.etag,
                last_modified=said.last_modified,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - one feed's trouble is no other's
            # Only our own words: another's may hold the URL, and that the key.
            reason = error.detail if isinstance(error, CityError) else type(error).__name__
            with suppress(Exception):  # the database may be what is away
                self._note(UPDATE_FAILED, id=feed.id, error=reason[:ERROR_CHARACTERS_MAX])
            self.tell(f"{feed.id}: {reason}")
            return False
        self.tell(f"{feed.id}: {told}")
        return True

    def _start_due(self, pool: ThreadPoolExecutor, feeds: Sequence[Due]) -> None:
        now = time.monotonic()
        known = {feed.id for feed in feeds}
        self._turns = {name: turn for name, turn in self._turns.items() if name in known}
        for feed in feeds:
            turn = self._turns.setdefault(feed.id, _Turn(now + _wait(feed)))
            if turn.running is not None and turn.running.done():
                good, turn.running = turn.running.result(), None
                turn.failures = 0 if good else turn.failures + 1
                pause = feed.poll_seconds * 2.0**turn.failures
                most = max(BACKOFF_SECONDS_MAX, feed.poll_seconds)
                # Not all at the same second: publishers' servers feel it.
                turn.at = now + min(pause, most) * random.uniform(0.95, 1.0)  # noqa: S311
            if turn.running is None and now >= turn.at:
                turn.running = pool.submit(self.poll, feed)

    def _take(self, feed: Due) -> tuple[str, Polled]:
        """Fetch, and bring in what is new; in words what came of it."""
        with polling.client() as client:
            polled = self._fetch(client, feed, feed.url, feed.validators)
            if polled.body is None:
                return "nothing new", polled
            if feed.kind == "gtfs":
                return self._import(feed.id, polled.body), polled
            if feed.kind == "gtfs-rt":
                return self._push(client, feed.id, "gtfs-rt", polled.body), polled
            # Its index seldom changes; its files do, and are asked for each time.
            told = [
                self._push(client, feed.id, "gbfs", self._fetch(client, feed, file).body or b"")
                for file in addresses(polled.body, feed.url)
            ]
        return "; ".join(told), Polled(polled.body, Validators())

    def _fetch(
        self, client: httpx.Client, feed: Due, url: str, validators: Validators = NO_VALIDATORS
    ) -> Polled:
        # The key goes into the address that the operator wrote, never into one that came.
        is_own = url == feed.url and polling.KEY in url
        key = key_file(self.data, feed.id).read_text("utf-8") if is_own else polling.KEY
        return polling.fetch(client, url, validators, BYTES_MAX[feed.kind], key)

    def _import(self, feed: str, body: bytes) -> str:
        from deploy.timetables import Declared, import_feed
        from domains.mobility.gtfs.problems import Report
        from domains.mobility.gtfs.source import open_bytes

        report = Report()
        source = open_bytes(body, report, feed)
        with self._session() as session:
            outcome = import_feed(session, source, report, Declared(feed), datetime.now(UTC).date())
            session.commit()
        return "the same timetable" if outcome.known else f"version {outcome.version} is imported"

    def _push(self, client: httpx.Client, feed: str, form: str, body: bytes) -> str:
        try:
            answer = client.post(
                f"{self.platform}/v1/ingest/mobility/{form}", content=body,
                headers={"Authorization": f"Bearer {self._token(feed)}"}, timeout=PUSH_SECONDS_MAX,
            )  # fmt: skip
        except httpx.HTTPError as error:
            raise CityError("unavailable", f"the platform: {type(error).__name__}") from error
        if not answer.is_success:
            raise CityError("unavailable", f"the platform answers {answer.status_code}")
        counts = answer.json()["batches"][0]
        return ", ".join(f"{counts.get(k, 0)} {k}" for k in ("stored", "duplicate", "rejected"))

    def _token(self, feed: str) -> str:
        from core.tokens import Role, issue, load_keys

        token, until = self._tokens.get(feed, ("", 0.0))
        if time.monotonic() > until:
            token = issue(
                load_keys(self.data / "keys"), Role.GATEWAY, gateway=feed, audience=self.audience,
                lifetime_seconds=TOKEN_SECONDS,
            )  # fmt: skip
            self._tokens[feed] = token, time.monotonic() + TOKEN_SECONDS / 2
        return token

    def _feeds(self, only: Sequence[str] | None) -> list[Due]:
        with self._session() as session:
            rows = session.execute(SELECT_POLLED).fetchall()
        found = [Due(i, k, u, s, Validators(e, m), at) for i, k, u, s, e, m, at in rows]
        return [feed for feed in found if not only or feed.id in only]

    def _note(self, query: str, **given: Any) -> None:
        with self._session() as session:
            session.execute(query.encode(), given)
            session.commit()

    def _session(self) -> "Session":
        import psycopg

        from core.storage.pool import DatabaseRole, open_session

        try:
            return open_session(self.database_url, DatabaseRole.INGEST)
        except psycopg.OperationalError as error:
            raise CityError("unavailable", "the database is away") from error


def addresses(index: bytes, base: str) -> Iterator[str]:
    """The files that a gbfs.json names, each once; CityError `unavailable` for what is none.

    GBFS 1 and 2 name them by language (the first that is given counts), 3 in one list.
    """
    try:
        data = orjson.loads(index)["data"]
        listed = data["feeds"] if "feeds" in data else next(iter(data.values()))["feeds"]
        urls = {each["name"]: each["url"] for each in listed if each["name"] != "gbfs"}
    except (ValueError, TypeError, KeyError, StopIteration, AttributeError) as error:
        raise CityError("unavailable", f"no gbfs.json: {type(error).__name__}") from error
    if len(urls) > FILES_MAX:
        raise CityError("unavailable", f"its gbfs.json names over {FILES_MAX} files")
    for url in urls.values():
        if not isinstance(url, str):
            raise CityError("unavailable", "its gbfs.json names an address that is no text")
        yield urljoin(base, url)


def _wait(feed: Due) -> float:
    """How long after a start a feed is due: at once, unless it was polled a moment ago."""
    if feed.checked_at is None:
        return 0.0
    since = (datetime.now(UTC) - feed.checked_at).total_seconds()
    return max(0.0, feed.poll_seconds - since)
