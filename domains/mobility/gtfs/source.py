"""A feed's files out of a zip or a folder: bounded, and never written anywhere."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.errors import CityError, invalid
from domains.mobility.gtfs.problems import Report

BYTES_MAX = 1 << 30
"""All files of a feed together, unpacked; the national feeds that are published have a third."""
FILES_MAX = 200
RATIO_MAX = 400
"""A packed file that would grow by more is a bomb: timetables grow by 5 to 50."""
RATIO_BYTES_MIN = 16 << 20
SUFFIXES = (".txt", ".geojson")
NEEDED = ("stops.txt", "trips.txt", "stop_times.txt")


@dataclass(frozen=True, slots=True)
class Source:
    """A feed as it came: its files by name, and a digest of names and contents.

    The digest is of what is inside: the same files zipped again tomorrow are the same feed.
    """

    name: str
    files: dict[str, bytes]
    sha256: bytes


def open_source(path: Path, report: Report, *, name: str | None = None) -> Source:
    """The files of a zip or a folder; `invalid` for what is no GTFS at all, with the reason."""
    called = name or path.name
    try:
        if path.is_dir():
            return _source(called, _of_folder(path), report)
        with path.open("rb") as opened:
            return _source(called, _of_zip(opened, called), report)
    except OSError as error:
        raise invalid(called, error.strerror or "cannot be read") from error


def open_bytes(content: bytes, report: Report, name: str) -> Source:
    """The files of a zip that is in memory; errors as `open_source`."""
    return _source(name, _of_zip(io.BytesIO(content), name), report)


def _source(name: str, found: Iterator[tuple[str, bytes]], report: Report) -> Source:
    files: dict[str, bytes] = {}
    size = 0
    for path, content in found:
        file = PurePosixPath(path).name.lower()
        size += len(content)
        if size > BYTES_MAX:
            raise invalid(name, f"its files are over {BYTES_MAX >> 20} MiB")
        if not file.endswith(SUFFIXES):
            report.add("file_not_kept", path[-100:])
        elif file in files:
            report.add("duplicate_file", file)
        else:
            files[file] = content
    missing = [file for file in NEEDED if file not in files]
    if missing:
        raise invalid(name, f"is no GTFS: there is no {', '.join(missing)}")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.encode() + b"\0" + hashlib.sha256(files[file]).digest())
    return Source(name, files, digest.digest())


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    inside = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if len(inside) > FILES_MAX:
        raise invalid(folder.name, f"has more than {FILES_MAX} files")
    for path in inside:
        if path.stat().st_size > BYTES_MAX:
            raise invalid(path.name, f"is over {BYTES_MAX >> 20} MiB")
        yield path.name, path.read_bytes()


def _of_zip(
    opened: io.BufferedIOBase | io.BufferedReader, name: str
) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(opened) as archive:
            for member in _members(archive, name):
                yield member.filename, _unpacked(archive, member, name)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise invalid(name, f"is no readable zip: {error}") from error
    except RuntimeError as error:  # a password, or a method of packing that Python has not
        raise invalid(name, f"cannot be unpacked: {error}") from error


def _members(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """Files at the top, or in the one folder that holds stops.txt; nothing is ever extracted."""
    listed = [m for m in archive.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
    if len(listed) > FILES_MAX:
        raise invalid(name, f"has more than {FILES_MAX} files")
    parents = {
        PurePosixPath(m.filename).parent
        for m in listed
        if PurePosixPath(m.filename).name.lower() == "stops.txt"
    }
    top = min(parents, key=lambda parent: (len(parent.parts), str(parent)), default=None)
    members = [m for m in listed if top is None or PurePosixPath(m.filename).parent == top]
    if sum(m.file_size for m in members) > BYTES_MAX:
        raise invalid(name, f"its files are over {BYTES_MAX >> 20} MiB")
    for member in members:
        packed = max(member.compress_size, 1)
        if member.file_size > RATIO_BYTES_MIN and member.file_size / packed > RATIO_MAX:
            raise invalid(name, f"{member.filename[-100:]} grows more than {RATIO_MAX}-fold")
    return members


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    """The content; no more of it is unpacked than its entry says, whatever the packed data do."""
    with archive.open(member) as packed:
        content = packed.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise CityError("invalid", f"{name}: {member.filename[-100:]} is not as long as it says")
    return content
