"""Loose MQTT QoS 1 messages as fast as a broker takes them: packets made beforehand, windowed.

A process of its own, `python -m benchmarks.mqtt_load`, so that it takes little from what it loads:
some 2 µs a message. Prints {"seconds": ..., "messages": ...} when the last PUBACK has come.
"""

import argparse
import json
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
PUBACK_BYTES = 4
READ_BYTES = 1 << 16
IDLE_SECONDS_MAX = 60.0
PAYLOAD_BYTES = 100


def text(value: str) -> bytes:
    """A string as MQTT has it."""
    return struct.pack(">H", len(value)) + value.encode()


def packet(head: int, body: bytes) -> bytes:
    """A control packet: its first byte, the length in seven bits a byte, the body."""
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([head]) + bytes(length) + body


def connect(name: str, user: str, password: str) -> bytes:
    """CONNECT of MQTT 3.1.1 with a clean session."""
    flags = 0x02 | (0x80 | 0x40 if user else 0)
    login = text(user) + text(password) if user else b""
    return packet(
        0x10, text("MQTT") + bytes([4, flags]) + struct.pack(">H", 60) + text(name) + login
    )


def payload(thing: int, name: str, number: int) -> bytes:
    """One reading of one Thing, padded to 100 bytes."""
    body = f'{{"thing":"{thing:09d}","property":"{name}","result":{number % 90}}}'
    return body.ljust(PAYLOAD_BYTES).encode()


@dataclass
class Link:
    """One gateway's connection with its messages, all of one length."""

    socket: socket.socket
    data: bytes
    size: int
    sent: int = 0
    acknowledged: int = 0
    fraction: int = 0

    @property
    def messages(self) -> int:
        """How many it has to send."""
        return len(self.data) // self.size

    @property
    def done(self) -> bool:
        """Whether the broker has taken all of them."""
        return self.acknowledged >= self.messages

    def send(self, window: int) -> None:
        """As much as the window and the socket take."""
        until = min(len(self.data), (self.acknowledged + window) * self.size)
        if until > self.sent:
            try:
                self.sent += self.socket.send(memoryview(self.data)[self.sent : until])
            except BlockingIOError:
                return

    def receive(self) -> None:
        """Count PUBACKs: nothing else comes, and each has four bytes."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self.fraction += len(data)
        self.acknowledged += self.fraction // PUBACK_BYTES
        self.fraction %= PUBACK_BYTES


def opened(arguments: argparse.Namespace, number: int, password: str) -> Link:
    """A signed-in connection and its packets."""
    address = urlsplit(arguments.url)
    link = socket.create_connection((address.hostname or "", address.port or 1883), 10)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gateway = f"{arguments.gateway}{number if arguments.links > 1 else ''}"
    link.sendall(
        connect(f"load-{gateway}-{arguments.first}", gateway if password else "", password)
    )
    answer = link.recv(4)
    if answer[3:] != b"\0":
        raise ConnectionError(f"the broker answered {answer!r}")
    link.setblocking(False)
    topic = text(f"chimata/v1/{arguments.sector}/{gateway}/json")
    share = arguments.things // arguments.links or 1
    packets = []
    for index in range(arguments.messages // arguments.links):
        mid = struct.pack(">H", 1 + index % 65535)
        thing = number * share + index % share
        body = payload(thing, arguments.property, arguments.first + index)
        packets.append(packet(0x32, topic + mid + body))
    return Link(link, b"".join(packets), len(packets[0]))


def run(links: list[Link], window: int) -> float:
    """Send everything; seconds from the first byte to the last PUBACK."""
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:
        for link in links:
            selector.register(link.socket, selectors.EVENT_READ, link)
            link.send(window)
        while not all(link.done for link in links):
            ready = selector.select(IDLE_SECONDS_MAX)
            if not ready:
                raise TimeoutError("no PUBACK came for a minute")
            for key, _ in ready:
                key.data.receive()
            for link in links:
                link.send(window)
    return time.perf_counter() - began


class Load:
    """The process, connected and with everything ready to be sent."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the load generator ended")
        return line

    def begin(self) -> float:
        """Let it send; the moment, by time.perf_counter."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return time.perf_counter()

    def seconds(self) -> float:
        """How long the broker took to take all of them; waits for it."""
        return float(json.loads(self._line())["seconds"])


@contextmanager
def load(url: str, tokens: Sequence[str] = (), **options: str | int) -> Iterator[Load]:
    """The load generator for a broker; options as main() has them, a token a link where signed."""
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    signed = ["--signed"] if tokens else []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.mqtt_load", url, *words, *signed],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        started = Load(process)
        assert process.stdin is not None
        process.stdin.write("".join(f"{token}\n" for token in tokens))
        process.stdin.flush()
        if started._line() != "ready":
            raise RuntimeError("the load generator is not ready")
        yield started
    finally:
        process.kill()
        process.wait()


def main(words: list[str]) -> None:
    """Where --signed, a password a link from standard input; then `ready`, and a line to begin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--links", type=int, default=10)
    parser.add_argument("--things", type=int, default=1_000)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--gateway", default="bench")
    parser.add_argument("--sector", default="ports")
    parser.add_argument("--property", default="heading")
    parser.add_argument("--signed", action="store_true")
    arguments = parser.parse_args(words)
    passwords = [
        sys.stdin.readline().strip() if arguments.signed else "" for _ in range(arguments.links)
    ]
    links = [opened(arguments, number, each) for number, each in enumerate(passwords)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    seconds = run(links, arguments.window)
    sys.stdout.write(
        json.dumps({"seconds": seconds, "messages": sum(x.messages for x in links)}) + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
