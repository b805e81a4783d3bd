"""Receipts: one JSON for all channels, sequences as ranges, none where the sender is in doubt."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from core.storage.ledger import Counts
from core.storage.message import Outcome
from ingest.pipeline import Raw
from ingest.receipts import BATCHES_A_RECEIPT_MAX, ranges, receipts

STORED = Outcome("stored", Counts(1, 0, 2, 2, 0, 0))
REFUSED = Outcome("refused", Counts(1, 0, 1, 0, 0, 1), "invalid-json", "not JSON")
DUPLICATE = Outcome("duplicate", Counts(1, 0, 2, 0, 2, 0))


def raw(seq: str | None, boot: str | None = "b", gateway: str = "g", refuse: bool = False) -> Raw:
    fault = ("bad-signature", "no") if refuse else None
    return Raw("mqtt", "farms", gateway, "json", b"", boot, seq, refuse=fault)


def test_the_contract_json() -> None:
    settled = [(raw("4"), DUPLICATE), (raw("5"), REFUSED), (raw("3"), STORED)]
    ((gateway, payload),) = receipts(settled)
    assert gateway == "g"
    assert json.loads(payload) == {
        "gateway": "g",
        "boot": "b",
        "stored": [[3, 4]],
        "batches": [
            {
                "seq": 4,
                "result": "duplicate",
                "received": 2,
                "stored": 0,
                "duplicate": 2,
                "rejected": 0,
                "reason": None,
                "detail": None,
            },
            {
                "seq": 5,
                "result": "refused",
                "received": 1,
                "stored": 0,
                "duplicate": 0,
                "rejected": 1,
                "reason": "invalid-json",
                "detail": "not JSON",
            },
            {
                "seq": 3,
                "result": "stored",
                "received": 2,
                "stored": 2,
                "duplicate": 0,
                "rejected": 0,
                "reason": None,
                "detail": None,
            },
        ],
    }


def test_one_for_each_gateway_and_boot() -> None:
    settled = [
        (raw("1"), STORED),
        (raw("1", gateway="h"), STORED),
        (raw("1", boot="c"), STORED),
        (raw("2"), STORED),
    ]
    found = [(gateway, json.loads(payload)) for gateway, payload in receipts(settled)]
    assert [(gateway, r["boot"], r["stored"]) for gateway, r in found] == [
        ("g", "b", [[1, 2]]),
        ("h", "b", [[1, 1]]),
        ("g", "c", [[1, 1]]),
    ]


def test_none_where_the_sender_or_the_batch_is_in_doubt() -> None:
    doubtful = Outcome("refused", Counts(), "bad-identity", "seq: no")
    settled = [
        (raw(None, None), STORED),
        (raw("1", None), doubtful),
        (raw("x"), doubtful),
        (raw("1", refuse=True), REFUSED),
    ]
    assert list(receipts(settled)) == []


def test_a_receipt_is_bounded() -> None:
    count = 2 * BATCHES_A_RECEIPT_MAX + 1
    found = [json.loads(p) for _, p in receipts([(raw(str(n)), STORED) for n in range(count)])]
    assert [len(r["batches"]) for r in found] == [BATCHES_A_RECEIPT_MAX] * 2 + [1]
    assert [pair for r in found for pair in r["stored"]][-1] == [count - 1, count - 1]


@given(st.lists(st.integers(0, 60)))
def test_ranges_hold_exactly_the_numbers(numbers: list[int]) -> None:
    found = ranges(numbers)
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(set(numbers))
    # Ranges that touch would be one.
    assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(found))
