"""The outbox: never loses a batch, never deletes one without its receipt, survives kill -9."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.errors import CityError
from gateways.batches import Batch
from gateways.delivery import Delivery, Window
from gateways.outbox import Outbox
from gateways.receipts import BadReceipt, BatchResult, Receipt, parse

BOOTS = ("r0", "r1")
SEQS = st.integers(0, 15)


def batch(boot: str, seq: int, size: int = 10) -> Batch:
    return Batch("edge", "csv", boot, seq, bytes([seq % 256]) * size, messages=seq % 3 + 1)


class OutboxMachine(RuleBasedStateMachine):
    """The outbox against a plain model: what was appended, less what a receipt named."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "o.sqlite"
        self.outbox = Outbox(self.path, bytes_max=200)
        self.waiting: dict[tuple[str, int], Batch] = {}
        self.refused: list[tuple[str, int]] = []

    @rule(boot=st.sampled_from(BOOTS), seqs=st.lists(SEQS, max_size=6), size=st.integers(1, 60))
    def append(self, boot: str, seqs: list[int], size: int) -> None:
        batches = [batch(boot, seq, size) for seq in seqs]
        held = sum(len(each.payload) for each in self.waiting.values())
        if self.waiting and held + size * len(batches) > 200:
            with pytest.raises(CityError, match="full"):
                self.outbox.append(batches)
            return
        self.outbox.append(batches)
        for each in batches:
            self.waiting.setdefault((boot, each.seq), each)

    @rule(boot=st.sampled_from(BOOTS), first=SEQS, length=st.integers(0, 5))
    def range_receipt(self, boot: str, first: int, length: int) -> None:
        settled = self.outbox.settle([Receipt("g", boot, stored=((first, first + length),))])
        named = [(boot, seq) for seq in range(first, first + length + 1)]
        expected = [key for key in named if self.waiting.pop(key, None)]
        assert sorted((done.boot, done.result.seq) for done in settled) == sorted(expected)

    @rule(
        boot=st.sampled_from(BOOTS),
        seq=SEQS,
        result=st.sampled_from(("stored", "duplicate", "refused")),
    )
    def batch_receipt(self, boot: str, seq: int, result: str) -> None:
        answer = BatchResult(seq, result, reason="batch-conflict")
        settled = self.outbox.settle([Receipt("g", boot, batches=(answer,))])
        known = self.waiting.pop((boot, seq), None)
        assert len(settled) == (known is not None)
        if known and result == "refused":
            self.refused.append((boot, seq))

    @rule()
    def restart(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.path, bytes_max=200)

    @precondition(lambda self: self.waiting)
    @rule()
    def a_second_process_is_kept_out(self) -> None:
        with pytest.raises(CityError, match="another process"):
            Outbox(self.path)

    @invariant()
    def holds_what_has_no_receipt(self) -> None:
        held = self.outbox.after(0, 1_000)
        assert {(w.batch.boot, w.batch.seq): w.batch for w in held} == self.waiting
        assert [w.id for w in held] == sorted(w.id for w in held)
        assert self.outbox.batches == len(self.waiting)
        assert self.outbox.bytes == sum(len(b.payload) for b in self.waiting.values())
        refused = [(r.batch.boot, r.batch.seq) for r in self.outbox.refused()]
        assert refused == self.refused

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


class UnreliableSender:
    """Drops, delays and repeats as hypothesis says; keeps what the platform commits."""

    def __init__(self) -> None:
        self.connection = 1
        self.trouble: str | None = None
        self.lose = False
        self.committed: dict[tuple[str, int], bytes] = {}
        self.pending: list[Receipt] = []

    def send(self, sent: Batch) -> bool:
        if not self.connection:
            return False
        if not self.lose:
            self.committed[sent.boot, sent.seq] = sent.payload
            self.pending.append(Receipt("g", sent.boot, stored=((sent.seq, sent.seq),)))
        return True

    def receipts(self, wait_seconds: float) -> list[Receipt]:
        taken, self.pending = self.pending, []
        return taken if self.connection else []

    def close(self) -> None:
        self.connection = 0


class DeliveryMachine(RuleBasedStateMachine):
    """Whatever is lost on the way, what leaves the outbox is committed, and all gets there."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = UnreliableSender()
        self.outbox = Outbox(None)
        window = Window(batches_max=4, bytes_max=100, receipt_seconds=0.0)
        self.delivery = Delivery(self.outbox, self.sender, window)
        self.appended: dict[tuple[str, int], bytes] = {}
        self.connections = 1

    @rule(count=st.integers(1, 8))
    def append(self, count: int) -> None:
        begin = len(self.appended)
        batches = [batch("r0", seq) for seq in range(begin, begin + count)]
        self.outbox.append(batches)
        self.appended |= {("r0", each.seq): each.payload for each in batches}

    @rule(lose=st.booleans())
    def network(self, lose: bool) -> None:
        self.sender.lose = lose

    @rule()
    def disconnect(self) -> None:
        self.sender.connection = 0
        self.sender.pending.clear()

    @rule()
    def reconnect(self) -> None:
        self.connections += 1
        self.sender.connection = self.connections

    @rule()
    def step(self) -> None:
        self.delivery.step()

    @invariant()
    def nothing_is_lost(self) -> None:
        held = {(w.batch.boot, w.batch.seq) for w in self.outbox.after(0, 10_000)}
        gone = self.appended.keys() - held
        assert all(self.sender.committed[key] == self.appended[key] for key in gone)

    def teardown(self) -> None:
        self.sender.lose = False
        self.reconnect()
        for _ in range(2 * len(self.appended) + 2):
            self.delivery.step()
        assert self.outbox.batches == 0
        assert self.sender.committed == self.appended
        self.outbox.close()


TestDeliveryMachine = DeliveryMachine.TestCase
TestDeliveryMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


CHILD = """
import sys
from pathlib import Path
from gateways.batches import Batch
from gateways.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
for first in range(0, 10**9, 8):
    seqs = range(first, first + 8)
    outbox.append([Batch("edge", "csv", "r", seq, b"%d" % seq * 500, 1) for seq in seqs])
    print(first + 7, flush=True)
"""


def test_what_was_appended_survives_kill_9(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "o.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, path],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout is not None
    promised = -1
    deadline = time.monotonic() + 20
    while promised < 400 and time.monotonic() < deadline:
        promised = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    rest = child.stdout.read().splitlines()
    child.wait()
    promised = int(rest[-1]) if rest else promised
    outbox = Outbox(path)
    held = [waiting.batch for waiting in outbox.after(0, 10**6)]
    assert [each.seq for each in held[: promised + 1]] == list(range(promised + 1))
    assert all(each.payload == b"%d" % each.seq * 500 for each in held)
    assert len(held) % 8 == 0  # a commit is whole or absent
    outbox.close()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"gateway":"g"}',
        b'{"gateway":"g","boot":"r","stored":[[2,1]]}',
        b'{"gateway":"g","boot":"r","stored":[[-1,1]]}',
        b'{"gateway":"g","boot":"r","batches":[{"seq":1,"result":"lost"}]}',
        b'{"gateway":"g","boot":"r","batches":[{"seq":"1","result":"stored"}]}',
    ],
)
def test_nothing_is_read_into_a_malformed_receipt(payload: bytes) -> None:
    with pytest.raises((BadReceipt, ValueError)):
        parse(payload)


class Answers:
    """A way to the platform whose receipts the test writes."""

    def __init__(self) -> None:
        self.connection = 1
        self.trouble: str | None = None
        self.answers: list[Receipt] = []

    def send(self, batch: Batch) -> bool:
        self.answers.append(Receipt("g", batch.boot, stored=((batch.seq, batch.seq),)))
        return True

    def receipts(self, wait_seconds: float) -> list[Receipt]:
        answers, self.answers = self.answers, []
        return answers

    def close(self) -> None:
        """Nothing is open."""


def test_a_full_disk_is_told_and_takes_no_half(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.append([batch("r0", seq) for seq in range(4)])
    # SQLite says the same as when the file system has no page left.
    outbox._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(CityError, match="cannot be written: database or disk is full"):
        outbox.append([batch("r0", seq, 100_000) for seq in range(4, 8)])
    outbox._database.execute("PRAGMA max_page_count = 1000000")
    assert (outbox.batches, len(outbox.after(0, 10))) == (4, 4)
    assert outbox.append([batch("r0", seq) for seq in range(4, 8)]) == 4


def test_receipts_are_kept_while_the_outbox_cannot_be_written(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.append([batch("r0", seq) for seq in range(4)])
    outbox._database.execute("PRAGMA busy_timeout = 0")
    delivery = Delivery(outbox, Answers())
    with closing(sqlite3.connect(outbox.path or "", isolation_level=None)) as another:
        another.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(CityError, match="cannot be written: database is locked"):
                delivery.step()
        another.execute("ROLLBACK")
    assert len(delivery.step()) == 4
    assert (outbox.batches, delivery.sent) == (0, 4)
