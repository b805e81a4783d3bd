"""Every folder of domains/ keeps the contract: files, declarations, examples, README, bad bytes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi import APIRouter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import domains
from core import clock
from core.formats import DECODERS
from core.sector import COMMON_FORMATS, Context, Sector, all_formats
from core.sensorthings import DataClass, Decoded, ResultKind
from core.units import is_ucum

FILES = (
    "__init__.py",
    "sector.py",
    "wire.py",
    "decode.py",
    "rules.py",
    "queries.py",
    "schemas.py",
    "routes.py",
    "README.md",
)
FORMAT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""A format's name is a topic level, a part of a URL and of a Kafka topic."""
README_WORDS = ("standard", "source", "licence", "lawful basis", "plausible range")
RECEIVED_AT = 1_767_225_600_000_000
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")

every_sector = pytest.mark.parametrize("name", domains.names())


def folder(name: str) -> Path:
    return domains.HERE / name


def native_formats(sector: Sector) -> list[str]:
    return [each for each in sector.formats if each not in COMMON_FORMATS]


def decoder(name: str, format: str) -> Any:
    """`decode(payload, context)` of a native or a common format."""
    if format in native_formats(domains.sector(name)):
        decode = domains.load(name, "decode").decode
        return lambda payload, context: decode(format, payload, context)
    return DECODERS[format]


def test_there_are_sectors() -> None:
    """The rest of this file is about something."""
    assert {"signals", "edge", "ports", "farms"} <= set(domains.names())


@every_sector
def test_files(name: str) -> None:
    """The same file names everywhere, and each says first what it is for."""
    assert [file for file in FILES if not (folder(name) / file).is_file()] == []
    for path in folder(name).glob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


@every_sector
def test_wire_stands_alone(name: str) -> None:
    """Codecs import nothing of ours: gateways and simulators use them too."""
    ours = {"core", "consent", "domains", "ingest", "api", "gateways", "deploy"}
    tree = ast.parse((folder(name) / "wire.py").read_text("utf-8"))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {module.partition(".")[0] for module in imported} & ours == set()
    relative = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert relative == []


@every_sector
def test_declaration(name: str) -> None:
    """Named like its folder, titled in both languages, with a colour and known formats."""
    sector = domains.sector(name)
    assert sector.name == name
    assert isinstance(sector.data_class, DataClass)
    assert JAPANESE.search(sector.title_ja)
    assert JAPANESE.search(sector.thing_title_ja)
    assert sector.title_en.isascii()
    assert sector.thing_title_en not in ("", "Thing")
    assert re.fullmatch(r"#[0-9a-f]{6}", sector.colour)
    assert all(FORMAT.fullmatch(each) for each in all_formats(sector))


@every_sector
def test_properties(name: str) -> None:
    """Unique names without an instance, both titles, a UCUM unit, a range or a vocabulary."""
    sector = domains.sector(name)
    names = [declared.name for declared in sector.properties]
    assert len(names) == len(set(names)) > 0
    for declared in sector.properties:
        assert re.fullmatch(r"[a-z][a-z0-9.-]*", declared.name)
        assert declared.title_ja, declared.name
        assert declared.title_en, declared.name
        assert declared.title_en.isascii(), declared.name
        assert is_ucum(declared.unit), (declared.name, declared.unit)
        assert bool(declared.vocabulary) == (declared.kind is ResultKind.CATEGORY), declared.name
        assert len(set(declared.vocabulary)) == len(declared.vocabulary)
        if declared.minimum is not None and declared.maximum is not None:
            assert declared.minimum < declared.maximum, declared.name


@every_sector
def test_units_parse_with_ucumvert(name: str) -> None:
    """By the UCUM grammar itself, not only by our own check of it."""
    from ucumvert import get_ucum_parser

    parser = get_ucum_parser()
    for declared in domains.sector(name).properties:
        parser.parse(declared.unit)


@every_sector
def test_numbers_have_a_plausible_range(name: str) -> None:
    """A bound at least: nothing that is measured is below the ground of its scale."""
    numbers = [each for each in domains.sector(name).properties if each.kind == ResultKind.NUMBER]
    assert [each.name for each in numbers if each.minimum is None] == []
    assert [
        each.name
        for each in numbers
        if each.maximum is not None and each.minimum is not None and each.minimum >= each.maximum
    ] == []


@every_sector
def test_modules_of_the_plug_in(name: str) -> None:
    """decode() and derive() take what the pipeline gives them; routes is a router."""
    rules = domains.load(name, "rules")
    empty = Decoded()
    assert rules.derive(empty) == empty
    assert isinstance(domains.load(name, "routes").router, APIRouter)
    assert callable(domains.load(name, "decode").decode)
    queries = domains.load(name, "queries")
    constants = [
        value for key, value in vars(queries).items() if key.isupper() and isinstance(value, str)
    ]
    for query in constants:
        assert "%(classes)s" in query or "SELECT" not in query


@every_sector
def test_readme(name: str) -> None:
    """Which standards, from where, under which licence, on what lawful basis."""
    text = (folder(name) / "README.md").read_text("utf-8")
    assert text.startswith("# ")
    missing = [word for word in README_WORDS if word not in text.lower()]
    assert missing == []
    assert [format for format in native_formats(domains.sector(name)) if format not in text] == []


def examples() -> list[tuple[str, Path]]:
    return [
        (name, path)
        for name in domains.names()
        for path in sorted((folder(name) / "examples").glob("*"))
        if path.suffix != ".json" or path.name.count(".") == 1
    ]


@every_sector
def test_every_native_format_has_an_example(name: str) -> None:
    """Except formats that exist in files only: a gateway turns them into another one."""
    wanted = set(native_formats(domains.sector(name))) - {"cm-script"}
    assert wanted <= {path.suffix[1:] for sector, path in examples() if sector == name}


def payload_of(path: Path) -> bytes:
    """The bytes on the wire: J2735 is a line of hex in files."""
    payload = path.read_bytes()
    if path.suffix == ".j2735" and re.fullmatch(rb"[0-9A-Fa-f\s]+", payload):
        return bytes.fromhex(payload.decode())
    return payload


@pytest.mark.parametrize(("name", "path"), examples(), ids=lambda v: getattr(v, "name", v))
def test_example_decodes_to_what_it_says(name: str, path: Path) -> None:
    """NAME.<format> beside NAME.<format>.json: counts, reasons, and every observation."""
    expected = orjson.loads(path.with_name(path.name + ".json").read_bytes())
    context = Context("example", RECEIVED_AT)
    decoded: Decoded = decoder(name, path.suffix[1:])(payload_of(path), context)
    assert decoded.messages == expected["messages"]
    assert decoded.unchanged == expected["unchanged"]
    assert sorted(r.reason for r in decoded.rejected) == sorted(expected["rejected"])
    ours = sorted(observations(domains.sector(name), decoded), key=place)
    theirs = sorted(expected["observations"], key=place)
    assert [place(each) for each in ours] == [place(each) for each in theirs]
    for got, wanted in zip(ours, theirs, strict=True):
        assert wanted["unit"] in (got["unit"], None), wanted  # null: the declared unit
        assert_same(got["result"], wanted["result"], wanted)


def place(observation: dict[str, Any]) -> tuple[str, str, int]:
    time = clock.parse_iso(observation["phenomenon_time"])
    return (observation["thing"], observation["property"], time)


def assert_same(got: Any, wanted: Any, where: Any) -> None:
    """Equal, numbers to a millionth of their size."""
    if isinstance(wanted, dict):
        assert isinstance(got, dict), where
        assert got.keys() == wanted.keys(), where
        for key, value in wanted.items():
            assert_same(got[key], value, where)
    elif isinstance(wanted, int | float) and not isinstance(wanted, bool):
        assert got == pytest.approx(wanted, rel=1e-6, abs=1e-9), where
    else:
        assert got == wanted, where


def observations(sector: Sector, decoded: Decoded) -> Iterator[dict[str, Any]]:
    """Every observation as the examples write it; NaN as null."""
    for columns, results in columns_of(decoded):
        for index, time, result in zip(
            columns.stream.tolist(), columns.phenomenon_time.tolist(), results, strict=True
        ):
            stream = decoded.streams[index]
            declared = sector.by_name.get(stream.base_property)
            yield {
                "thing": stream.thing,
                "property": stream.property,
                "phenomenon_time": clock.to_iso(time),
                "result": result,
                "unit": stream.unit or (declared.unit if declared else "1"),
            }


def columns_of(decoded: Decoded) -> Iterator[tuple[Any, list[Any]]]:
    if decoded.numbers is not None:
        yield decoded.numbers, decoded.numbers.result.tolist()
    if decoded.categories is not None:
        yield decoded.categories, list(decoded.categories.result)
    if decoded.documents is not None:
        yield decoded.documents, [orjson.loads(each) for each in decoded.documents.result]
    if decoded.positions is not None:
        columns = decoded.positions
        fields = {
            "longitude": columns.longitude.tolist(),
            "latitude": columns.latitude.tolist(),
            "speed": columns.speed.tolist(),
            "course": columns.course.tolist(),
        }
        rows = zip(*fields.values(), strict=True)
        yield (
            columns,
            [
                {
                    key: value if value == value else None  # noqa: PLR0124 NaN alone is not itself
                    for key, value in zip(fields, row, strict=True)
                }
                for row in rows
            ],
        )


def check(sector: Sector, decoded: Decoded) -> None:
    """What any decoder must keep to, whatever it was fed."""
    assert 0 <= decoded.unchanged <= decoded.messages
    for rejected in decoded.rejected:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rejected.reason)
        assert rejected.detail
        assert isinstance(rejected.payload, bytes)
    for stream in decoded.streams:
        assert stream.thing.isprintable()
        assert stream.thing
        assert "/" not in stream.thing
        # A table may have columns that nobody declared: stored under a plain name, flagged.
        declared = stream.base_property in sector.by_name
        assert declared or re.fullmatch(r"[\w.-]+", stream.base_property)
        assert stream.unit is None or is_ucum(stream.unit)
    for columns, _ in columns_of(decoded):
        assert columns.stream.max() < len(decoded.streams)
        assert columns.stream.min() >= 0
    if decoded.positions is not None:
        assert (abs(decoded.positions.longitude) <= 180).all()
        assert (abs(decoded.positions.latitude) <= 90).all()


NATIVE = [
    (name, format) for name in domains.names() for format in native_formats(domains.sector(name))
]


@pytest.mark.parametrize(("name", "format"), NATIVE)
@given(payload=st.binary(max_size=400))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_arbitrary_bytes_never_raise(name: str, format: str, payload: bytes) -> None:
    """They are rejected with a reason, or hold nothing."""
    decoded = decoder(name, format)(payload, Context("fuzz", RECEIVED_AT))
    check(domains.sector(name), decoded)


@pytest.mark.parametrize(("name", "path"), examples(), ids=lambda v: getattr(v, "name", v))
@given(changes=st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), max_size=5))
@settings(max_examples=40, deadline=None)
def test_mutated_examples_never_raise(
    name: str, path: Path, changes: list[tuple[int, int]]
) -> None:
    """A few bytes exchanged, anywhere, in one process's memory over many payloads."""
    payload = bytearray(payload_of(path))
    for at, value in changes:
        payload[at % len(payload)] = value
    decode = decoder(name, path.suffix[1:])
    memory: dict[Any, Any] = {}
    for received_at in (RECEIVED_AT, RECEIVED_AT + 120_000_000):
        decoded = decode(bytes(payload), Context("fuzz", received_at, memory))
        if path.suffix[1:] in native_formats(domains.sector(name)):
            check(domains.sector(name), decoded)
