"""Loose messages decoded together: a small message alone costs more for its objects than its data.

Each message ends as it would have ended alone. One in which anything is at fault is left to be
decoded alone, so that it spoils none of its neighbours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.formats import Reader
from core.sector import Context, Sector
from core.sensorthings import Columns, Decoded, Heard, ObservationsBuilder, kinds_of
from ingest.check import check, latest_time, take
from ingest.clocks import Clocks
from ingest.raw import Run

KINDS = ("numbers", "categories", "positions", "documents")


Part = int | tuple[str, Decoded]
"""The index of a message that has to be decoded alone; or a gateway, and what several messages of
it held, of which nothing was rejected."""


class _Builder(ObservationsBuilder):
    """Hears by gateway, since a run has messages of many; and nothing of what is to come.

    One message's time in the future would else take the place of what another said now.
    """

    def __init__(self, received_at: int, future_seconds_max: float) -> None:
        super().__init__()
        self._latest = latest_time(received_at, future_seconds_max)
        self.gateway = ""
        self.by_gateway: dict[str, dict[str, int]] = {}

    def hear(self, thing: str, phenomenon_time: int) -> None:
        """Note that a Thing spoke at this time, to the message's gateway."""
        if not 0 <= phenomenon_time <= self._latest:
            return
        heard = self.by_gateway.setdefault(self.gateway, {})
        if heard.get(thing, phenomenon_time) <= phenomenon_time:
            heard[thing] = phenomenon_time


def decode(
    sector: Sector, run: Run, read: Reader, future_seconds_max: float, clocks: Clocks
) -> Iterator[Part]:
    """Decode and check a run; the parts are in an order that keeps each gateway's messages' own."""
    builder = _Builder(run.received_at, future_seconds_max)
    sizes = [builder.sizes()]
    broken = np.zeros(len(run), bool)
    for index, payload in enumerate(run.payloads):
        builder.gateway = run.gateways[index]
        try:
            read(payload, Context(builder.gateway, run.times[index]), builder)
        except Exception:  # noqa: BLE001 - told and kept where it is decoded alone
            broken[index] = True
        sizes.append(builder.sizes())
    counted = np.diff(np.array(sizes), axis=0)
    broken |= counted[:, 4] > 0
    decoded = _with_messages(builder.build(), counted)
    checked = check(sector, decoded, run.received_at, future_seconds_max)
    broken |= _rows(checked, len(run)) < counted[:, :4].sum(axis=1)
    broken |= counted.sum(axis=1) == 0  # it held nothing: the account says so
    _sample(clocks, run, decoded, broken)
    yield from _parts(run, builder, checked, counted[:, 5], broken)


def _with_messages(decoded: Decoded, counted: NDArray[np.int64]) -> Decoded:
    """The same with each row's message, from how many rows of each kind each message had."""
    changes: dict[str, Any] = {}
    indices = np.arange(len(counted), dtype=np.int32)
    for number, name in enumerate(KINDS):
        columns = getattr(decoded, name)
        if columns is not None:
            changes[name] = replace(columns, message=np.repeat(indices, counted[:, number]))
    return replace(decoded, **changes)


def _sample(clocks: Clocks, run: Run, decoded: Decoded, broken: NDArray[np.bool_]) -> None:
    """One sample of each gateway's clock: its shortest delay, of messages that name a time."""
    times = np.array(run.times)
    delays: dict[str, int | None] = {
        gateway: None
        for gateway, alone in zip(run.gateways, broken.tolist(), strict=True)
        if not alone
    }
    for columns, _ in kinds_of(decoded):
        message = _message(columns)
        taken = times[message] - columns.phenomenon_time
        named = np.flatnonzero((taken != 0) & ~broken[message])
        for index, delay in zip(message[named].tolist(), taken[named].tolist(), strict=True):
            gateway = run.gateways[index]
            before = delays[gateway]
            delays[gateway] = delay if before is None else min(before, delay)
    for gateway, shortest in delays.items():
        clocks.sample(gateway, run.received_at, shortest)


def _message(columns: Columns) -> NDArray[np.int32]:
    return np.zeros(0, np.int32) if columns.message is None else columns.message


def _rows(decoded: Decoded, messages: int) -> NDArray[np.int64]:
    """How many rows each message has."""
    rows = np.zeros(messages, np.int64)
    for columns, _ in kinds_of(decoded):
        rows += np.bincount(_message(columns), minlength=messages)
    return rows


def _parts(
    run: Run,
    builder: _Builder,
    decoded: Decoded,
    messages: NDArray[np.int64],
    broken: NDArray[np.bool_],
) -> Iterator[Part]:
    """Groups of one gateway's messages between those that stay alone, in order."""
    segment = np.cumsum(broken)
    groups: dict[tuple[int, str], int] = {}
    group_of = np.array(
        [
            groups.setdefault((number, gateway), len(groups))
            for number, gateway in zip(segment.tolist(), run.gateways, strict=True)
        ],
        np.int64,
    )
    group_of[broken] = -1
    counts = np.bincount(group_of[~broken], messages[~broken], minlength=len(groups))
    columns = _split(decoded, group_of, len(groups))
    alone = np.flatnonzero(broken).tolist()
    told: set[str] = set()
    before = 0
    for (number, gateway), group in groups.items():
        yield from alone[before:number]
        before = max(before, number)
        if not counts[group]:
            continue
        heard: Sequence[Heard] = ()
        if gateway not in told:
            told.add(gateway)
            heard = [Heard(*each) for each in builder.by_gateway.get(gateway, {}).items()]
        changes = {**columns[group], "heard": tuple(heard), "messages": int(counts[group])}
        yield gateway, replace(decoded, rejected=(), **changes)
    yield from alone[before:]


def _split(decoded: Decoded, group_of: NDArray[np.int64], groups: int) -> list[dict[str, Any]]:
    """Each group's rows of each kind, in their order."""
    parts: list[dict[str, Any]] = [dict.fromkeys(KINDS) for _ in range(groups)]
    for name in KINDS:
        columns = getattr(decoded, name)
        if columns is None:
            continue
        group = group_of[_message(columns)]
        if groups == 1 and not (group < 0).any():
            parts[0][name] = replace(columns, message=None)
            continue
        order = np.argsort(group, kind="stable")
        bounds = np.searchsorted(group[order], np.arange(groups + 1))
        for number in range(groups):
            begin, end = int(bounds[number]), int(bounds[number + 1])
            if end > begin:
                parts[number][name] = replace(take(columns, order[begin:end]), message=None)
    return parts
