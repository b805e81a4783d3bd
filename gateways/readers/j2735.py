"""SAE J2735 in UPER: a line of hex a MessageFrame in the file, the frames' bytes on the wire."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import invalid
from gateways.batches import Limits, Record

LIMITS = Limits(messages_max=100, bytes_max=128 * 1024)
SHORT_LENGTH_MAX = 0x80
LONG_LENGTH_MAX = 0xC0


def join(payloads: Sequence[bytes]) -> bytes:
    """Frames are concatenated: each tells its own length."""
    return b"".join(payloads)


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record a line of hex; blank lines and `#` comments are none.

    A line that is not hex is sent as its text and rejected by the platform. CityError `invalid`
    when the times are to be moved: a UPER frame holds no year, and a signed one cannot be changed.
    """
    if start_us is not None:
        raise invalid("start", "j2735 recordings keep their times: use --start recorded")
    for path in files:
        with path.open("rb") as file:
            for line in file:
                text = line.strip()
                if text and not text.startswith(b"#"):
                    yield _record(text)


def _record(text: bytes) -> Record:
    try:
        payload = bytes.fromhex(text.decode("ascii").removeprefix("0x"))
    except ValueError:
        return Record(text, alone=True)
    return Record(payload, alone=not is_whole_frame(payload))


def is_whole_frame(payload: bytes) -> bool:
    """Whether the bytes are one bare MessageFrame: id, length determinant (X.691 11.9), that many.

    Anything else (an IEEE 1609.2 envelope, a broken frame) must not be concatenated: what follows
    it could not be found again.
    """
    if len(payload) < 4 or payload[0] != 0:  # noqa: PLR2004 (ids of J2735 are below 256)
        return False
    first = payload[2]
    if first < SHORT_LENGTH_MAX:
        return len(payload) == 3 + first
    if first < LONG_LENGTH_MAX:
        return len(payload) == 4 + ((first & 0x3F) << 8 | payload[3])
    return False
