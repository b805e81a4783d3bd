"""paho's client that takes all PUBLISH packets of a socket read at once and acknowledges in bulk.

paho reads byte by byte, and a small message costs it 40 µs of which few are its data. It still does
all the rest: connecting, keep-alive, subscribing, sending, and every packet that is not plain.
"""

import contextlib
import ssl
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion

READ_BYTES = 256 * 1024
HEADER_BYTES_MAX = 5
PUBLISH_QOS_1 = 0x32
FLAGS = 0x09  # of a PUBLISH: sent again, retained; neither changes what we do
PUBACK = b"\x40\x02"
"""A PUBACK of success is this and the message's two bytes of id, in MQTT 3.1.1 and 5 alike."""


class Publish(NamedTuple):
    """One PUBLISH packet of QoS 1; `mid` is its id as the two bytes that acknowledge it."""

    topic: bytes
    mid: bytes
    payload: bytes


class BufferedSocket:
    """A non-blocking socket whose bytes can be looked at before paho reads them."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.data = b""
        self.at = 0
        """Where in `data` the bytes begin that nobody has read."""
        self.ended = False

    def fill(self) -> None:
        """Read what there is; an error or the end is left for paho's own read to find."""
        more = b""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            try:
                more = self._socket.recv(READ_BYTES)
            except ConnectionError:
                self.ended = True
            else:
                self.ended = not more
        self.data, self.at = self.data[self.at :] + more, 0

    def recv(self, size: int) -> bytes:
        """As a socket's: from the buffer first."""
        if self.at >= len(self.data):
            received: bytes = self._socket.recv(size)
            return received
        part = self.data[self.at : self.at + size]
        self.at += len(part)
        return part

    def pending(self) -> int:
        """Bytes that TLS has decrypted: select does not tell of them."""
        return self._socket.pending() if hasattr(self._socket, "pending") else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class BulkClient(paho.Client):
    """`on_publishes` gets the plain PUBLISH packets; all others take paho's way to `on_message`."""

    on_publishes: Callable[[list[Publish]], None]
    _buffered: BufferedSocket | None = None

    def acknowledge(self, mids: list[bytes]) -> None:
        """PUBACK for many messages as one write."""
        packets = b"".join([PUBACK + mid for mid in mids])
        if packets:
            self._packet_queue(PUBACK[0], packets, 0, 1)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """All that one read of the socket brings, and with it every packet that is complete."""
        source = self._buffered
        if source is None or not self._is(source):
            return super().loop_read(max_packets)
        source.fill()
        while not self._take(source):
            code = super().loop_read(max_packets)
            if code or not self._is(source) or source.at >= len(source.data):
                return code
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _take(self, source: BufferedSocket) -> bool:
        """Take the packets that are plain; whether nothing is left for paho to read now."""
        if self._in_packet["command"] != 0:
            return False  # it is in the middle of one
        modern = self._protocol == MQTTProtocolVersion.MQTTv5
        taken, source.at = publishes(source.data, source.at, modern=modern)
        if taken:
            with self._msgtime_mutex:
                self._last_bytes_received = time.monotonic()
            self.on_publishes(taken)
        if source.ended:
            return False
        return (bool(taken) and source.at >= len(source.data)) or waits(source.data, source.at)

    def _is(self, source: BufferedSocket) -> bool:
        """Whether it is still the connection's."""
        connected: Any = self._sock
        return connected is source

    def _create_socket(self) -> Any:
        self._buffered = BufferedSocket(super()._create_socket())
        return self._buffered


def publishes(data: bytes, at: int, *, modern: bool) -> tuple[list[Publish], int]:
    """The complete PUBLISH packets of QoS 1 from `at` on, up to any other; and where that begins.

    Of MQTT 5 (`modern`) those without properties. What looks wrong is left to paho.
    """
    found: list[Publish] = []
    size = len(data)
    while at + 2 <= size and data[at] & ~FLAGS == PUBLISH_QOS_1:
        length = data[at + 1]
        begin = at + 2
        if length > 127:  # noqa: PLR2004 - seven bits a byte, the eighth: another follows
            if begin >= size:
                break
            length = (length & 127) | (data[begin] & 127) << 7
            begin += 1
            if data[begin - 1] > 127:  # noqa: PLR2004
                if begin >= size or data[begin] > 127:  # noqa: PLR2004 - over 2 MB
                    break
                length |= data[begin] << 14
                begin += 1
        end = begin + length
        name_end = begin + 2 + int.from_bytes(data[begin : begin + 2])
        body = name_end + (3 if modern else 2)
        if end > size or body > end or (modern and data[body - 1]):
            break
        found.append(
            Publish(data[begin + 2 : name_end], data[name_end : name_end + 2], data[body:end])
        )
        at = end
    return found, at


def waits(data: bytes, at: int) -> bool:
    """Whether the packet at `at` is small and not yet complete: it stays in the buffer till it is.

    A large one goes to paho as it comes.
    """
    left = len(data) - at
    if left < HEADER_BYTES_MAX:
        head = data[at + 1 : at + HEADER_BYTES_MAX]
        if not any(byte < 128 for byte in head):  # noqa: PLR2004 - its length is not all here
            return left > 0
    length = shift = 0
    for number, byte in enumerate(data[at + 1 : at + HEADER_BYTES_MAX]):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:  # noqa: PLR2004
            return left < 2 + number + length < READ_BYTES
    return False
