"""HTTP sender: POST /v1/ingest/{sector}/{format}; the answer, after the commit, is the receipt."""

import contextlib
import queue
import ssl
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from core.errors import CityError
from gateways import receipts
from gateways.batches import Batch
from gateways.receipts import BatchResult, Receipt

WORKERS = 4
TIMEOUT_SECONDS = 60.0
BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.2, 5.0
FATAL = {401: "unauthenticated", 403: "forbidden"}
REFUSED = frozenset({400, 404, 405, 409, 410, 413, 414, 415, 422})
"""Answers that the same batch will always get."""


class HttpSender:
    """A few requests at a time; each worker repeats its own until there is an answer.

    http[s]://host[:port][/path][?ca=FILE]: `ca` is a private authority's certificate.
    """

    def __init__(self, url: str, gateway: str, token: str) -> None:
        self.gateway = gateway
        self.trouble: str | None = None
        self.connection = 1
        parts = urlsplit(url)
        ca_file = parse_qs(parts.query).get("ca", [None])[-1]
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_SECONDS,
            verify=ssl.create_default_context(cafile=ca_file),
        )
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="http-sender")
        self._closed = Event()
        self._lock = Lock()
        self._held: set[tuple[str, int]] = set()
        self._inbox: queue.SimpleQueue[Receipt | CityError] = queue.SimpleQueue()

    def send(self, batch: Batch) -> bool:
        """Queue one request. See `gateways.delivery.Sender`."""
        with self._lock:
            if (batch.boot, batch.seq) in self._held:
                return True  # still being repeated: no second request beside it
            self._held.add((batch.boot, batch.seq))
        self._pool.submit(self._deliver, batch)
        return True

    def receipts(self, wait_seconds: float) -> list[Receipt]:
        """Receipts from answers; CityError when the token is not accepted."""
        found: list[Receipt] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._take(wait_seconds))
            while True:
                found.append(self._take(0))
        return found

    def _take(self, wait_seconds: float) -> Receipt:
        got = self._inbox.get(block=wait_seconds > 0, timeout=wait_seconds or None)
        if isinstance(got, CityError):
            raise got
        return got

    def close(self) -> None:
        """Stop; requests under way end by themselves."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def _deliver(self, batch: Batch) -> None:
        backoff = BACKOFF_SECONDS_MIN
        try:
            while not self._closed.is_set():
                answer = self._post(batch)
                if answer is not None:
                    self._inbox.put(answer)
                    return
                self._closed.wait(backoff)
                backoff = min(backoff * 2, BACKOFF_SECONDS_MAX)
        finally:
            with self._lock:
                self._held.discard((batch.boot, batch.seq))

    def _post(self, batch: Batch) -> Receipt | CityError | None:
        """One request; None when it is worth repeating."""
        try:
            response = self._client.post(
                f"{self._url}/v1/ingest/{batch.sector}/{batch.format}",
                content=batch.payload,
                headers={
                    "Chimata-Batch": f"{batch.boot}/{batch.seq}",
                    "Content-Type": "application/octet-stream",
                },
            )
        except httpx.TransportError as error:
            self.trouble = f"{type(error).__name__}: {error}"
            return None
        return self._answer(batch, response)

    def _answer(self, batch: Batch, response: httpx.Response) -> Receipt | CityError | None:
        if response.is_success:
            self.trouble = None
            with contextlib.suppress(ValueError):
                return receipts.parse(response.content)
            self.trouble = "the answer is no receipt: is this the platform's URL?"
            return None
        problem = _problem(response)
        detail = str(problem.get("detail") or f"HTTP {response.status_code}")
        if slug := FATAL.get(response.status_code):
            return CityError(slug, detail)
        if response.status_code in REFUSED:
            reason = str(problem.get("type") or "refused").rpartition("/")[2]
            reason = str(problem.get("slug") or reason)
            result = BatchResult(batch.seq, "refused", reason=reason, detail=detail)
            return Receipt(self.gateway, batch.boot, batches=(result,))
        self.trouble = detail
        return None


def _problem(response: httpx.Response) -> dict[str, Any]:
    """The RFC 9457 body of an error; empty when it has none."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
