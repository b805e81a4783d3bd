"""The formats that every sector takes, by their name on a topic, URL or command line."""

from collections.abc import Callable

from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder

Decoder = Callable[[bytes, Context], Decoded]
Reader = Callable[[bytes, Context, ObservationsBuilder], None]


def _senml_json(payload: bytes, context: Context) -> Decoded:
    from core.formats import senml

    return senml.decode_json(payload, context)


def _senml_cbor(payload: bytes, context: Context) -> Decoded:
    from core.formats import senml

    return senml.decode_cbor(payload, context)


def _json(payload: bytes, context: Context) -> Decoded:
    from core.formats import plain

    return plain.decode(payload, context)


def _arrow(payload: bytes, context: Context) -> Decoded:
    # Imported at the first Arrow batch: pyarrow costs 40 MB that an idle house should not pay.
    from core.formats import arrow

    return arrow.decode(payload, context)


DECODERS: dict[str, Decoder] = {
    "senml-json": _senml_json,
    "senml-cbor": _senml_cbor,
    "json": _json,
    "arrow": _arrow,
}


def reader(format: str) -> Reader | None:
    """How small messages of a format are decoded together, into one builder; None: one by one."""
    from core.formats import plain, senml

    readers: dict[str, Reader] = {
        "senml-json": senml.read_json,
        "senml-cbor": senml.read_cbor,
        "json": plain.read,
    }
    return readers.get(format)
