"""Export and import: what was stored comes back, once, with its units, qualities and classes."""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow.dataset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import domains
from consent import archive as exports
from consent.gate import Gate
from core import archive
from core.clock import from_datetime
from core.errors import CityError
from core.sensorthings import Decoded, ObservationsBuilder, Position
from core.settings import Settings
from core.storage.account import account
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.rollup import Worker
from deploy import postgres
from deploy.imports import archive as imports
from ingest.archiving import Archivist
from ingest.upkeep import Maintainer
from tests.databases import copied
from tests.ingest.helpers import until as until_

DAY = date(2025, 3, 4)
START = from_datetime(archive.bounds_of(DAY)[0])
DAY_US = 86_400_000_000
EDGE = domains.sector("edge")
DECIMAL = next(p.name for p in EDGE.properties if p.decimals)
"""A property whose results are stored as multiples of a power of two."""


class City:
    """One database with an archive beside it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.gate = Gate(Settings(database_url=url))
        self.session = psycopg.connect(url)
        self.session.execute("SET ROLE chimata_ingest")
        self.session.commit()
        self.store = SectorStore(EDGE)

    def close(self) -> None:
        self.session.close()
        self.gate.close()

    def send(self, decoded: Decoded, gateway: str = "g") -> None:
        self.store.append(
            self.session, [Message(gateway, "json", "test", START, b"x", b"", decoded)]
        )

    def export(self, day: date = DAY) -> exports.Exported:
        return exports.export_day(self.gate, EDGE, day, self.folder)

    def drop(self) -> None:
        """What retention does."""
        with psycopg.connect(self.url) as owner:
            owner.execute("SELECT maintain_partitions('1 day')")
            owner.execute("DELETE FROM superseded")
        self.store = SectorStore(EDGE)  # as after the first refusal: its partitions are gone
        assert self.stored() == 0

    def stored(self) -> int:
        tables = ("observation", "observation_position", "observation_document")
        count = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
        row = self.session.execute(f"SELECT {count}").fetchone()
        self.session.commit()
        assert row is not None
        return int(row[0])

    def imported(self) -> dict[str, int]:
        return imports.run(self.session, [str(self.folder)])

    def sha256(self, day: date = DAY) -> str:
        manifest = archive.read_manifest(archive.day_folder(self.folder, "edge", day))
        assert manifest is not None
        return manifest.sha256

    def rows(self) -> dict[tuple[str, str, int], Any]:
        """(thing, property, time) -> (result, unit, quality, data class), as others read it."""
        found = {}
        data = pyarrow.dataset.dataset(self.folder, format="parquet", partitioning="hive")
        for row in data.to_table().to_pylist():
            time = from_datetime(row["phenomenon_time"])
            match row["kind"]:
                case "number":
                    result = row["result"]
                case "category":
                    result = row["text"]
                case "position":
                    result = tuple(row[n] for n in ("longitude", "latitude", "speed", "course"))
                case _:
                    result = json.loads(row["document"])
            key = (row["thing"], row["property"], time)
            assert key not in found
            assert (row["sector"], row["day"]) == ("edge", str(archive_day(time)))
            found[key] = (result, row["unit"], row["quality"], row["data_class"])
        return found


def archive_day(time: int) -> date:
    return DAY + timedelta(microseconds=time - START) // timedelta(days=1) * timedelta(days=1)


@pytest.fixture
def city(storage_url: str, tmp_path: Path) -> Iterator[City]:
    made = City(storage_url, tmp_path / "archive")
    yield made
    made.close()


def decoded(*observations: tuple[Any, ...], quality: int = 0) -> Decoded:
    builder = ObservationsBuilder()
    for observation in observations:
        builder.add(*observation)
    builder.messages = len(observations)
    built = builder.build()
    parts = {}
    for name in ("numbers", "categories", "positions", "documents"):
        columns = getattr(built, name)
        if columns is not None:
            flags = np.full(len(columns.stream), quality, np.int16)
            parts[name] = replace(columns, quality=flags)
    return replace(built, **parts)


# One kind a property, as Datastreams have it.
RESULTS = {
    "speed-kn": st.floats(allow_nan=False, allow_infinity=False),
    DECIMAL: st.one_of(
        st.decimals(-100, 100, places=1).map(float), st.floats(-1e6, 1e6, allow_nan=False)
    ),
    "state/1": st.sampled_from(["ok", "down", "故障"]),
    "position": st.builds(
        Position,
        st.floats(-180, 180),
        st.floats(-90, 90),
        st.one_of(st.just(float("nan")), st.floats(0, 50)),
        st.floats(0, 360),
    ),
    "note": st.dictionaries(st.text("abé", max_size=3), st.integers(-9, 9), max_size=3),
}
OBSERVATION = st.sampled_from(sorted(RESULTS)).flatmap(
    lambda name: st.tuples(
        st.sampled_from(["船-1", "a", "Ab"]),
        st.just(name),
        st.one_of(
            st.integers(START, START + DAY_US - 1),
            st.sampled_from([START, START + 1, START + DAY_US - 1]),
        ),
        RESULTS[name],
    )
)


def expected(observations: list[tuple[Any, ...]], quality: int) -> dict[Any, Any]:
    """What stands after all: a result that a key has had already is a repeat, no correction."""
    found: dict[Any, Any] = {}
    had = set()
    for thing, name, time, result in observations:
        if (key := (thing, name, time, repr(result))) in had:
            continue
        had.add(key)
        kept: Any = result
        if isinstance(result, Position):
            values = (result.longitude, result.latitude, result.speed, result.course)
            kept = tuple(None if math.isnan(value) else value for value in values)
        declared = EDGE.by_name.get(name.partition("/")[0])
        unit = (declared.unit if declared else None) or "1"
        found[thing, name, time] = (kept, unit, quality, EDGE.data_class.value)
    return found


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(OBSERVATION, min_size=1, max_size=30),
    st.lists(OBSERVATION, max_size=10),
    st.sampled_from([0, 1, 5]),
)
def test_what_was_stored_comes_back(
    city: City, first: list[Any], late: list[Any], quality: int
) -> None:
    """Export, late data, export, drop, export, import, export: the same rows and the same bytes."""
    city.send(decoded(*first, quality=quality))
    assert city.export().status == "written"
    model = expected(first, quality)
    assert city.rows() == model
    if late:
        city.send(decoded(*late, quality=quality))
        model = expected([*first, *late], quality)
        assert city.export().status == "written"
    digest = city.sha256()
    assert city.export().status == "unchanged"
    assert city.rows() == model

    city.drop()
    city.export()
    assert (city.rows(), city.sha256()) == (model, digest)

    count = len(model)
    want = {"days": 1, "found": count, "stored": count, "duplicate": 0, "refused": 0}
    assert city.imported() == want
    assert city.imported() == {**want, "stored": 0, "duplicate": count}
    assert city.stored() == count
    city.export()
    assert (city.rows(), city.sha256()) == (model, digest)
    assert all(row.adds_up for row in account(city.session))
    city.session.commit()

    city.drop()
    assert city.imported() == want, "a day that was dropped again comes back again"
    city.drop()
    for path in sorted(city.folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def test_late_rows_of_a_dropped_day_join_what_is_archived(city: City) -> None:
    """Retention dropped the day; a late row and a correction come: nothing archived is lost."""
    city.send(decoded(("a", "speed-kn", START, 1.0), ("b", "speed-kn", START + 5, 2.0)))
    city.export()
    city.drop()
    city.send(decoded(("a", "speed-kn", START + 7, 3.0), ("b", "speed-kn", START + 5, 2.5)))
    assert city.export().status == "written"
    assert {key: row[0] for key, row in city.rows().items()} == {
        ("a", "speed-kn", START): 1.0,
        ("a", "speed-kn", START + 7): 3.0,
        ("b", "speed-kn", START + 5): 2.5,
    }


def test_a_row_of_another_day_changes_no_archived_day(city: City) -> None:
    city.send(decoded(("a", "speed-kn", START, 1.0)))
    city.export()
    city.send(decoded(("a", "speed-kn", START + DAY_US, 1.0)))
    assert city.export().status == "unchanged"
    assert city.export(DAY + timedelta(days=1)).status == "written"
    assert city.export(DAY - timedelta(days=1)).status == "empty"
    assert len(city.rows()) == 2


def test_many_row_groups_and_both_classes(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and row groups of other sizes than the data; shared streams stay shared."""
    monkeypatch.setattr(archive, "ROW_GROUP_ROWS", 700)
    monkeypatch.setattr(exports, "ROWS_A_TABLE", 64)
    with psycopg.connect(city.url) as owner:
        owner.execute("INSERT INTO gateway (id, data_class) VALUES ('closed', 'shared')")
    count = 1_500
    city.send(decoded(*((f"t{n % 7}", "speed-kn", START + n, n / 2) for n in range(count))))
    city.send(decoded(*((f"s{n % 3}", "speed-kn", START + n, 1.0) for n in range(count))), "closed")
    city.export()
    before, digest = city.rows(), city.sha256()
    assert len(before) == 2 * count
    shared = {key for key, row in before.items() if row[3] == "shared"}
    assert len(shared) == (count if EDGE.data_class.value == "open" else 2 * count)
    city.drop()
    assert city.imported()["stored"] == 2 * count
    city.export()
    assert (city.rows(), city.sha256()) == (before, digest)


def test_another_database_takes_the_archive(city: City, database_template: postgres.Server) -> None:
    """Units and classes stand in the file: a fresh database makes the same archive of it."""
    with psycopg.connect(city.url) as owner:
        owner.execute("INSERT INTO gateway (id, data_class) VALUES ('closed', 'shared')")
    city.send(decoded(("a", "undeclared", START, 1.0, "m/s"), ("a", "state", START, "ok")))
    city.send(decoded(("b", "undeclared", START, 1.0, "km")), "closed")
    city.export()
    before, digest = city.rows(), city.sha256()
    assert {row[1] for row in before.values()} >= {"m/s", "km"}
    with copied(database_template) as url:
        other = City(url, city.folder)
        try:
            assert other.imported()["stored"] == 3
            assert other.export().status == "written", (
                "another log: nothing is known to be unchanged"
            )
            assert (other.rows(), other.sha256()) == (before, digest)
        finally:
            other.close()


def test_a_file_that_was_changed_is_not_imported(city: City) -> None:
    city.send(decoded(("a", "speed-kn", START, 1.0)))
    city.export()
    path = archive.day_folder(city.folder, "edge", DAY) / archive.DATA_NAME
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CityError, match=r"observations\.parquet"):
        city.imported()
    with pytest.raises(CityError, match="no archived day"):
        imports.run(city.session, [str(city.folder / "nowhere")])


def test_a_crash_leaves_the_archived_day_as_it_was(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    city.send(decoded(("a", "speed-kn", START, 1.0)))
    city.export()
    before, digest = city.rows(), city.sha256()
    city.send(decoded(("a", "speed-kn", START + 1, 1.0)))

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "_sync", fail)
        with pytest.raises(OSError, match="no space"):
            city.export()
    folder = archive.day_folder(city.folder, "edge", DAY)
    assert sorted(path.name for path in folder.iterdir()) == [
        archive.MANIFEST_NAME,
        archive.DATA_NAME,
    ]
    assert (city.rows(), city.sha256()) == (before, digest)
    assert city.export().status == "written"
    assert len(city.rows()) == 2


def test_personal_sectors_have_no_archive(database_url: str, tmp_path: Path) -> None:
    personal = replace(EDGE, name="private", data_class=type(EDGE.data_class).PERSONAL)
    gate = Gate(Settings(database_url=database_url))
    try:
        assert not exports.is_exported(personal)
        with pytest.raises(CityError, match="consent"):
            exports.export_day(gate, personal, DAY, tmp_path)
    finally:
        gate.close()
    assert list(tmp_path.iterdir()) == []


def test_days_are_closed_an_hour_after_their_end() -> None:
    end = archive.bounds_of(DAY)[1]
    assert not exports.is_closed(DAY, end + timedelta(minutes=59))
    assert exports.is_closed(DAY, end + timedelta(hours=1))


def chimata(url: str, cwd: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHIMATA_")}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        cwd=cwd, env={**environment, "PYTHONPATH": root, "CHIMATA_DATABASE_URL": url},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_the_commands(city: City, tmp_path: Path) -> None:
    city.send(decoded(("a", "speed-kn", START, 1.0), ("a", "speed-kn", START + DAY_US, 2.0)))
    now = from_datetime(datetime.now().astimezone())
    city.send(decoded(("a", "speed-kn", now, 3.0)))
    out = str(tmp_path / "out")
    span = ("--sector", "edge", "--from", "2025-03-04", "--to", "2025-03-06")
    done = chimata(city.url, tmp_path, "export", *span, "--out", out, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    days = json.loads(done.stdout)["days"]
    assert [(d["day"], d["status"], d["rows"]) for d in days] == [
        ("2025-03-04", "written", 1),
        ("2025-03-05", "written", 1),
    ]
    done = chimata(city.url, tmp_path, "export", "--out", out, "--to", "2025-03-08")
    assert done.returncode == 0
    assert "edge 2025-03-05: unchanged, 1 rows" in done.stdout
    done = chimata(city.url, tmp_path, "import", "archive", out, "--json")
    assert json.loads(done.stdout) == {
        "kind": "archive", "days": 2, "found": 2, "stored": 0, "duplicate": 2, "refused": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--sector", "nowhere", "--out", "out"),
        ("export", "--sector", "edge", "--out", "out", "--from", "yesterday"),
        ("import", "nothing", "x"),
        ("import", "archive", "missing"),
    ],
)
def test_errors_of_the_commands(
    arguments: tuple[str, ...], module_database_url: str, tmp_path: Path
) -> None:
    done = chimata(module_database_url, tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1


def test_retention_drops_only_what_is_archived(city: City) -> None:
    """A late row between the export and the drop stops the drop; personal sectors do not."""
    settings = Settings(database_url=city.url, archive=str(city.folder), retention="1d")
    archivist = Archivist(settings)
    city.send(decoded(("a", "speed", START, 1.0)))
    until = archivist.prepare(city.session, datetime.now(UTC) - timedelta(days=1))
    assert len(city.rows()) == 1
    assert archivist.holds(city.session, until)
    city.session.rollback()

    city.send(decoded(("a", "speed", START + 1, 2.0)))
    assert not archivist.holds(city.session, until)
    city.session.rollback()
    archivist.prepare(city.session, until)
    assert len(city.rows()) == 2

    with psycopg.connect(city.url, autocommit=True) as other:
        assert archivist.holds(city.session, until)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("SET lock_timeout = '100ms'")
            other.execute("UPDATE sector_log SET append_id = append_id + 1")
    city.session.rollback()


def test_the_ingestors_upkeep_archives_and_then_drops(city: City) -> None:
    settings = Settings(database_url=city.url, archive=str(city.folder), retention="1d")
    city.send(decoded(("a", "speed", START, 1.0)))
    while Worker().run(city.session):
        pass  # retention waits for the rollups
    stopping = threading.Event()
    keeper = Maintainer(settings, stopping)
    keeper.start()
    try:
        until_(lambda: city.stored() == 0, 60)
    finally:
        stopping.set()
        keeper.join(30)
    assert [row[0] for row in city.rows().values()] == [1.0]


def test_an_archive_that_cannot_be_written_keeps_everything(city: City) -> None:
    """The folder is a file: nothing is dropped, and the upkeep goes on."""
    city.folder.write_bytes(b"")
    settings = Settings(database_url=city.url, archive=str(city.folder), retention="1d")
    city.send(decoded(("a", "speed", START, 1.0)))
    archivist = Archivist(settings)
    with pytest.raises(OSError, match="archive"):
        archivist.prepare(city.session, datetime.now(UTC) - timedelta(days=1))
    keeper = Maintainer(settings, threading.Event())
    keeper._retain(city.session)
    assert city.stored() == 1
