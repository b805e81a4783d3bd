"""Health has no format of its own yet: devices send SenML, JSON or Arrow (core/formats)."""

from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Everything is a rejection that names the format."""
    del context
    builder = ObservationsBuilder()
    builder.messages = 1
    builder.reject("unsupported-format", f"health takes no {format}", payload)
    return builder.build()
