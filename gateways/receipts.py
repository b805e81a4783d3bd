"""Receipts: what the platform has committed, or will never take; the same on every way in."""

from dataclasses import dataclass
from typing import Any

import orjson

RECEIPT_BYTES_MAX = 1 << 20
RESULTS = frozenset({"stored", "duplicate", "refused"})


class BadReceipt(ValueError):
    """What came is no receipt of ours."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one batch; the counts are observations, and 0 in a refused one."""

    seq: int
    result: str
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    reason: str | None = None
    detail: str | None = None

    @property
    def refused(self) -> bool:
        """The whole batch was not taken, and sending it again would not help."""
        return self.result == "refused"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Committed ranges of sequences (first, last: both included) and results of one boot."""

    gateway: str
    boot: str
    stored: tuple[tuple[int, int], ...] = ()
    batches: tuple[BatchResult, ...] = ()


def parse(payload: bytes) -> Receipt:
    """A receipt from its JSON; BadReceipt names the fault: nothing may be deleted on such a one."""
    if len(payload) > RECEIPT_BYTES_MAX:
        raise BadReceipt(f"a receipt of {len(payload)} bytes is over the limit")
    document = orjson.loads(payload)
    if not isinstance(document, dict):
        raise BadReceipt("a receipt is a JSON object")
    gateway, boot = document.get("gateway"), document.get("boot")
    if not isinstance(gateway, str) or not isinstance(boot, str):
        raise BadReceipt("a receipt names its gateway and boot")
    return Receipt(
        gateway,
        boot,
        tuple(_range(entry) for entry in document.get("stored") or ()),
        tuple(_result(entry) for entry in document.get("batches") or ()),
    )


def _range(entry: Any) -> tuple[int, int]:
    match entry:
        case [int(first), int(last)] if 0 <= first <= last:
            return first, last
    raise BadReceipt(f"stored: {entry!r} is not a range of sequences")


def _result(entry: Any) -> BatchResult:
    match entry:
        case {"seq": int(seq), "result": str(result)} if result in RESULTS:
            received, stored, duplicate, rejected = (
                int(entry.get(name) or 0)
                for name in ("received", "stored", "duplicate", "rejected")
            )
            reason, detail = entry.get("reason"), entry.get("detail")
            return BatchResult(seq, result, received, stored, duplicate, rejected, reason, detail)
    raise BadReceipt(f"batches: {entry!r} is not a batch's result")
