"""What anyone checks offline: receipts, checkpoints that go on in others, records of consent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import Certificate

from consent import merkle, receipts, records, timestamps
from core.errors import brief, invalid

ERASED = "(its record was erased: who has it from before can still show it)"


@dataclass(frozen=True, slots=True)
class Known:
    """What who checks knows beforehand: never taken from what is checked."""

    key: Ed25519PublicKey
    authority: Sequence[Certificate] = ()
    """Certificates of a timestamping authority; without any, timestamps are not checked."""
    kept: str | None = None
    """A checkpoint that was kept."""


def check(content: bytes, known: Known) -> Iterator[str]:
    """What holds of a file or an answer; CityError `invalid` at the first that does not."""
    try:
        told = orjson.loads(content)
    except ValueError as error:
        raise invalid("file", f"is no JSON: {brief(error)}") from error
    if isinstance(told, dict) and "@context" in told:
        yield records.check(told, known.key)
    elif isinstance(told, dict) and "old" in told:
        yield _consistency(told, known)
    else:
        found = told["receipts"] if isinstance(told, dict) and "receipts" in told else [told]
        for each in found:
            yield _receipt(each, known)


def _receipt(receipt: Any, known: Known) -> str:
    checked = receipts.check_receipt(receipt, known.key)
    held = f"holds: leaf {checked.index} of {checked.size}: {checked.text or ERASED}"
    if checked.timestamp is None:
        return held
    if not known.authority:
        return f"{held} (its timestamp was not checked: no certificates were given)"
    at = timestamps.check(checked.timestamp, checked.note, known.authority)
    return f"{held} (timestamped {at.isoformat()})"


def _consistency(told: dict[str, Any], known: Known) -> str:
    """Both trees are signed, and the second adds to the first, which is the one that was kept."""
    try:
        proof = [bytes.fromhex(each) for each in told["proof"]]
        notes = [str(told[name]) for name in ("old", "new")]
    except (KeyError, TypeError, ValueError) as error:
        raise invalid("proof", f"is not of the form of a proof: {brief(error)}") from error
    (old, before), (size, after) = (receipts.open_checkpoint(n, known.key) for n in notes)
    if not merkle.is_consistent(old, size, before, after, proof):
        raise invalid("proof", "the newer tree does not go on from the older one")
    if known.kept is not None:
        if receipts.open_checkpoint(known.kept, known.key) != (old, before):
            raise invalid("kept", "it is not the older checkpoint of this proof")
        return f"holds: nothing of the {old} leaves that you kept was changed among {size}"
    return f"holds: the tree of {old} leaves is the beginning of the one of {size}"
