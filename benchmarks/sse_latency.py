"""Publish over MQTT to arrival at a live subscriber (SSE), in milliseconds."""

import json
import threading
import time
from statistics import quantiles

import httpx

from benchmarks import stack
from benchmarks.result import Result
from tests.platform import Platform

OBSERVATIONS = 400
WARM_UP = 40
INTERVAL_SECONDS = 0.05
WAIT_SECONDS_MAX = 20.0
THING = "431000001"


class Listener(threading.Thread):
    """Reads /v1/live and notes when each result first came; the result is the message's number."""

    def __init__(self, city: Platform, expected: int) -> None:
        super().__init__(daemon=True)
        self._expected = expected
        self._url = f"{city.url}/v1/live?sector=ports"
        self.connected = threading.Event()
        self.complete = threading.Event()
        self.seen: dict[int, float] = {}

    def run(self) -> None:
        """Until every observation came."""
        with httpx.stream("GET", self._url, timeout=None) as answer:
            answer.raise_for_status()
            self.connected.set()
            for line in answer.iter_lines():
                if line.startswith('data: {"sector"'):
                    now = time.perf_counter()
                    for each in json.loads(line[6:])["observations"]:
                        self.seen.setdefault(int(each["result"]), now)
                    if len(self.seen) >= self._expected:
                        self.complete.set()
                        return


def latencies(city: Platform, observations: int) -> list[float]:
    """Milliseconds of each observation after the warm-up."""
    listener = Listener(city, WARM_UP + observations)
    listener.start()
    if not listener.connected.wait(WAIT_SECONDS_MAX):
        raise TimeoutError("the live stream did not open")
    gateway = stack.Gateway.of(city)
    sent: dict[int, float] = {}
    try:
        for number in range(WARM_UP + observations):
            body = {"thing": THING, "property": "altitude", "result": number}
            sent[number] = time.perf_counter()
            gateway.publish("ports", "json", "latency", number, json.dumps(body).encode())
            time.sleep(INTERVAL_SECONDS)
        if not listener.complete.wait(WAIT_SECONDS_MAX):
            raise TimeoutError(f"{len(listener.seen)} of {len(sent)} observations came")
    finally:
        gateway.close()
    return [(listener.seen[n] - sent[n]) * 1000 for n in range(WARM_UP, WARM_UP + observations)]


def run(scale: float = 1.0) -> list[Result]:
    """20 observations a second through an otherwise idle embedded stack."""
    observations = max(20, round(OBSERVATIONS * scale))
    with stack.platform() as city:
        values = latencies(city, observations)
    cuts = quantiles(values, n=100)
    note = (
        f"{observations} observations, one every {INTERVAL_SECONDS * 1000:.0f} ms, one subscriber"
    )
    spread = (min(values), max(values))
    return [
        Result("sse_latency_p50", cuts[49], "ms", spread, note=note),
        Result("sse_latency_p99", cuts[98], "ms", spread, note=note),
    ]
