"""Feeds that mean harm, or were made by accident: a clear error or a report, never an exception."""

import io
import zipfile
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import CityError
from domains.mobility.gtfs import checks, days, source, table, values
from domains.mobility.gtfs.convert import Feed, convert
from domains.mobility.gtfs.problems import EXAMPLES_MAX, KINDS, Report
from tests.domains.mobility.feeds import SMALL, TABLES, TODAY, everything, imported, packed
from tests.domains.mobility.test_gtfs_publish import ODD, URL, published
from tests.domains.serving import client_of

FILES = sorted(ODD)
NASTY = [
    *("", " ", "\0", '"', '""', "'", "\n", "\r", ",", "\\", "\u3000", "\ufeff", "😀", "a" * 300),
    *("NULL", "null", "nan", "inf", "-1", "1e999", "9" * 20, "-0", "0x10", "1_0", "١٢", "１"),
    *("25:61:00", "999:00:00", "1000:00:00", "-1:00:00", "20261301", "00000000", "99991231"),
    *("2026-11-23", "{}", "[1]", "%s", "%(version)s", "s1", "t1", "wd", "../../etc/passwd"),
    "'; DROP TABLE mobility.feed; --",
]
text = st.one_of(
    st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)


def read(files: dict[str, Any]) -> tuple[Feed, Report]:
    """Convert and check a feed without a database."""
    report = Report()
    opened = source.open_bytes(packed(files), report, "feed.zip")
    feed = convert(opened, report)
    calendar = days.calendar(
        feed.parts["service"], feed.parts["service_date"], feed.info.get("start"),
        feed.info.get("end"),
    )  # fmt: skip
    checks.check(feed, opened.files.keys(), calendar, TODAY, report)
    return feed, report


def check_report(feed: Feed, report: Report) -> None:
    """Every problem has words, names its file, and is bounded; refused and stored add up."""
    quality = report.quality(feed.found)
    assert 0 <= quality["score"] <= 100
    for problem in quality["problems"]:
        assert KINDS[problem["code"]].en == problem["message_en"]
        assert 0 < len(problem["examples"]) <= min(EXAMPLES_MAX, problem["count"])
        assert all(example["file"] for example in problem["examples"])
    for file, part in (("stops", "stop"), ("trips", "trip"), ("stop_times", "stop_time")):
        assert report.refused[file] + len(feed.parts[part]) == feed.found[f"{file}.txt"]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, str]:
    """ODD with a few cells, columns or rows of its files changed."""
    files = dict(ODD)
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(FILES))
        rows = [line.split(",") for line in files[name].split("\n")]
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(rows[row]) - 1))
        match draw(st.sampled_from(("cell", "cell", "cell", "row", "again", "column", "more"))):
            case "cell":
                rows[row][column] = draw(text)
            case "row":
                del rows[row]
            case "again":
                rows.append(list(rows[row]))
            case "column":
                rows = [each[:column] + each[column + 1 :] for each in rows]
            case "more":
                rows[row] += [draw(text)] * 2
        files[name] = "\n".join(",".join(each) for each in rows)
    return files


@given(mutated())
@settings(max_examples=150, deadline=None)
def test_any_change_of_a_cell_is_survived(files: dict[str, str]) -> None:
    check_report(*read(files))


@given(st.sampled_from(FILES), st.binary(max_size=200))
@settings(max_examples=120, deadline=None)
def test_any_bytes_are_survived(name: str, content: bytes) -> None:
    """In place of any file; and before its own."""
    check_report(*read(ODD | {name: content}))
    check_report(*read(ODD | {name: content + ODD[name].encode()}))


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_damaged_zip_is_an_error_or_a_feed(data: st.DataObject) -> None:
    content = bytearray(packed(SMALL))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for each in (bytes(content), bytes(content[:cut])):
        try:
            opened = source.open_bytes(each, Report(), "feed.zip")
        except CityError as error:
            assert "feed.zip" in str(error)
        else:
            convert(opened, Report())


@given(files=mutated())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_read_can_be_stored_and_published(
    files: dict[str, str], module_database_url: str, tmp_path: Path
) -> None:
    """And what is published says the same; but for what is translated twice, as it is told."""
    first = imported(module_database_url, packed(files), "first")
    with client_of(module_database_url, tmp_path, None) as client:
        answer = client.get(URL.format("first"), params={"version": first.version})
    again = imported(module_database_url, answer.content, "again")
    before, after = (everything(module_database_url, each.version) for each in (first, again))
    told = {each["code"] for each in first.quality["problems"]}
    for each in TABLES:
        if each != "translation" or "duplicate_translation" not in told:
            assert after[each] == before[each]


def test_what_is_published_of_a_broken_feed_is_that_feed(database_url: str, tmp_path: Path) -> None:
    """What was refused is gone; the rest says the same."""
    broken = ODD | {"stop_times.txt": ODD["stop_times.txt"] + "t9,,,s1,1\nt1,,,s2,9\n,,,,\n\n"}
    first = imported(database_url, packed(broken))
    again = imported(database_url, published(database_url, tmp_path, "small"), "again")
    assert first.refused == {"stop_times": 1}
    assert everything(database_url, again.version) == everything(database_url, first.version)


records = st.lists(
    st.lists(st.text("ab ,\"'\n日", max_size=4), min_size=2, max_size=2), min_size=1, max_size=6
)


@given(records)
@settings(deadline=None)
def test_both_readers_of_csv_read_the_same(rows: list[list[str]]) -> None:
    """The fast one and the patient one, of what is well formed."""
    quoted = "\n".join(
        ",".join('"' + value.replace('"', '""') + '"' for value in row) for row in rows
    )
    by_arrow = table._by_arrow(quoted.encode())
    by_hand = table._by_hand("a.txt", quoted, Report())
    if by_arrow is not None:
        assert [c.to_pylist() for c in by_arrow] == [c.to_pylist() for c in by_hand]


@given(st.integers(0, 999 * 3600 + 3599))
def test_times_are_read_as_they_are_written(seconds: int) -> None:
    written = f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    assert values.seconds(written) == seconds


@given(text)
def test_a_reader_of_values_raises_nothing_but_value_errors(value: str) -> None:
    kinds = [k for k in vars(values).values() if isinstance(k, values.Kind)]
    for kind in (*kinds, values.choice(3)):
        if kind.read is not None:
            try:
                kind.read(value)
            except ValueError:
                continue


def test_zips_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs, lies about lengths, too many files, and passwords are errors that say so."""
    bomb = SMALL | {"stop_times.txt": "a" * (source.RATIO_BYTES_MIN + 1)}
    many = SMALL | {f"{n}.txt": "" for n in range(source.FILES_MAX)}
    lying = packed(SMALL)
    size = len(SMALL["stops.txt"].encode())
    lying = lying.replace(size.to_bytes(4, "little"), (size - 9).to_bytes(4, "little"))
    for content, reason in (
        (packed(bomb), "grows more than"),
        (packed(many), "more than 200 files"),
        (lying, "feed.zip"),
    ):
        with pytest.raises(CityError, match=reason):
            source.open_bytes(content, Report(), "feed.zip")
    monkeypatch.setattr(source, "BYTES_MAX", 100)
    with pytest.raises(CityError, match="its files are over"):
        source.open_bytes(packed(SMALL), Report(), "feed.zip")


def test_folders_in_zips_are_no_paths() -> None:
    """One folder that holds the feed is looked into; nothing is ever written anywhere."""
    inside = {f"feed/{name}": content for name, content in SMALL.items()}
    opened = source.open_bytes(
        packed(inside | {"../stops.txt/x": "1", "__MACOSX/feed/stops.txt": "1"}), Report(), "a"
    )
    assert opened.files.keys() == SMALL.keys()
    report = Report()
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        for name, content in [*SMALL.items(), ("STOPS.TXT", "x"), ("readme.pdf", "x")]:
            archive.writestr(name, content)
    opened = source.open_bytes(twice.getvalue(), report, "a")
    assert opened.files["stops.txt"] == SMALL["stops.txt"].encode()
    assert set(report.problems) == {"duplicate_file", "file_not_kept"}


def test_a_folder_is_a_feed_too(tmp_path: Path) -> None:
    for name, content in SMALL.items():
        (tmp_path / name).write_text(content, "utf-8")
    report = Report()
    opened = source.open_source(tmp_path, report)
    assert opened.sha256 == source.open_bytes(packed(SMALL), report, "a").sha256
    with pytest.raises(CityError, match="nowhere"):
        source.open_source(tmp_path / "nowhere", report)


def test_weekday_services_on_holidays_are_told() -> None:
    """Unless calendar_dates.txt takes them out, or the feed is not of Japan."""
    weekdays = {"calendar.txt": SMALL["calendar.txt"].replace("1,1,1,1,1,1,1", "1,1,1,1,1,0,0")}
    _, report = read(SMALL | weekdays)
    assert report.problems["holiday_service"].count == 1
    abroad = {"agency.txt": SMALL["agency.txt"].replace("Asia/Tokyo", "Europe/Vienna")}
    _, report = read(SMALL | weekdays | abroad)
    assert "holiday_service" not in report.problems


def test_days_are_those_that_calendars_say() -> None:
    """Counted by weeks, as one would count them day by day."""
    first, last = date(2026, 3, 30), date(2026, 5, 6)
    service = days.Service(
        0b0100101, first, last, frozenset({date(2026, 5, 10)}), frozenset({first, date(2026, 4, 1)})
    )
    listed = [first + days.DAY * n for n in range(60) if service.runs(first + days.DAY * n)]
    assert service.running() == days.Running(len(listed), listed[0], listed[-1])


def test_a_deflated_stream_that_breaks_is_told() -> None:
    content = bytearray(packed(SMALL))
    start = content.find(b"stops.txt") + 12
    content[start : start + 20] = zlib.compress(b"")[:8] * 3
    with pytest.raises(CityError, match=r"feed\.zip"):
        source.open_bytes(bytes(content), Report(), "feed.zip")
