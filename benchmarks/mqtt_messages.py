"""Single 100-byte MQTT QoS 1 messages a second until they are committed, everything on two cores.

Loose ones through Mosquitto into one ingestor and into two that share the subscription, and through
the embedded broker, whose own ceiling that is. And identified ones, each a batch of its own in the
ledger with its receipt, through a whole `chimata up`.
"""

import queue
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil
import psycopg

from benchmarks import stack
from benchmarks.arrow_ingest import over_mqtt
from benchmarks.mqtt_load import load
from benchmarks.result import Goal, Result, of_runs
from core.tokens import Role, issue, load_keys
from tests.gateways.mosquitto import Mosquitto
from tests.require import require

NEEDS = ("mosquitto",)
MESSAGES = 150_000
IDENTIFIED = 10_000
RUNS = 3
WARM_UP = 500
BYTES = 100
LINKS = 10
THINGS = 1_000
RUN_SECONDS_MAX = 180.0
POLL_SECONDS = 0.02
GOAL = Goal("value", minimum=15_000)
COUNT = "SELECT coalesce(sum(rows), 0) FROM append"

Way = Callable[[str, Path], AbstractContextManager[str]]


@contextmanager
def over_mosquitto(url: str, folder: Path, ingestors: int = 1) -> Iterator[str]:
    """Debian's Mosquitto and MQTT ingestors that share its messages; where to send to."""
    broker = Mosquitto(require("mosquitto"), folder)
    broker.start()
    load_keys(folder / "keys", create=True)
    environment = {
        "CHIMATA_DATABASE_URL": url,
        "CHIMATA_DATA": str(folder),
        "CHIMATA_MQTT_URL": broker.url,
    }
    try:
        with ExitStack() as started:
            for number in range(ingestors):
                name = {"CHIMATA_MQTT_CLIENT_ID": f"chimata-ingest-{number}"}
                log = folder / f"mqtt-{number}.log"
                started.enter_context(stack.ingestor("mqtt", {**environment, **name}, log))
            yield broker.url
    finally:
        broker.kill()


def two(url: str, folder: Path) -> AbstractContextManager[str]:
    """As over_mosquitto, with two ingestors."""
    return over_mosquitto(url, folder, 2)


def core_seconds() -> float:
    """Processor time of everything on this machine: load, broker, ingestors, database."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


def until_committed(url: str, rows: int, seconds_max: float = RUN_SECONDS_MAX) -> float:
    """Wait until so many rows are committed; the moment, by time.perf_counter."""
    deadline = time.perf_counter() + seconds_max
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            found = connection.execute(COUNT).fetchone()
            now = time.perf_counter()
            if found and found[0] >= rows:
                return now
            if now > deadline:
                raise TimeoutError(f"{found} of {rows} rows are committed")
            time.sleep(POLL_SECONDS)


def loose(name: str, database: stack.Database, way: Way, scale: float, goal: Goal | None) -> Result:
    """RUNS bursts of loose messages, none of which a second run repeats."""
    messages, runs = max(1_000, round(MESSAGES * scale)), max(1, round(RUNS * scale))
    rates, ratios, costs = [], [], []
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as text:
        folder = Path(text)
        with database(folder) as url, way(url, folder) as to:
            keys = load_keys(folder / "keys")
            signed = way is over_mqtt
            tokens = [
                issue(keys, Role.GATEWAY, gateway=f"bench{number}")
                for number in range(LINKS if signed else 0)
            ]
            done = 0
            for number in range(-1, runs):
                count = WARM_UP * 2 if number < 0 else messages
                with load(to, tokens, messages=count, links=LINKS, things=THINGS) as burst:
                    spent = core_seconds()
                    began = burst.begin()
                    done += count
                    seconds = until_committed(url, done) - began
                    spent = core_seconds() - spent
                    taken = burst.seconds()
                if number >= 0:
                    rates.append(count / seconds)
                    ratios.append(taken / seconds)
                    costs.append(spent / count * 1e6)
            _check(url, done)
    return of_runs(
        name,
        "messages/s",
        rates,
        ratio=median(ratios),
        ratio_to="the broker's own PUBACKs of the same messages",
        goal=goal,
        note=f"{runs} runs of {messages} messages of {BYTES} bytes, {LINKS} gateways, {THINGS} "
        f"Things; {median(costs):.0f} µs of core time a message, all processes together",
    )


def _check(url: str, messages: int) -> None:
    """Every message is a row of its own, and the account agrees."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT count(*) FROM observation").fetchone()
        told = connection.execute("SELECT sum(messages), sum(stored) FROM account").fetchone()
    if rows != (messages,) or told != (messages, messages):
        raise RuntimeError(f"{rows} rows of {messages} messages; the account has {told}")


def payload(number: int) -> bytes:
    """One heading of one of 100 vessels, padded to 100 bytes."""
    text = f'{{"thing":"{number % 100:09d}","property":"heading","result":{number % 360}}}'
    return text.ljust(BYTES).encode()


def send(gateway: stack.Gateway, boot: str, messages: int) -> tuple[float, float]:
    """Messages a second until the last PUBACK, and until the last receipt."""
    gateway.acknowledged = 0
    began = time.perf_counter()
    for seq in range(messages):
        gateway.publish("ports", "json", boot, seq, payload(seq))
    stored: set[int] = set()
    acknowledged_at = None
    while len(stored) < messages:
        if time.perf_counter() - began > RUN_SECONDS_MAX:
            raise TimeoutError(f"{len(stored)} of {messages} messages have a receipt")
        if acknowledged_at is None and gateway.acknowledged >= messages:
            acknowledged_at = time.perf_counter()
        try:
            receipt = gateway.receipts.get(timeout=0.01)
        except queue.Empty:
            continue
        if receipt["boot"] == boot:
            for first, last in receipt["stored"]:
                stored.update(range(first, last + 1))
    ended = time.perf_counter()
    return messages / ((acknowledged_at or ended) - began), messages / (ended - began)


def identified(scale: float) -> Result:
    """The embedded stack with everything on; each message is a batch of its own in the ledger."""
    messages, runs = max(100, round(IDENTIFIED * scale)), max(1, round(RUNS * scale))
    with stack.platform() as city:
        gateway = stack.Gateway.of(city)
        try:
            send(gateway, "warm-up", WARM_UP)
            pairs = [send(gateway, f"run-{number}", messages) for number in range(runs)]
        finally:
            gateway.close()
    return of_runs(
        "mqtt_messages",
        "messages/s",
        [durable for _, durable in pairs],
        ratio=median(durable / acknowledged for acknowledged, durable in pairs),
        ratio_to="the broker's own PUBACKs of the same messages",
        note=f"{runs} runs of {messages} messages, one gateway, {stack.INFLIGHT_MAX} in flight",
    )


def run(scale: float = 1.0) -> Iterator[Result]:
    """Loose messages on each database and through each broker; identified ones."""
    for label, database in stack.databases().items():
        yield loose(f"mqtt_loose_one_{label}", database, over_mosquitto, scale, GOAL)
        yield loose(f"mqtt_loose_two_{label}", database, two, scale, None)
    yield loose("mqtt_loose_embedded_broker", stack.embedded, over_mqtt, scale, None)
    yield identified(scale)
