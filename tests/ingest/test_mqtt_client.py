"""paho's client with a buffer: every packet is taken once, however the bytes are cut."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.mqtt_client import READ_BYTES, BufferedSocket, Publish, publishes, waits

topics = st.sampled_from(["chimata/v1/farms/g1/json", "t", "道/路"])
bodies = st.binary(max_size=40) | st.sampled_from([b"x" * n for n in (99, 128, 20_000)])


def packet(head: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, low = divmod(left, 128)
        length += bytes([low | (128 if left else 0)])
        if not left:
            return bytes([head]) + length + body


@st.composite
def publish(draw: st.DrawFn, modern: bool) -> tuple[Publish, bytes]:
    topic, mid, body = draw(topics).encode(), draw(st.integers(1, 65535)), draw(bodies)
    flags = draw(st.sampled_from([0x32, 0x3A, 0x33, 0x3B]))
    number = struct.pack(">H", mid)
    head = struct.pack(">H", len(topic)) + topic + number + (b"\0" if modern else b"")
    return Publish(topic, number, body), packet(flags, head + body)


others = st.sampled_from(
    [
        b"\xd0\x00",  # PINGRESP
        packet(0x30, b"\x00\x01tx"),  # QoS 0
        packet(0x34, b"\x00\x01t\x00\x01x"),  # QoS 2
        packet(0x32, b"\x00\xfft\x00\x01"),  # a topic longer than the packet
        packet(0x32, b"\x00\x01t"),  # no id
    ]
)


@pytest.mark.parametrize("modern", [True, False], ids=["mqtt-5", "mqtt-3.1.1"])
@given(data=st.data())
def test_packets_are_taken_up_to_any_other(modern: bool, data: st.DataObject) -> None:
    before = data.draw(st.lists(publish(modern), max_size=4))
    other = data.draw(others | st.just(b""))
    after = data.draw(st.lists(publish(modern), max_size=2)) if other else []
    stream = b"".join(raw for _, raw in before) + other + b"".join(raw for _, raw in after)
    skipped = data.draw(st.binary(max_size=3))
    taken, at = publishes(skipped + stream, len(skipped), modern=modern)
    assert taken == [each for each, _ in before]
    assert (skipped + stream)[at:] == other + b"".join(raw for _, raw in after)


@pytest.mark.parametrize("modern", [True, False], ids=["mqtt-5", "mqtt-3.1.1"])
@given(data=st.data())
def test_a_cut_packet_is_not_taken_and_waits(modern: bool, data: st.DataObject) -> None:
    whole, cut = data.draw(publish(modern)), data.draw(publish(modern))
    part = cut[1][: data.draw(st.integers(0, len(cut[1]) - 1))]
    taken, at = publishes(whole[1] + part, 0, modern=modern)
    assert (taken, at) == ([whole[0]], len(whole[1]))
    assert waits(whole[1] + part, at) is bool(part)
    assert not waits(cut[1], 0)


def test_a_message_with_properties_is_left_to_paho() -> None:
    named = packet(0x32, b"\x00\x01t\x00\x01" + b"\x05\x26\x00\x00\x00\x00" + b"x")
    assert publishes(named, 0, modern=True) == ([], 0)
    assert not waits(named, 0)


def test_a_packet_larger_than_the_buffer_goes_to_paho_as_it_comes() -> None:
    large = packet(0x32, b"\x00\x01t\x00\x01" + b"x" * READ_BYTES)
    assert publishes(large[:1000], 0, modern=False) == ([], 0)
    assert not waits(large[:1000], 0)
    assert not waits(b"\x32\xff\xff\xff\xff\xff", 0)  # no length: paho ends such a connection
    assert waits(b"\x32\xff", 0)


class Bytes:
    """A socket's end: gives these parts, then says that there is no more for now, then ends."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = [*parts]

    def recv(self, size: int) -> bytes:
        if not self.parts:
            raise BlockingIOError
        first = self.parts.pop(0)
        if len(first) > size:
            self.parts.insert(0, first[size:])
        return first[:size]


def test_the_buffer_gives_every_byte_once() -> None:
    source = BufferedSocket(Bytes(b"abc", b"defg", b"h", b""))
    source.fill()
    assert source.recv(2) == b"ab"
    source.fill()
    assert (source.data[source.at :], source.ended) == (b"cdefg", False)
    assert [source.recv(4), source.recv(4), source.recv(4)] == [b"cdef", b"g", b"h"]
    source.fill()
    assert source.ended
    with pytest.raises(BlockingIOError):
        source.recv(1)
