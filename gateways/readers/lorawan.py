"""LoRaWAN uplinks: our wire form, The Things Stack uplink messages, and its codec examples.

Our wire form is a JSON object {"device_model", "dev_eui", "f_port", "bytes" (hex), "time" (ISO)}.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from core.clock import MICROSECONDS, to_iso
from gateways.batches import Limits, Record
from gateways.readers import DEFAULT_START_US
from gateways.readers.json_documents import Document, documents, dumps
from gateways.readers.times import Shift, parse

LIMITS = Limits(messages_max=200, bytes_max=128 * 1024)
EXAMPLE_STEP_US = 60 * MICROSECONDS
"""Codec examples have no times: they are put this far apart."""


def join(payloads: Sequence[bytes]) -> bytes:
    """A JSON array of uplinks; what is sent alone stands as it is."""
    return payloads[0] if len(payloads) == 1 else b"[" + b",".join(payloads) + b"]"


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record an uplink."""
    shift = Shift(start_us)
    clock_us = DEFAULT_START_US if start_us is None else start_us
    for path in files:
        for document in documents(path):
            for uplink in _uplinks(document):
                if isinstance(uplink, dict) and uplink.get("time") is None:
                    uplink["time"] = to_iso(clock_us)
                    clock_us += EXAMPLE_STEP_US
                    yield Record(dumps(uplink), 1, parse(uplink["time"]))
                else:
                    yield _timed(uplink, document, shift)


def _uplinks(document: Document) -> Iterator[Any]:
    match document.value:
        case {"devices": [*devices]}:
            for device in devices:
                yield from _examples(device)
        case [*values]:
            for value in values:
                yield _from_things_stack(value)
        case value:
            yield _from_things_stack(value)


def _timed(uplink: Any, document: Document, shift: Shift) -> Record:
    if not document.decodable:
        return Record(document.line, alone=True)
    if not isinstance(uplink, dict) or not isinstance(uplink["time"], str):
        return Record(dumps(uplink))
    if shift:
        uplink["time"] = shift.rewrite(uplink["time"])
    same = uplink is document.value and not shift
    return Record(document.line if same else dumps(uplink), 1, parse(uplink["time"]))


def _examples(device: Any) -> Iterator[dict[str, Any]]:
    """Codec examples of one device model: the DevEUI is made from the model's name."""
    model = str(device.get("device"))
    for example in device.get("examples", ()):
        yield {
            "device_model": model,
            "dev_eui": hashlib.sha256(model.encode()).hexdigest()[:16],
            "f_port": example.get("fPort"),
            "bytes": example.get("bytes_hex"),
        }


def _from_things_stack(value: Any) -> Any:
    """An uplink message of The Things Stack v3 in our form; anything else as it is."""
    if not (isinstance(value, dict) and isinstance(value.get("uplink_message"), dict)):
        return value
    message, ids = value["uplink_message"], value.get("end_device_ids") or {}
    version = message.get("version_ids") or {}
    try:
        payload = base64.b64decode(message.get("frm_payload") or "", validate=True).hex()
    except binascii.Error:
        payload = str(message.get("frm_payload"))
    return {
        "device_model": f"{version.get('brand_id', '')}/{version.get('model_id', '')}",
        "dev_eui": str(ids.get("dev_eui", "")).lower(),
        "f_port": message.get("f_port"),
        "bytes": payload,
        "time": message.get("received_at") or value.get("received_at"),
    }
