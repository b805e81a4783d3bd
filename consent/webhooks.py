"""Delivers stop notices to recipients' endpoints, signed by Standard Webhooks, beside the API.

Any number of processes may run it. An endpoint is one process's at a time, by a lease in the
database, and takes its notices in their order; each has a task of its own, so none waits for
another. An address is looked up first and is then connected to as it was found: what is not
public is refused, whatever its name says at which moment.
"""

import asyncio
import base64
import hmac
import ipaddress
import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any, Concatenate, TypeVar
from uuid import UUID

import httpx

from consent import stops
from consent.gate import Gate
from consent.log import Session
from consent.masks import Mask
from consent.stops import Endpoint
from core.errors import CityError, brief, invalid

log = logging.getLogger("chimata.consent")

TURN_SECONDS = 1.0
ATTEMPT_SECONDS_MAX = 10.0
RETRY_SECONDS = (1.0, 3600.0)
"""The wait after a first failure doubles with each more, up to this."""
ENDPOINTS_MAX = 1_000
"""So many are told at the same time by one process."""
LOOK_UPS_MAX = 32
ADDRESSES_MAX = 3
URL_CHARACTERS_MAX = 2_000
PORTS = {443, *range(1024, 65536)}
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
T = TypeVar("T")


def signature(secret: bytes, identifier: str, at: int, body: bytes) -> str:
    """`webhook-signature` of Standard Webhooks: an HMAC over id, time and body."""
    signed = f"{identifier}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def networks_of(setting: str) -> Networks:
    """CHIMATA_NOTICE_NETWORKS; CityError `invalid` for what is no list of networks."""
    try:
        return [ipaddress.ip_network(each.strip()) for each in setting.split(",") if each.strip()]
    except ValueError as error:
        raise invalid("CHIMATA_NOTICE_NETWORKS", brief(error)) from error


def check_url(url: str, networks: Networks) -> None:
    """CityError `invalid` for an address to which no notice may go, as far as it says so itself."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise invalid("url", "is no URL") from error
    secure = parsed.scheme == "https"
    if not secure and not (parsed.scheme == "http" and networks):
        raise invalid("url", "must begin with https://")
    if not parsed.host or parsed.userinfo or parsed.fragment or not url.isascii():
        raise invalid("url", "must be a host, a path and no more, in ASCII")
    if (parsed.port or 443) not in PORTS and secure:
        raise invalid("url", "must be on port 443, or from 1024 on")
    try:
        address = ipaddress.ip_address(parsed.host)
    except ValueError:
        return  # a name is looked up each time
    if not is_allowed(address, networks, secure=secure):
        raise invalid("url", "must be a public address")


def is_allowed(address: Address, networks: Networks, *, secure: bool) -> bool:
    """Whether a notice may go there: to what is public, in secret, and to networks of ours."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_allowed(inner, networks, secure=secure)
        if address.teredo is not None:
            return False
    if any(address in network for network in networks if network.version == address.version):
        return True
    return secure and address.is_global and not address.is_multicast


def wait_after(failures: int) -> timedelta:
    """How long an endpoint rests that has failed so often, with chance in it."""
    first, most = RETRY_SECONDS
    seconds = min(most, first * 2 ** min(failures - 1, 30))
    return timedelta(seconds=seconds * random.uniform(0.5, 1.0))  # noqa: S311 - no secret


class Refused(Exception):
    """An endpoint did not take a notice; the text says why."""


class Sender:
    """Sends one notice; made and used in one event loop."""

    def __init__(self, networks: Networks, context: ssl.SSLContext | None = None) -> None:
        self._networks = networks
        self._client = httpx.AsyncClient(
            verify=context or httpx.create_ssl_context(),
            timeout=ATTEMPT_SECONDS_MAX,
            follow_redirects=False,
            trust_env=False,
            # A connection is for one name: kept, it might serve another name of the same address.
            limits=httpx.Limits(max_connections=ENDPOINTS_MAX, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def send(self, url: str, secret: bytes, identifier: str, body: bytes) -> None:
        """Return once the endpoint has acknowledged it; Refused otherwise, in bounded time."""
        at = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": identifier,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(secret, identifier, at, body),
        }
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS_MAX):
                status = await self._post(httpx.URL(url), headers, body)
        except TimeoutError as error:
            raise Refused("did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Refused(f"{type(error).__name__}: {brief(error)}"[:200]) from error
        if not httpx.codes.is_success(status):
            raise Refused(f"answered {status}")

    async def _post(self, url: httpx.URL, headers: dict[str, str], body: bytes) -> int:
        """The status of the first address that takes a connection; its body is not read."""
        addresses = await self._look_up(url)
        for number, address in enumerate(addresses, 1):
            request = self._client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                headers={**headers, "host": url.netloc.decode()},
                content=body,
                extensions={"sni_hostname": url.host},
            )
            try:
                answer = await self._client.send(request, stream=True)
            except httpx.ConnectError:
                if number == len(addresses):
                    raise
                continue
            await answer.aclose()
            return answer.status_code
        raise Refused("has no address")

    async def _look_up(self, url: httpx.URL) -> list[Address]:
        secure = url.scheme == "https"
        found = await asyncio.get_running_loop().getaddrinfo(
            url.host, url.port or (443 if secure else 80), type=1
        )
        addresses = list(dict.fromkeys(ipaddress.ip_address(each[4][0]) for each in found))
        if not all(is_allowed(each, self._networks, secure=secure) for each in addresses):
            raise Refused("has an address that is not public")
        return addresses[:ADDRESSES_MAX]


class Notifier(threading.Thread):
    """Tells every endpoint what it is to be told, until `stop`."""

    def __init__(
        self, gate: Gate, secret: bytes, networks: Networks, escalate_after: timedelta
    ) -> None:
        super().__init__(name="notifier", daemon=True)
        self._gate, self._secret, self._networks = gate, secret, networks
        self._escalate_after = escalate_after
        self._stopping = threading.Event()
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: dict[str, Endpoint] = {}
        # One connection, one statement after another: however many endpoints, reads keep theirs.
        self._database = ThreadPoolExecutor(1, "notifier-database")

    def stop(self) -> None:
        """Let it end, and wait for that; what is under way is tried again by the next process."""
        self._stopping.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._woken.set)
        self.join(ATTEMPT_SECONDS_MAX)  # a look-up of a name cannot be broken off

    def run(self) -> None:
        """Until `stop`."""
        with self._database:
            asyncio.run(self._turns())

    async def _turns(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(LOOK_UPS_MAX))
        sender = Sender(self._networks)
        tasks: set[asyncio.Task[None]] = set()
        while not self._stopping.is_set():
            try:
                for held in await self._turn(ENDPOINTS_MAX - len(tasks)):
                    task = asyncio.create_task(self._tell(sender, held), name=held.recipient)
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            except Exception as error:  # noqa: BLE001 - without this thread nobody is told
                log.warning("stop notices wait, will retry: %s", brief(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), TURN_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(CityError):
            await self._release()
        await sender.close()

    async def _turn(self, room: int) -> list[Endpoint]:
        for recipient in await self._do(stops.escalate, self._escalate_after):
            log.warning("recipient %s has not acknowledged a stop notice in time", recipient)
        return await self._do(stops.claim, room) if room else []

    async def _tell(self, sender: Sender, claimed: Endpoint) -> None:
        """One endpoint's notices in their order, until none is left, one fails or it is lost."""
        secret = stops.secret_of(self._secret, claimed.recipient, claimed.version)
        mask = Mask(self._secret, claimed.recipient)
        held: Endpoint | None = claimed
        try:
            while held is not None:
                self._held[claimed.recipient] = held
                stop = await self._do(stops.next_of, claimed.recipient)
                error = None
                if stop is not None:
                    try:
                        body = stops.body_of(stop, mask)
                        await sender.send(claimed.url, secret, str(stop["id"]), body)
                    except Refused as refused:
                        error = str(refused)
                        log.info("recipient %s took no stop notice: %s", claimed.recipient, error)
                number = stop["id"] if stop else None
                held = await self._do(_settled, held, number, error)
        except Exception as error:  # noqa: BLE001 - its lease ends by itself, then another tries
            log.warning("stop notices to %s wait: %s", claimed.recipient, brief(error))
        self._held.pop(claimed.recipient, None)

    async def _release(self) -> None:
        """Give back what is held: the next process need not wait for the leases to end."""
        for held in self._held.values():
            await self._do(stops.settle, held, timedelta(0), held.failures)

    async def _do(self, work: Callable[Concatenate[Session, ...], T], *given: Any) -> T:
        """One transaction, beside the loop."""

        def transact() -> T:
            with self._gate.working() as connection:
                return work(connection, *given)

        return await asyncio.get_running_loop().run_in_executor(self._database, transact)


def _settled(
    connection: Session, held: Endpoint, stop: UUID | None, error: str | None
) -> Endpoint | None:
    """Put an attempt on record; the lease for the next notice, None where there is none now."""
    if stop is None:
        stops.settle(connection, held, timedelta(0))
        return None
    stops.tried(connection, stop, taken=error is None)
    if error is None:
        return stops.settle(connection, held, stops.LEASE)
    failures = held.failures + 1
    stops.settle(connection, held, wait_after(failures), failures, error)
    return None
