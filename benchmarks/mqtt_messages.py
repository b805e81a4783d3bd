"""Single 100-byte QoS 1 messages a second, from publish to the receipt that follows the commit."""

import queue
import time

from benchmarks import stack
from benchmarks.result import Result, of_runs

MESSAGES = 10_000
RUNS = 3
WARM_UP = 500
BYTES = 100
RUN_SECONDS_MAX = 180.0


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


def run(scale: float = 1.0) -> Result:
    """The embedded stack with everything on; each message is a batch of its own in the ledger."""
    messages, runs = max(100, round(MESSAGES * scale)), max(1, round(RUNS * scale))
    with stack.platform() as city:
        gateway = stack.Gateway(city)
        try:
            send(gateway, "warm-up", WARM_UP)
            pairs = [send(gateway, f"run-{number}", messages) for number in range(runs)]
        finally:
            gateway.close()
    ratios = sorted(durable / acknowledged for acknowledged, durable in pairs)
    return of_runs(
        "mqtt_messages",
        "messages/s",
        [durable for _, durable in pairs],
        ratio=ratios[len(ratios) // 2],
        ratio_to="the broker's own PUBACKs of the same messages",
        note=f"{runs} runs of {messages} messages, one gateway, {stack.INFLIGHT_MAX} in flight",
    )
