"""Files of JSON: one document (pretty-printed or not), or one a line (NDJSON)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

DOCUMENT_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON document of a file: its bytes on one line, and its value; None when undecodable."""

    line: bytes
    value: Any
    decodable: bool = True


def documents(path: Path) -> Iterator[Document]:
    """The documents of a file, in order; what does not decode is passed on as it stands."""
    whole = _whole(path)
    if whole is not None:
        yield whole
        return
    with path.open("rb") as file:
        for raw in file:
            line = raw.strip()
            if line:
                yield _document(line)


def _whole(path: Path) -> Document | None:
    """The file as one document; None when it is not, or too large to be one."""
    if path.stat().st_size > DOCUMENT_BYTES_MAX:
        return None
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    if not content:
        return None
    document = _document(content)
    if document.decodable:
        return document
    # Not one document: lines that each decode are NDJSON; if none does, it is one broken document.
    lines = [line for line in content.splitlines() if line.strip()]
    if any(_document(line.strip()).decodable for line in lines[:100]):
        return None
    return document


def _document(content: bytes) -> Document:
    try:
        value = orjson.loads(content)
    except ValueError:
        return Document(content, None, decodable=False)
    # A recorded line is sent byte for byte; only a document over several lines is put on one.
    return Document(content if b"\n" not in content else orjson.dumps(value), value)


def dumps(value: Any) -> bytes:
    """One value on one line."""
    return orjson.dumps(value)
