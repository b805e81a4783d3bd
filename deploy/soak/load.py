"""What a soak sends: every batch and every row is a pure function of (seed, gateway, sequence).

So nothing has to be remembered to know what must be stored: a row that is found says by its Thing
and its time which row of which batch it is, and one byte a row suffices to count it.
"""

import json
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clock import to_iso
from core.formats import arrow
from gateways.batches import Batch

SECTOR = "edge"
PROPERTY = "throughput"
STREAMS = 200
"""Things of a gateway whose values come in order of time; as many again hear a jumping clock."""
LOOSE_STREAMS = 50
LOOSE_ROWS = 5
STEP_MS = 16
RESULT_MASK = 0xFFFF  # whole numbers within the property's plausible range
JSON_ROWS_MAX = 20
LOOSE_MALFORMED_EVERY = 64
FAR_FUTURE_US = 4_000_000_000_000_000  # the year 2096: no clock of a test is so wrong

OFFSETS_MS = (0, -86_399_999, -3_599_998, 3_600_003, 600_004, -1_000)
"""How wrong the gateway's clock is, by row of this table: right, a late day, daylight saving both
ways, ten minutes ahead, a leap second. All leave another remainder of STEP_MS, so no two rows of a
gateway ever have the same key unless they are meant to."""
_OFFSET_OF = np.full(STEP_MS, -1, np.int64)
_OFFSET_OF[[offset % STEP_MS for offset in OFFSETS_MS]] = range(len(OFFSETS_MS))


@dataclass(frozen=True, slots=True)
class Slot:
    """What the batches at one place of a block are."""

    kind: str = "plain"
    form: str = "arrow"
    target: int | None = None
    """The slot, some blocks ago, whose rows are sent again: corrected, or as they were."""


PLAIN = Slot()
SLOTS: tuple[Slot, ...] = (
    Slot("corrected"), Slot("repeated"), PLAIN, PLAIN,
    PLAIN, Slot("plain", "json"), PLAIN, Slot("late"),
    PLAIN, Slot("jump"), PLAIN, Slot("correction", target=0),
    PLAIN, Slot("repeat", target=1), Slot("malformed"), Slot("plain", "json"),
)  # fmt: skip
BLOCK = len(SLOTS)
"""Batches of a block go into the outbox at once, in an order of their own."""
MALFORMED = ("garbage", "truncated", "one-bad-item")


@dataclass(frozen=True, slots=True)
class Load:
    """One gateway's batches; `start_us` is where its times begin, a multiple of STEP_MS."""

    seed: int
    gateway: str
    start_us: int
    rows_a_batch: int = 500
    lag_blocks: int = 16
    """How many blocks later rows are corrected or sent again."""

    @property
    def boot(self) -> str:
        """One boot a run: a gateway that was killed goes on with its sequence."""
        return f"s{self.seed}"

    @property
    def _salt(self) -> int:
        return zlib.crc32(f"{self.seed} {self.gateway}".encode())

    # -- the batches ------------------------------------------------------------------------------

    def block(self, number: int) -> list[Batch]:
        """The batches of a block, not in the order of their sequences."""
        order = list(range(BLOCK))
        random.Random(f"{self.seed} {self.gateway} {number}").shuffle(order)  # noqa: S311 - a load
        return [self.batch(number * BLOCK + place) for place in order]

    def batch(self, seq: int) -> Batch:
        """Batch `seq` as it goes into the outbox."""
        slot = SLOTS[seq % BLOCK]
        source, version = self._source(seq)
        form = self._form(seq)
        payload = self._payload(seq, slot, self.rows_of(source), version, form)
        return Batch(SECTOR, form, self.boot, seq, payload, self.rows_a_batch)

    def _source(self, seq: int) -> tuple[int, int]:
        """Whose rows batch `seq` holds, and which version of their results."""
        target = SLOTS[seq % BLOCK].target
        block = seq // BLOCK - self.lag_blocks
        if target is None or block < 0:
            return seq, 0
        return block * BLOCK + target, int(SLOTS[seq % BLOCK].kind == "correction")

    def _form(self, seq: int) -> str:
        slot = SLOTS[seq % BLOCK]
        if slot.kind == "malformed":
            return "json" if self.malformed(seq) == "one-bad-item" else "arrow"
        return slot.form

    def malformed(self, seq: int) -> str:
        """Of a malformed batch: what is wrong with it."""
        return MALFORMED[seq // BLOCK % len(MALFORMED)]

    def rows_of(self, seq: int) -> NDArray[np.int64]:
        """Indices of the rows that batch `seq` is the first to hold, and that are to be stored."""
        slot = SLOTS[seq % BLOCK]
        first, count = seq * self.rows_a_batch, self.rows_a_batch
        if self._source(seq)[0] != seq:
            return np.zeros(0, np.int64)
        if slot.form == "json":
            count = min(count, JSON_ROWS_MAX)
        elif slot.kind == "malformed":
            count = min(count, JSON_ROWS_MAX) if self.malformed(seq) == "one-bad-item" else 0
        return np.arange(first, first + count, dtype=np.int64)

    def _payload(
        self, seq: int, slot: Slot, rows: NDArray[np.int64], version: int, form: str
    ) -> bytes:
        if slot.kind == "malformed" and form == "arrow":
            if self.malformed(seq) == "garbage":
                return f"no arrow, but batch {seq} of {self.gateway}".encode()
            whole = self._encoded(self._first_rows(seq), 0, "arrow")
            return whole[: len(whole) - 100]
        payload = self._encoded(rows, version, form)
        if slot.kind != "malformed":
            return payload
        bad = self._item(f"{self.gateway}-n0", FAR_FUTURE_US + seq, 1.0)
        return json.dumps([*json.loads(payload), bad]).encode()

    def _first_rows(self, seq: int) -> NDArray[np.int64]:
        return np.arange(JSON_ROWS_MAX, dtype=np.int64) + seq * self.rows_a_batch

    def _encoded(self, rows: NDArray[np.int64], version: int, form: str) -> bytes:
        things = [self.thing(*pair) for pair in zip(*self._streams(rows), strict=True)]
        times, results = self.times(rows), self.results(rows) + version
        if form == "arrow":
            return arrow.encode(things, [PROPERTY] * len(things), times, results)
        items = zip(things, times.tolist(), results.tolist(), strict=True)
        return json.dumps([self._item(*item) for item in items]).encode()

    def _item(self, thing: str, time_us: int, result: float) -> dict[str, Any]:
        return {"thing": thing, "property": PROPERTY, "phenomenon_time": to_iso(time_us),
                "result": result}  # fmt: skip

    # -- the rows ---------------------------------------------------------------------------------

    def thing(self, group: str, stream: int) -> str:
        """n: clock is right, j: it jumps, l: loose messages."""
        return f"{self.gateway}-{group}{stream}"

    def _streams(self, rows: NDArray[np.int64]) -> tuple[list[str], list[int]]:
        slots = rows // self.rows_a_batch % BLOCK
        jumping = np.array([slot.kind == "jump" for slot in SLOTS])[slots]
        return ["j" if jump else "n" for jump in jumping.tolist()], (rows % STREAMS).tolist()

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which row of OFFSETS_MS holds for each row."""
        seq = rows // self.rows_a_batch
        kinds = np.array([{"late": 1, "jump": 2}.get(slot.kind, 0) for slot in SLOTS])[seq % BLOCK]
        jump: NDArray[np.int64] = np.where(kinds == 2, 2 + seq // BLOCK % 4, kinds)  # noqa: PLR2004
        return jump

    def times(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Phenomenon times, µs since 1970."""
        offset_ms = np.array(OFFSETS_MS)[self.offsets(rows)]
        times: NDArray[np.int64] = self.start_us + (rows // STREAMS * STEP_MS + offset_ms) * 1000
        return times

    def results(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each row's first result is; a correction is one more."""
        return ((rows * 2_654_435_761 + self._salt) & RESULT_MASK).astype(np.float64)

    def find(self, streams: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that stand at these streams and times; -1 for none of ours."""
        elapsed = times - self.start_us
        offset = _OFFSET_OF[elapsed // 1000 % STEP_MS]
        ms = elapsed // 1000 - np.array(OFFSETS_MS)[np.maximum(offset, 0)]
        rows = ms // STEP_MS * STREAMS + streams
        fine = (offset >= 0) & (ms >= 0) & (elapsed % 1000 == 0)
        found: NDArray[np.int64] = np.where(fine & (self.offsets(rows) == offset), rows, -1)
        return found

    def corrected(self, rows: NDArray[np.int64], blocks: int) -> NDArray[np.bool_]:
        """Whether a correction of the row is among the first `blocks` blocks."""
        seq = rows // self.rows_a_batch
        target: NDArray[np.bool_] = (np.array([slot.kind == "corrected" for slot in SLOTS])[
            seq % BLOCK] & (seq // BLOCK + self.lag_blocks < blocks))  # fmt: skip
        return target

    # -- loose messages ---------------------------------------------------------------------------

    def loose(self, number: int) -> bytes:
        """Loose message `number`: a JSON array, or now and then no JSON at all."""
        if self.loose_is_malformed(number):
            return f"no json, but message {number} of {self.gateway}".encode()
        rows = np.arange(LOOSE_ROWS, dtype=np.int64) + number * LOOSE_ROWS
        items = zip(rows.tolist(), self.loose_times(rows).tolist(), self.results(rows).tolist(),
                    strict=True)  # fmt: skip
        return json.dumps(
            [self._item(self.thing("l", row % LOOSE_STREAMS), *rest) for row, *rest in items]
        ).encode()

    def loose_is_malformed(self, number: int) -> bool:
        """Whether message `number` belongs in the rejection store."""
        return number % LOOSE_MALFORMED_EVERY == LOOSE_MALFORMED_EVERY - 1

    def loose_times(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Phenomenon times of loose rows."""
        return self.start_us + rows // LOOSE_STREAMS * STEP_MS * 1000

    def find_loose(self, streams: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """As `find`, for loose rows."""
        elapsed = times - self.start_us
        fine = (elapsed >= 0) & (elapsed % (STEP_MS * 1000) == 0)
        found: NDArray[np.int64] = np.where(
            fine, elapsed // (STEP_MS * 1000) * LOOSE_STREAMS + streams, -1
        )
        return found


def rows_of_blocks(load: Load, blocks: int) -> NDArray[np.bool_]:
    """For every index of the first `blocks` blocks whether that row exists."""
    wanted = np.zeros(blocks * BLOCK * load.rows_a_batch, np.bool_)
    for seq in range(blocks * BLOCK):
        wanted[load.rows_of(seq)] = True
    return wanted


def corrections(load: Load, blocks: int) -> int:
    """Rows that the first `blocks` blocks correct."""
    return max(0, blocks - load.lag_blocks) * load.rows_a_batch


def malformed_sequences(load: Load, blocks: int) -> Sequence[int]:
    """Sequences of which something has to be in the rejection store."""
    place = next(i for i, slot in enumerate(SLOTS) if slot.kind == "malformed")
    del load
    return range(place, blocks * BLOCK, BLOCK)
