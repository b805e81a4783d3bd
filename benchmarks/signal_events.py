"""12,500 signal changes a second, decoded at the edge: from publishing to where they are seen.

So many are all connected signals of today. Ten gateways send what changed in their tenth of a
second as one batch over the embedded broker; everything of `chimata up` runs on the same machine.
Seen is: a live stream of all of them (every change of it is timed), and GET of single Things (a
change twice a second, asked for until it is there).
"""

import http.client
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import psutil
import psycopg

from benchmarks import stack
from benchmarks.arrow_ingest import over_mqtt
from benchmarks.result import Goal, Result
from core.clock import now_us, parse_iso, to_iso
from core.tokens import Role, issue, load_keys
from domains.signals.wire import PHASE_STATES

CHANGES_A_SECOND = 12_500
SIGNALS = 50_000
GATEWAYS = 10
INTERVAL_SECONDS = 0.1
SECONDS = 600.0
WARM_UP_SECONDS = 8.0
PROBE_SECONDS = 0.5
POLL_SECONDS = 0.01
SETTLE_SECONDS_MAX = 30.0
LATE_MS_MAX = 120_000
GOAL = Goal("value", maximum=1_000)
STATES = [state for state in PHASE_STATES if state != "unavailable"][:4]

Milliseconds = Counter[int]
_spawned = multiprocessing.get_context("spawn")


def listen(url: str, since_us: int, done: "Queue[Milliseconds | None]") -> None:
    """A process: read the live stream to its end, and count the delays of what was sent since."""
    delays: Milliseconds = Counter()
    moments: dict[str, int] = {}
    done.put(None)
    try:
        with httpx.stream("GET", f"{url}/v1/live?sector=signals", timeout=5.0) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                now = now_us()
                if len(moments) > 10_000:
                    moments.clear()
                for each in orjson.loads(line[6:]).get("observations", ()):
                    text = each["phenomenon_time"]
                    moment = moments.get(text) or moments.setdefault(text, parse_iso(text))
                    if moment >= since_us:
                        delays[min((now - moment) // 1000, LATE_MS_MAX)] += 1
    except httpx.ReadTimeout:
        pass  # five seconds without a change: it is over
    done.put(delays)


def send(url: str, tokens: list[str], rate: int, signals: int, ticks: int) -> None:
    """A process: what every gateway's signals changed to, at its moment of each interval."""
    gateways = [stack.Gateway(url, each, f"edge{n}") for n, each in enumerate(tokens)]
    changes = round(rate * INTERVAL_SECONDS / len(gateways))
    share = signals // len(gateways)
    began = time.perf_counter()
    for tick in range(ticks):
        for number, gateway in enumerate(gateways):
            due = began + (tick + number / len(gateways)) * INTERVAL_SECONDS
            time.sleep(max(0.0, due - time.perf_counter()))
            first = tick * changes
            moment = to_iso(now_us())
            batch = [
                {
                    "thing": f"crossing-{number * share + index % share:06d}",
                    "property": "signal-state/1",
                    "phenomenon_time": moment,
                    "result": STATES[index // share % len(STATES)],
                }
                for index in range(first, first + changes)
            ]
            gateway.publish("signals", "json", "events", tick, orjson.dumps(batch))
    settle(gateways, ticks)


def settle(gateways: list[stack.Gateway], batches: int) -> None:
    """Wait until every batch has a receipt."""
    for gateway in gateways:
        stored: set[int] = set()
        while len(stored) < batches:
            for first, last in gateway.receipts.get(timeout=SETTLE_SECONDS_MAX)["stored"]:
                stored.update(range(first, last + 1))
        gateway.close()


def probe(url: str, gateway: stack.Gateway, seconds: float, warm_up: float) -> Milliseconds:
    """Change one signal after the other; how long GET of it still gives what was before."""
    delays: Milliseconds = Counter()
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    began = time.perf_counter()
    number = 0
    while time.perf_counter() - began < seconds:
        thing, moment = f"probe-{number % 20:06d}", now_us()
        body = {
            "thing": thing, "property": "signal-state/1", "phenomenon_time": to_iso(moment),
            "result": STATES[number % len(STATES)],
        }  # fmt: skip
        gateway.publish("signals", "json", "probe", number, orjson.dumps(body))
        while now_us() - moment < LATE_MS_MAX * 1000:
            if _seen(connection, thing) >= moment:
                break
            time.sleep(POLL_SECONDS)
        if time.perf_counter() - began > warm_up:
            delays[(now_us() - moment) // 1000] += 1
        number += 1
        time.sleep(max(0.0, began + number * PROBE_SECONDS - time.perf_counter()))
    connection.close()
    return delays


def _seen(connection: http.client.HTTPConnection, thing: str) -> int:
    """The time of the newest state that the API gives, in µs; 0 without one."""
    connection.request("GET", f"/v1/signals/things/{thing}")
    answer = connection.getresponse()
    body: dict[str, Any] = orjson.loads(answer.read())
    latest = [each["latest"] for each in body.get("datastreams", ()) if each["latest"]]
    return max((parse_iso(each["phenomenon_time"]) for each in latest), default=0)


def quantile(delays: Milliseconds, part: float) -> int:
    """The delay in ms that this part of all did not exceed."""
    left = part * delays.total()
    for delay, count in sorted(delays.items()):
        left -= count
        if left <= 0:
            return delay
    raise ValueError("nothing was seen")


def measure(label: str, database: stack.Database, scale: float) -> Iterator[Result]:
    """The whole stack under the load; the delays of the changes after the warm-up."""
    share = min(1.0, 10 * scale)
    warm_up = WARM_UP_SECONDS * max(0.25, share)
    seconds, rate = max(4.0, SECONDS * scale) + warm_up, round(CHANGES_A_SECOND * share)
    ticks = round(seconds / INTERVAL_SECONDS)
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as text:
        folder = Path(text)
        with database(folder) as url, over_mqtt(url, folder) as broker:
            keys = load_keys(folder / "keys")
            tokens = [issue(keys, Role.GATEWAY, gateway=f"edge{n}") for n in range(GATEWAYS)]
            prober = stack.Gateway(broker, issue(keys, Role.GATEWAY, gateway="probe"), "probe")
            environment = {"CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": str(folder)}
            with stack.serving(environment, folder / "api.log") as api:
                since = now_us() + round((warm_up + 1) * 1e6)
                done: Queue[Milliseconds | None] = _spawned.Queue()
                listener = _spawned.Process(target=listen, args=(api, since, done), daemon=True)
                signals = round(SIGNALS * share)
                arguments = (broker, tokens, rate, signals, ticks)
                sender = _spawned.Process(target=send, args=arguments, daemon=True)
                listener.start()
                done.get(timeout=SETTLE_SECONDS_MAX)
                time.sleep(0.5)
                sender.start()
                spent = psutil.cpu_times()
                probed = probe(api, prober, seconds, warm_up)
                sender.join(SETTLE_SECONDS_MAX)
                if sender.exitcode != 0:
                    raise RuntimeError("not every batch of changes has a receipt")
                busy = psutil.cpu_times()
                streamed = done.get(timeout=SETTLE_SECONDS_MAX) or Counter()
            prober.close()
            stored = _stored(url)
    expected = ticks * GATEWAYS * round(rate * INTERVAL_SECONDS / GATEWAYS)
    if stored < expected:
        raise RuntimeError(f"{stored} of {expected} changes are stored")
    cores = (busy.user + busy.system - spent.user - spent.system) / seconds
    note = (
        f"{rate} changes a second of {signals} signals by {GATEWAYS} gateways for {seconds:.0f} s, "
        f"the first {warm_up:.0f} s not counted; {cores:.2f} cores busy"
    )
    for way, delays in (("stream", streamed), ("get", probed)):
        spread = (min(delays), max(delays))
        told = f"{delays.total()} changes seen; {note}"
        for part, goal in ((0.5, None), (0.99, GOAL)):
            name = f"signal_{way}_p{part * 100:.0f}_{label}"
            yield Result(name, quantile(delays, part), "ms", spread, goal=goal, note=told)


def _stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT sum(stored) FROM account").fetchone()
    return int(row[0]) if row else 0


def run(scale: float = 1.0) -> Iterator[Result]:
    """Ten minutes on each database."""
    for label, database in stack.databases().items():
        yield from measure(label, database, scale)
