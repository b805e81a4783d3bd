"""A person's download: a ZIP of all that is held about them, made as it is sent, and signed.

Its manifest is a signed note that names every file with its SHA-256, so that `chimata verify`
checks the whole offline. Memory is bounded: one page of rows at a time.
"""

import csv
import hashlib
import io
import struct
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consent import claims, disclosures, grants, own
from consent.gate import Gate
from consent.log import Place
from consent.receipts import ORIGIN, Signer, check_receipt, open_note
from consent.results import Row
from consent.subject_keys import SubjectKeys
from core.errors import CityError, brief, invalid
from core.tokens import Principal

ABOUT = "chimata/download"
"""The first line of the manifest: no other note begins so."""
MANIFEST, README, DISCLOSURES = "MANIFEST", "README.txt", "disclosures.jsonl"
MANIFEST_BYTES_MAX = 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024
READ_BYTES = 1024 * 1024
DELIVERIES_A_PAGE = 200

TEXT = """あなたについてこのプラットフォームが保有するデータ / What this platform holds about you

observations.*     観測データ(時刻は UTC) / observations, times in UTC
held.json          系列ごとの件数と期間 / how much of what, from when to when
grants.json        あなたが与えた同意 / what you granted
disclosures.jsonl  誰に、いつ、なぜ提供されたか(受領証つき)
                   who received what, when and why, with receipts
claims.json        訂正・利用停止・苦情の申出 / what you asked of us, and what became of it
MANIFEST           各ファイルの SHA-256 と署名 / the SHA-256 of each file, signed

確認 / To check, offline:  chimata verify FILE.zip --key KEY
"""

Pages = Iterator[list[Row]]


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write observations: a file's name, and its bytes made of pages of rows."""

    name: str
    write: Callable[[Pages], Iterator[bytes]]


def _jsonl(pages: Pages) -> Iterator[bytes]:
    for page in pages:
        yield b"".join(_encode(_told(row)) + b"\n" for row in page)


COLUMNS = ("sector", "thing", "property", "unit", "kind", "phenomenon_time", "quality", "shared")
PLACE = ("longitude", "latitude", "speed", "course")


def _csv(pages: Pages) -> Iterator[bytes]:
    head: list[Any] = [(*COLUMNS, "result", *PLACE)]
    for page in pages:
        text = io.StringIO()
        csv.writer(text).writerows(head + [_line(row) for row in page])
        yield text.getvalue().encode()
        head = []
    if head:
        yield (",".join(head[0]) + "\r\n").encode()


def _line(row: Row) -> list[Any]:
    place = row["result"] if row["kind"] == "position" else {}
    result = row["result"]
    if row["kind"] == "position":
        result = None
    elif row["kind"] == "document":
        result = _encode(result).decode()
    moment = row["phenomenon_time"].astimezone(UTC).isoformat()
    shared = {**row, "phenomenon_time": moment}
    return [*(shared[n] for n in COLUMNS), result, *(place.get(n) for n in PLACE)]


GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
}
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in COLUMNS[:5]),
        ("phenomenon_time", pa.timestamp("us", tz="UTC")),
        ("quality", pa.int32()),
        ("shared", pa.bool_()),
        ("number", pa.float64()),
        ("text", pa.string()),  # a category, or the JSON of a document
        ("speed", pa.float64()),
        ("course", pa.float64()),
        ("geometry", pa.binary()),
    ],
    metadata={b"geo": orjson.dumps(GEO)},
)


def _geoparquet(pages: Pages) -> Iterator[bytes]:
    """GeoParquet 1.1: positions are points (WKB, WGS 84), everything else has no geometry."""
    sink = _Sink()
    writer = pq.ParquetWriter(pa.PythonFile(sink, mode="w"), SCHEMA, compression="zstd")
    for page in pages:
        writer.write_table(pa.Table.from_pylist([_record(row) for row in page], schema=SCHEMA))
        yield sink.taken()
    writer.close()
    yield sink.taken()


def _record(row: Row) -> Row:
    told = {name: row[name] for name in COLUMNS}
    result = row["result"]
    match row["kind"]:
        case "number":
            told["number"] = result
        case "position":
            told |= {"speed": result["speed"], "course": result["course"]}
            told["geometry"] = struct.pack("<BIdd", 1, 1, result["longitude"], result["latitude"])
        case "category":
            told["text"] = result
        case _:
            told["text"] = _encode(result).decode()
    return told


FORMATS: dict[str, Format] = {
    "json": Format("observations.jsonl", _jsonl),
    "csv": Format("observations.csv", _csv),
    "geoparquet": Format("observations.parquet", _geoparquet),
}
"""Each format by its name, of those that can tell every sector's observations."""


def download(
    gate: Gate, principal: Principal, keys: SubjectKeys, signer: Signer, form: Format
) -> Iterator[bytes]:
    """The bytes of the ZIP; it is whole only with its last part, which lists all others."""
    files = _files(gate, principal, keys, form)
    told: list[dict[str, Any]] = []
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, chunks in files:
            digest, size = hashlib.sha256(), 0
            with archive.open(_entry(name), "w", force_zip64=True) as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                    yield sink.taken()
            told.append({"name": name, "bytes": size, "sha256": digest.hexdigest()})
        made = {"person": principal.subject, "made_at": datetime.now(UTC), "files": told}
        note = signer.note(f"{ABOUT}\n{_encode(made).decode()}\n")
        archive.writestr(_entry(MANIFEST), note)
    yield sink.taken()


def _files(
    gate: Gate, principal: Principal, keys: SubjectKeys, form: Format
) -> Iterator[tuple[str, Iterable[bytes]]]:
    yield README, [TEXT.encode()]
    with gate.reading_own(principal) as connection:
        held = own.select_held(connection, principal.subject)
        granted = grants.select_grants(connection, principal)
        asked = claims.select_own(connection, principal, keys)
    yield "held.json", [_encode(held)]
    yield "grants.json", [_encode([{**each, "subject": None} for each in granted])]
    hidden = ("code", "person")
    told = [{k: v for k, v in each.items() if k not in hidden} for each in asked]
    yield "claims.json", [_encode(told)]
    yield DISCLOSURES, _deliveries(gate, principal, keys)
    yield form.name, form.write(_pages(gate, principal))


def _pages(gate: Gate, principal: Principal) -> Pages:
    """Every observation of the person, each page a snapshot of its own."""
    after: own.Place | None = None
    while True:
        with gate.own(principal) as connection:
            page = own.select_rows(
                connection, principal.subject, own.Wanted(), after, own.ROWS_A_PAGE
            )
        if page:
            yield page
        if len(page) < own.ROWS_A_PAGE:
            return
        after = page[-1]["place"]


def _deliveries(gate: Gate, principal: Principal, keys: SubjectKeys) -> Iterator[bytes]:
    """A line a record; the first of each disclosure has its receipts, null while they are made."""
    before: Place | None = None
    last = None
    while True:
        with gate.own(principal) as connection:
            page = disclosures.select_of_person(connection, principal, before, DELIVERIES_A_PAGE)
        for row in page:
            told = {**row}
            if row["disclosure"] != last:
                last, told["receipts"] = row["disclosure"], None
                with suppress(CityError):
                    told["receipts"] = gate.receipts(principal, last, keys)
            yield _encode(told) + b"\n"
        if len(page) < DELIVERIES_A_PAGE:
            return
        before = (page[-1]["at"], page[-1]["id"])


def check(path: Path, key: Ed25519PublicKey) -> Iterator[str]:
    """What holds of a download; CityError `invalid` at the first file that does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, key)
            names = [entry.filename for entry in archive.infolist()]
            if sorted(names) != sorted([MANIFEST, *manifest]):
                raise invalid("file", "it holds other files than its manifest lists")
            for name, (size, sha256) in manifest.items():
                if _digest(archive, name) != (size, sha256):
                    raise invalid(name, "is not the file that was signed")
                yield f"holds: {name}, {size} bytes, SHA-256 {sha256}"
            if DISCLOSURES in manifest:
                yield f"holds: {_receipts(archive, key)} receipts of disclosures"
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, TypeError) as error:
        raise invalid("file", f"is no whole download: {brief(error)}") from error


def _manifest(archive: zipfile.ZipFile, key: Ed25519PublicKey) -> Mapping[str, tuple[int, str]]:
    with archive.open(MANIFEST) as file:
        text = open_note(file.read(MANIFEST_BYTES_MAX).decode(), key, ORIGIN)
    about, _, told = text.partition("\n")
    if about != ABOUT:
        raise invalid("manifest", "it is signed, but about something else")
    return {each["name"]: (each["bytes"], each["sha256"]) for each in orjson.loads(told)["files"]}


def _digest(archive: zipfile.ZipFile, name: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with archive.open(name) as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _receipts(archive: zipfile.ZipFile, key: Ed25519PublicKey) -> int:
    count = 0
    with archive.open(DISCLOSURES) as file:
        while line := file.readline(LINE_BYTES_MAX):
            for receipt in orjson.loads(line).get("receipts") or ():
                check_receipt(receipt, key)
                count += 1
    return count


class _Sink(io.RawIOBase):
    """Takes what is written, to be handed on; it cannot be gone back in."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._held.append(bytes(content))
        return len(self._held[-1])

    def taken(self) -> bytes:
        """What was written since the last time."""
        held, self._held = b"".join(self._held), []
        return held


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, time.gmtime()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _told(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "place"}


def _encode(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)
