"""From what a channel received to messages for the store; whatever is at fault is a rejection."""

import hashlib
import logging
from dataclasses import replace
from typing import Any

import domains
from core.formats import DECODERS, reader
from core.sector import COMMON_FORMATS, Context, Sector, all_formats
from core.sensorthings import DataClass, Decoded, Rejected
from core.settings import Settings
from core.storage.message import Message
from core.tokens import NAME
from ingest import runs
from ingest.check import check
from ingest.clocks import Clocks
from ingest.raw import Raw, Run

log = logging.getLogger("chimata.ingest")

SEQ_MAX = 2**53
SEQ_DIGITS_MAX = 16  # of 2**53
FORMAT_CHARACTERS_MAX = 100

UNKNOWN = Sector("unknown", "不明", "Unknown", DataClass.PERSONAL, (), ())
"""Where rejections go that name no sector we have."""


def sector_of(name: str) -> Sector:
    """The sector of this name, or UNKNOWN."""
    return domains.sector(name) if name in domains.names() else UNKNOWN


def runs_of(sector: str, gateway: str, form: str) -> bool:
    """Whether loose messages of these names may come as a run: known ones of a common format."""
    known = sector_of(sector)
    return (
        known is not UNKNOWN
        and form not in known.formats
        and reader(form) is not None
        and NAME.fullmatch(gateway) is not None
    )


class Decoder:
    """One sector's decoders in one process, with the state that they keep between messages."""

    def __init__(self, sector: Sector, settings: Settings, clocks: Clocks) -> None:
        self._sector = sector
        self._settings = settings
        self._clocks = clocks
        self._memory: dict[Any, Any] = {}

    def messages(self, received: Raw | Run) -> list[Message]:
        """What one message held; or a run, as few messages as keep each gateway's apart."""
        if isinstance(received, Raw):
            return [self.message(received)]
        read = reader(received.format)
        if read is None or len(received) == 1:
            return [self.message(received.alone(index)) for index in range(len(received))]
        try:
            future = self._settings.future_seconds_max
            parts = list(runs.decode(self._sector, received, read, future, self._clocks))
        except Exception:
            log.exception(
                "a run of %s/%s is decoded one by one", self._sector.name, received.format
            )
            return [self.message(received.alone(index)) for index in range(len(received))]
        return [
            self.message(received.alone(part))
            if isinstance(part, int)
            else _message(received, *part)
            for part in parts
        ]

    def message(self, raw: Raw) -> Message:
        """One message: its identity, and what it held or why that cannot be known."""
        gateway = raw.gateway if NAME.fullmatch(raw.gateway) else UNKNOWN.name
        identity, fault = _identity(raw)
        fault = raw.refuse or fault
        # What the channel refused is never to be believed, whatever it may decode to.
        decoded = undecodable(raw, *fault, None) if fault is not None else self.decoded(raw)
        if not decoded.received and not decoded.messages:
            decoded = replace(decoded, messages=1, unchanged=1)
        return Message(
            gateway,
            # The account has a line a format: whoever makes up names must not make up lines.
            raw.format if raw.format in all_formats(self._sector) else UNKNOWN.name,
            raw.channel,
            raw.received_at,
            raw.payload,
            hashlib.sha256(raw.payload).digest(),
            decoded,
            *identity,
        )

    def decoded(self, raw: Raw) -> Decoded:
        """Decode and check; whatever a decoder does wrong ends as a rejection of this message."""
        if self._sector is UNKNOWN:
            return undecodable(raw, "unknown-sector", f"sector: there is no {raw.sector!r}", None)
        context = Context(raw.gateway, raw.received_at, self._memory)
        try:
            if len(raw.payload) > self._settings.body_bytes_max:
                limit = self._settings.body_bytes_max
                return undecodable(raw, "too-large", f"payload: over {limit} bytes")
            if raw.format in self._sector.formats:
                decode = domains.load(self._sector.name, "decode").decode
                derive = domains.load(self._sector.name, "rules").derive
                decoded = derive(decode(raw.format, raw.payload, context))
            elif raw.format in COMMON_FORMATS:
                decoded = DECODERS[raw.format](raw.payload, context)
            else:
                detail = f"format: {self._sector.name} takes no {raw.format!r}"
                known = raw.format.isprintable() and len(raw.format) <= FORMAT_CHARACTERS_MAX
                return undecodable(raw, "unknown-format", detail, raw.format if known else None)
            self._clocks.hear(raw.gateway, raw.received_at, decoded)
            return check(self._sector, decoded, raw.received_at, self._settings.future_seconds_max)
        except Exception as error:
            log.exception("decoder of %s/%s failed", self._sector.name, raw.format)
            return undecodable(raw, "decoder-error", f"{type(error).__name__}: {error}")


def undecodable(raw: Raw, reason: str, detail: str, form: str | None = "") -> Decoded:
    """The whole message as one rejection with its payload; `form` as in Rejected."""
    return Decoded(rejected=(Rejected(reason, detail, raw.payload, 0, form),), messages=1)


def _message(run: Run, gateway: str, decoded: Decoded) -> Message:
    """Loose messages of one gateway as one: without an identity nobody asks for payload or hash."""
    return Message(gateway, run.format, run.channel, run.received_at, b"", b"", decoded)


def _identity(raw: Raw) -> tuple[tuple[str | None, int | None], tuple[str, str] | None]:
    """The batch identity, or the fault of one that is not of the right form."""
    if not NAME.fullmatch(raw.gateway):
        return (None, None), ("bad-identity", f"gateway: {raw.gateway!r} must match {NAME.pattern}")
    if raw.boot is None and raw.seq is None:
        return (None, None), None
    if raw.boot is None or not NAME.fullmatch(raw.boot):
        return (None, None), ("bad-identity", f"boot: {raw.boot!r} must match {NAME.pattern}")
    if raw.seq is None or not raw.seq.isascii() or not raw.seq.isdecimal():
        return (None, None), ("bad-identity", f"seq: {raw.seq!r} must be a decimal integer")
    if len(raw.seq) > SEQ_DIGITS_MAX or int(raw.seq) >= SEQ_MAX:
        return (None, None), ("bad-identity", f"seq: must be below {SEQ_MAX}")
    return (raw.boot, int(raw.seq)), None
