"""Receipts: what a gateway hears after the commit, the same over MQTT, Kafka and HTTP."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from core.storage.message import Outcome
from ingest.pipeline import Settled

BATCHES_A_RECEIPT_MAX = 1_000


def receipts(settled: Settled) -> Iterator[tuple[str, bytes]]:
    """One (gateway, JSON) for each gateway and boot among identified batches, bounded in size."""
    by_boot: dict[tuple[str, str], list[tuple[int, Outcome]]] = defaultdict(list)
    for raw, outcome in settled:
        # A batch whose very sender is in doubt gets no receipt: it would drop another's batch.
        if raw.boot is None or raw.seq is None or raw.refuse or outcome.reason == "bad-identity":
            continue
        by_boot[raw.gateway, raw.boot].append((int(raw.seq), outcome))
    for (gateway, boot), batches in by_boot.items():
        for start in range(0, len(batches), BATCHES_A_RECEIPT_MAX):
            part = batches[start : start + BATCHES_A_RECEIPT_MAX]
            yield gateway, orjson.dumps(receipt(gateway, boot, part))


def receipt(
    gateway: str, boot: str | None, batches: Sequence[tuple[int, Outcome]]
) -> dict[str, Any]:
    """The receipt as a JSON object: ranges of stored sequences, and the result of each batch."""
    stored = (seq for seq, outcome in batches if outcome.result != "refused")
    return {
        "gateway": gateway,
        "boot": boot,
        "stored": ranges(stored),
        "batches": [{"seq": seq, **as_json(outcome)} for seq, outcome in batches],
    }


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One batch's result."""
    counts = outcome.counts
    return {
        "result": outcome.result,
        "received": counts.received,
        "stored": counts.stored,
        "duplicate": counts.duplicate,
        "rejected": counts.rejected,
        "reason": outcome.reason,
        "detail": outcome.detail,
    }


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Sorted numbers as closed ranges: 1, 2, 3, 5 -> [[1, 3], [5, 5]]."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
