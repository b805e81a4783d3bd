"""Live streams: what arrives, for whom, in which order, after which break."""

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from api.live import (
    QUEUE_EVENTS_MAX,
    Subscriber,
    format_cursor,
    parse_cursor,
)
from core.settings import Settings
from core.tokens import ANONYMOUS, Role
from tests.api.city import SECOND, START, City
from tests.api.conftest import Served, serving

Until = Callable[[Callable[[], bool]], None]
WAIT_SECONDS = 10.0


@dataclass
class Event:
    """One server-sent event."""

    name: str
    data: Any
    id: str | None


@dataclass
class Stream:
    """A client of server-sent events, read by a thread."""

    status: int
    headers: httpx.Headers
    events: "queue.Queue[Event]" = field(default_factory=queue.Queue)
    last_id: str | None = None
    comments: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    def next(self, timeout: float = WAIT_SECONDS) -> Event:
        """The next event."""
        return self.events.get(timeout=timeout)

    def observations(self) -> list[tuple[str, str, Any]]:
        """(thing, property, result) of the next event, which holds observations."""
        event = self.next()
        assert event.name == "observations", event
        return [(o["thing"], o["property"], o["result"]) for o in event.data["observations"]]

    def silent(self, seconds: float = 0.4) -> bool:
        """Whether nothing comes for a while."""
        try:
            self.next(seconds)
        except queue.Empty:
            return True
        return False

    def read(self, lines: Iterator[str]) -> None:
        """Parse as WHATWG HTML 9.2.6 says."""
        name, event_id = "message", None
        data: list[str] = []
        try:
            for line in lines:
                if line.startswith(":"):
                    self.comments += 1
                elif not line:
                    self.last_id = event_id if event_id is not None else self.last_id
                    if data:
                        self.events.put(Event(name, json.loads("\n".join(data)), event_id))
                    name, data, event_id = "message", [], None
                else:
                    key, _, value = line.partition(": ")
                    if key == "event":
                        name = value
                    elif key == "data":
                        data.append(value)
                    elif key == "id":
                        event_id = value
        except httpx.HTTPError:
            pass
        finally:
            self.closed.set()


@contextmanager
def stream(
    served: Served,
    query: str = "",
    role: Role | None = None,
    last_id: str | None = None,
    path: str = "/v1/live",
    headers: dict[str, str] | None = None,
) -> Iterator[Stream]:
    """An open live stream."""
    headers = {**(headers or served.as_role(role))}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    with (
        httpx.Client(timeout=httpx.Timeout(30, read=60)) as client,
        client.stream("GET", f"{served.url}{path}{query}", headers=headers) as answer,
    ):
        opened = Stream(answer.status_code, answer.headers)
        if answer.status_code == 200:
            lines = answer.iter_lines()
            assert next(lines).startswith("retry:")
            reader = threading.Thread(target=opened.read, args=(lines,), daemon=True)
            reader.start()
        yield opened
        # The reader sits in recv(), which keeps a merely closed socket open.
        connection = answer.extensions["network_stream"].get_extra_info("socket")
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def joined(served: Served, count: int) -> Callable[[], bool]:
    return lambda: len(served.app.state.hub._subscribers) == count


@pytest.fixture
def vessel(served: Served, city: City) -> int:
    """A Datastream of a vessel in the bay."""
    return city.datastream(city.thing("ports", "1001", at=(139.65, 35.45)), "heading", unit="deg")


def test_an_append_arrives(served: Served, city: City, vessel: int, until: Until) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        assert live.headers["content-type"].startswith("text/event-stream")
        assert live.headers["cache-control"] == "no-store"
        first = city.append("ports", [(vessel, START, 1.0)])
        event = live.next()
        assert (event.name, event.id) == ("observations", f"ports:{first}")
        assert event.data == {
            "sector": "ports",
            "observations": [
                {
                    "thing": "1001", "property": "heading", "result": 1.0, "unit": "deg",
                    "phenomenon_time": "2026-01-01T00:00:00Z", "quality": 0,
                }
            ],
        }  # fmt: skip


def test_each_client_has_its_unit(served: Served, city: City, vessel: int, until: Until) -> None:
    with stream(served) as plain, stream(served, "?unit=rad") as turned:
        until(joined(served, 2))
        city.append("ports", [(vessel, START, 1.5)])
        radians = pytest.approx(0.02617993878)
        for live, expected in ((plain, (1.5, "deg")), (turned, (radians, "rad"))):
            (observed,) = live.next().data["observations"]
            assert (observed["result"], observed["unit"]) == expected
    answer = served.get("/v1/live?unit=warm")
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "unit")


def test_every_kind_arrives(served: Served, city: City, until: Until) -> None:
    thing = city.thing("ports", "1001")
    kinds = ("position", "document", "category", "number")
    made = {kind: city.datastream(thing, kind, kind) for kind in kinds}
    results = {
        "position": (139.6, 35.4, 2.0, 90.0), "document": {"a": [1]}, "category": "moored",
        "number": 3e12,
    }  # fmt: skip
    with stream(served) as live:
        until(joined(served, 1))
        city.append("ports", [(made[kind], START, results[kind]) for kind in kinds])
        found = {name: result for _, name, result in live.observations()}
        position = {"longitude": 139.6, "latitude": 35.4, "speed": 2.0, "course": 90.0}
        assert found == {**results, "position": position}


def test_append_ids_count_by_sector(served: Served, city: City, vessel: int, until: Until) -> None:
    """Two sectors have an append 1: each stream gets its own rows only."""
    lamp = city.datastream(city.thing("signals", "8804"), "signal-state/2", "category")
    with stream(served, "?sector=ports") as ports, stream(served, "?sector=signals") as signals:
        until(joined(served, 2))
        assert city.append("ports", [(vessel, START, 1.0)]) == 1
        assert city.append("signals", [(lamp, START, "dark")]) == 1
        assert ports.observations() == [("1001", "heading", 1.0)]
        assert signals.observations() == [("8804", "signal-state/2", "dark")]
        assert ports.silent()
        assert signals.silent()


def test_only_the_area_arrives(served: Served, city: City, vessel: int, until: Until) -> None:
    far = city.datastream(city.thing("ports", "2001", at=(179.9, 0.0)), "heading")
    nowhere = city.datastream(city.thing("ports", "3001"), "heading")
    moving = city.datastream(city.thing("ports", "4001"), "position", "position")
    with (
        stream(served, "?bbox=139,35,140,36") as bay,
        stream(served, "?bbox=179,-1,-179,1") as line,
    ):
        until(joined(served, 2))
        rows: list[Any] = [(stream, START, 1.0) for stream in (vessel, far, nowhere)]
        city.append("ports", [*rows, (moving, START, (-179.95, 0.5, 1.0, 1.0))])
        assert bay.observations() == [("1001", "heading", 1.0)]
        assert {thing for thing, _, _ in line.observations()} == {"2001", "4001"}


def test_classes_are_kept_apart(
    served: Served, city: City, shared_sector: str, until: Until
) -> None:
    thing = city.thing(shared_sector, "t")
    made = {name: city.datastream(thing, name, data_class=name) for name in ("open", "shared")}
    made["personal"] = city.datastream(thing, "personal", data_class="personal")
    with ExitStack() as opened:
        everyone = {
            role: opened.enter_context(stream(served, f"?sector={shared_sector}", role))
            for role in (None, *Role)
        }
        until(joined(served, len(everyone)))
        city.append(shared_sector, [(made[name], START, 1.0) for name in made])
        for role, live in everyone.items():
            names = {name for _, name, _ in live.observations()}
            both = role in {Role.OPERATOR, Role.STAFF}
            assert names == ({"open", "shared"} if both else {"open"}), role
        city.append(shared_sector, [(made["personal"], START + SECOND, 2.0)])
        for role, live in everyone.items():
            assert live.silent(0.1), role


def test_a_shared_sector_needs_a_token(served: Served, shared_sector: str, until: Until) -> None:
    for role, status in ((None, 401), (Role.GATEWAY, 403), (Role.OPERATOR, 200)):
        with stream(served, f"?sector={shared_sector}", role) as live:
            assert live.status == status
    with stream(served) as live:  # every sector that is read by class: nothing of it arrives
        assert live.status == 200


def test_a_break_loses_nothing(served: Served, city: City, vessel: int, until: Until) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        city.append("ports", [(vessel, START, 0.0)])
        assert live.observations() == [("1001", "heading", 0.0)]
        held = live.last_id
    until(joined(served, 0))
    for i in range(1, 4):
        city.append("ports", [(vessel, START + i * SECOND, float(i))])
    with stream(served, "?sector=ports", last_id=held) as live:
        results = [r for _, _, r in live.observations()]
        assert results == [1.0, 2.0, 3.0]
        until(lambda: live.last_id == "ports:4")
        city.append("ports", [(vessel, START + 9 * SECOND, 9.0)])
        assert live.observations() == [("1001", "heading", 9.0)]
        assert live.silent()


def test_a_client_cut_off_before_its_first_event_resumes(
    served: Served, city: City, vessel: int, until: Until
) -> None:
    city.append("ports", [(vessel, START, 0.0)])
    with stream(served, "?sector=ports,signals") as live:
        until(lambda: live.last_id == "ports:1,signals:0")
    city.append("ports", [(vessel, START + SECOND, 1.0)])
    with stream(served, "?sector=ports,signals", last_id="ports:1,signals:0") as live:
        assert live.observations() == [("1001", "heading", 1.0)]
        assert live.silent()


@pytest.mark.parametrize("held", ["nonsense", "ports:99", "ports:-1", "1", ":", "ports:1,,"])
def test_an_unknown_cursor_starts_afresh(
    served: Served, city: City, vessel: int, until: Until, held: str
) -> None:
    city.append("ports", [(vessel, START, 0.0)])
    until(lambda: served.app.state.hub._position.get("ports") == 1)
    with stream(served, "?sector=ports", last_id=held) as live:
        event = live.next()
        assert (event.name, event.data, event.id) == ("reset", {}, "ports:1")
        city.append("ports", [(vessel, START + SECOND, 1.0)])
        assert live.observations() == [("1001", "heading", 1.0)]


def bulk(city: City, sector: str, datastream: int, rows: int) -> None:
    """One append of many rows."""
    with city.connection.transaction():
        city.connection.execute("SELECT ensure_partition(%s)", (START,))
        append = city.one(
            """INSERT INTO sector_log VALUES (%s, 1) ON CONFLICT (sector)
               DO UPDATE SET append_id = sector_log.append_id + 1 RETURNING append_id""", sector,
        )  # fmt: skip
        city.connection.execute(
            """INSERT INTO observation SELECT %s + i * interval '1 s', i, %s, %s, 0
               FROM generate_series(1, %s) AS i""", (START, append, datastream, rows),
        )  # fmt: skip
        city.connection.execute(
            "INSERT INTO append (sector, id, rows, time_min, time_max) VALUES (%s,%s,%s,%s,%s)",
            (sector, append, rows, START, START + rows * SECOND),
        )
        city.connection.execute(
            "SELECT pg_notify('chimata_live', %s)", (json.dumps([sector, append, rows]),)
        )


def test_too_much_to_resume_is_a_reset(
    served: Served, city: City, vessel: int, until: Until
) -> None:
    city.append("ports", [(vessel, START, 0.0)])
    bulk(city, "ports", vessel, 10_001)
    until(lambda: served.app.state.hub._position.get("ports") == 2)
    with stream(served, "?sector=ports", last_id="ports:1") as live:
        event = live.next()
        assert (event.name, event.id) == ("reset", "ports:2")
    with stream(served, "?sector=ports", last_id="ports:0") as live:
        assert live.next().name == "reset"


def test_a_large_append_comes_in_parts_with_one_id(
    served: Served, city: City, vessel: int, until: Until
) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        bulk(city, "ports", vessel, 2_500)
        events = [live.next() for _ in range(3)]
        assert [len(e.data["observations"]) for e in events] == [1000, 1000, 500]
        assert [e.id for e in events] == [None, None, "ports:1"]


def test_bulk_appends_are_refreshes_at_most_one_a_second(
    served: Served, city: City, vessel: int, until: Until
) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        begin = time.monotonic()
        for _ in range(4):
            bulk(city, "ports", vessel, 20_001)
        events = [live.next() for _ in range(2)]
        assert time.monotonic() - begin >= 0.9
        assert {event.name for event in events} == {"reset"}
        assert live.silent(1.5)
        city.append("ports", [(vessel, START, 7.0)])
        assert live.observations() == [("1001", "heading", 7.0)]


def test_a_slow_client_starts_afresh() -> None:
    subscriber = Subscriber(ANONYMOUS, ("ports", "signals"), None, {"ports": 0, "signals": 0})
    subscriber.push({"signals": 3}, b"{}")
    for i in range(QUEUE_EVENTS_MAX):
        subscriber.push({"ports": i + 1}, b"{}")
    assert subscriber.take() == (
        f"id: ports:{QUEUE_EVENTS_MAX},signals:3\nevent: reset\ndata: {{}}\n\n".encode()
    )
    subscriber.push({"ports": 999}, b"x" * 9_000_000)
    assert b"event: reset" in subscriber.take()
    assert subscriber.waiting_bytes == 0


def test_subscribers_are_bounded(database_url: str, tmp_path: Path, until: Until) -> None:
    settings = Settings(database_url=database_url, data=tmp_path, sse_clients_max=2)
    with serving(settings) as served, stream(served) as first, stream(served) as second:
        until(joined(served, 2))
        assert (first.status, second.status) == (200, 200)
        with stream(served) as third:
            assert third.status == 503
            assert third.headers["retry-after"]


def test_a_lost_connection_is_made_again(
    served: Served, city: City, vessel: int, until: Until
) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        killed = city.one(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'chimata live' AND datname = current_database()"
        )
        assert killed == 1
        city.append("ports", [(vessel, START, 1.0)])  # nobody listens now
        assert live.observations() == [("1001", "heading", 1.0)]


def test_a_stream_ends_with_its_token(served: Served, until: Until) -> None:
    hub = served.app.state.hub
    with stream(served, "", Role.OPERATOR) as live:
        until(joined(served, 1))
        (subscriber,) = hub._subscribers
        object.__setattr__(subscriber.principal, "expires_at", int(time.time()) - 1)
        subscriber.ready.set()
        assert live.closed.wait(WAIT_SECONDS)


def test_streams_end_when_the_server_does(database_url: str, tmp_path: Path) -> None:
    """SIGTERM: open streams end by themselves, and so does the process, without a timeout."""
    program = (
        "import sys, uvicorn; from pathlib import Path; from api.app import create_app;"
        "from core.settings import Settings;"
        "settings = Settings(database_url=sys.argv[1], data=Path(sys.argv[2]));"
        "uvicorn.run(create_app(settings), port=0, log_level='info')"
    )
    command = [sys.executable, "-c", program, database_url, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = next(
            line.split("running on ")[1].split()[0] for line in process.stderr if "running" in line
        )
        with httpx.stream("GET", url + "/v1/live", timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            begin = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            list(lines)
        process.wait(timeout=20)
        assert time.monotonic() - begin < 5
        assert process.returncode in {0, -signal.SIGTERM}


@pytest.mark.parametrize("cursor", [{}, {"ports": 0}, {"signals": 12, "a-b_c": 2**50}])
def test_cursors_round_trip(cursor: dict[str, int]) -> None:
    assert parse_cursor(format_cursor(cursor)) == (cursor or None)


def test_a_foreign_notice_is_ignored(served: Served, city: City, vessel: int, until: Until) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        for payload in (
            "",
            "x",
            "[]",
            '["ports"]',
            '{"a":1}',
            '["ports","x",1]',
            '["nowhere",5,1]',
        ):
            city.connection.execute("SELECT pg_notify('chimata_live', %s)", (payload,))
        city.append("ports", [(vessel, START, 1.0)])
        assert live.observations() == [("1001", "heading", 1.0)]


def test_listening_waits_for_the_database() -> None:
    """Without a database the listener keeps trying, and can be cancelled at any time."""
    from core.live import listen

    async def attempt() -> None:
        async for _ in listen("postgresql://x@127.0.0.1:9/none?connect_timeout=1"):
            pytest.fail("there is no database")

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(attempt(), 1.0)

    asyncio.run(run())


def test_a_rolled_back_append_is_not_announced(
    served: Served, city: City, vessel: int, until: Until
) -> None:
    with stream(served, "?sector=ports") as live:
        until(joined(served, 1))
        with pytest.raises(psycopg.errors.DivisionByZero), city.connection.transaction():
            city.append("ports", [(vessel, START, 1.0)])
            city.connection.execute("SELECT 1/0")
        assert live.silent()
        city.append("ports", [(vessel, START, 2.0)])
        assert live.observations() == [("1001", "heading", 2.0)]
