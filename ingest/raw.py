"""What a channel hands to the pipeline: one message as it was received, or a run of small ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.clock import now_us
from core.storage.message import Outcome

RUN_MESSAGES_MAX = 1_000
"""Messages of one run: about what a tenth of a second brings."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One message as a channel received it; `tag` is the channel's own, for settling it."""

    channel: str
    sector: str
    gateway: str
    format: str
    payload: bytes
    boot: str | None = None
    seq: str | None = None
    tag: Any = None
    received_at: int = field(default_factory=now_us)
    refuse: tuple[str, str] | None = None
    """(reason, detail) where the channel itself found that the message must not be taken."""

    @property
    def size(self) -> int:
        """Bytes that a message costs while it is held; the constant is for its objects."""
        return len(self.payload) + 1024


Settled = Sequence[tuple[Raw, Outcome]]


@dataclass(slots=True)
class Run:
    """Loose messages of one sector and one common format, in the order in which they came.

    `times` are when each was received, in µs since 1970 and no two alike: a message that says no
    time of its own gets it. `tag` and `tags` are the channel's own, for settling them: one of the
    run, one a message.
    """

    channel: str
    sector: str
    format: str
    tag: Any = None
    gateways: list[str] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    tags: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def size(self) -> int:
        """Bytes that it costs while it is held; the constant is for each message's objects."""
        return sum(map(len, self.payloads)) + 512 * len(self.payloads)

    @property
    def received_at(self) -> int:
        """When the last of them was."""
        return self.times[-1]

    def add(self, gateway: str, payload: bytes, received_at: int, tag: Any) -> None:
        """One more message at its end."""
        self.gateways.append(gateway)
        self.payloads.append(payload)
        self.times.append(received_at)
        self.tags.append(tag)

    def alone(self, index: int) -> Raw:
        """One of its messages as one that came by itself."""
        gateway, payload = self.gateways[index], self.payloads[index]
        time = self.times[index]
        return Raw(self.channel, self.sector, gateway, self.format, payload, received_at=time)

    def halves(self) -> "tuple[Run, Run]":
        """The same messages as two runs."""
        middle = len(self) // 2
        return self._part(slice(middle)), self._part(slice(middle, None))

    def _part(self, which: slice) -> "Run":
        return replace(
            self,
            gateways=self.gateways[which],
            payloads=self.payloads[which],
            times=self.times[which],
            tags=self.tags[which],
        )

    def join(self, other: "Run") -> bool:
        """Take in what came right behind, if the two make one run; False if they do not."""
        kind = (self.channel, self.sector, self.format, self.tag)
        if kind != (other.channel, other.sector, other.format, other.tag):
            return False
        if len(self) + len(other) > RUN_MESSAGES_MAX:
            return False
        self.gateways += other.gateways
        self.payloads += other.payloads
        self.times += other.times
        self.tags += other.tags
        return True
