"""The gate: classes by principal, a filter that cannot be forgotten, refusals on record."""

import ast
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from consent import history, queries
from consent.gate import Gate, PermittedConnection
from consent.latest import select_latest
from consent.personal import Question, span_of
from consent.vocabulary import Operation
from core.errors import CityError
from core.sector import Sector
from core.sensorthings import DataClass, ResultKind
from core.settings import Settings
from core.tokens import ANONYMOUS, SCOPES, Principal, Role
from tests.api.city import START, City

OPEN = Sector("harbour", "港", "Harbour", DataClass.OPEN, (), ())
SHARED = Sector("meadow", "畑", "Meadow", DataClass.SHARED, (), ())
PERSONAL = Sector("clinic", "医", "Clinic", DataClass.PERSONAL, (), ())


def principal(role: Role) -> Principal:
    """Someone who signed in."""
    return Principal(role, f"a {role}", None, None, SCOPES[role], 2**40)


EVERYONE = (ANONYMOUS, *map(principal, Role))
READERS = [p for p in EVERYONE if "read:shared" in p.scopes]
OTHERS = [p for p in EVERYONE if "read:shared" not in p.scopes]


@pytest.fixture
def city(database_url: str) -> Iterator[City]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield City(connection)


@pytest.fixture
def gate(database_url: str) -> Iterator[Gate]:
    opened = Gate(Settings(database_url=database_url))
    yield opened
    opened.close()


def keys(gate: Gate, who: Principal, sector: Sector) -> list[str]:
    with gate.reading(who, sector) as connection:
        return [row["key"] for row in queries.select_things(connection, 100)]


@pytest.mark.parametrize("who", EVERYONE, ids=lambda p: p.name)
def test_classes_follow_the_token(gate: Gate, who: Principal) -> None:
    with gate.reading(who, OPEN) as connection:
        expected = ("open", "shared") if who in READERS else ("open",)
        assert connection.classes == expected


def test_a_shared_sector_needs_a_token_that_reads_it(gate: Gate, city: City) -> None:
    city.datastream(city.thing("meadow", "soil"), "moisture", data_class="shared")
    for who in READERS:
        assert keys(gate, who, SHARED) == ["soil"]
    for who in OTHERS:
        with pytest.raises(CityError) as caught:
            keys(gate, who, SHARED)
        assert caught.value.slug == ("unauthenticated" if who is ANONYMOUS else "forbidden")


def test_open_streams_of_a_shared_sector_are_open(gate: Gate, city: City) -> None:
    city.datastream(city.thing("meadow", "closed"), "moisture", data_class="shared")
    city.datastream(city.thing("meadow", "demo"), "moisture", data_class="open")
    for who in OTHERS:
        assert keys(gate, who, SHARED) == ["demo"]
    for who in READERS:
        assert keys(gate, who, SHARED) == ["closed", "demo"]


@pytest.mark.parametrize("data_class", ["personal", "pseudonymised", "anonymised", "typo", ""])
@pytest.mark.parametrize("who", EVERYONE, ids=lambda p: p.name)
def test_other_classes_leave_by_no_query(
    gate: Gate, city: City, who: Principal, data_class: str
) -> None:
    thing = city.thing("harbour", "t", at=(139.0, 35.0), data_class=data_class)
    stream = city.datastream(thing, "heart-rate", data_class=data_class)
    append = city.append("harbour", [(stream, START, 61.0)])
    with gate.reading(who, OPEN) as connection:
        assert queries.select_things(connection, 10) == []
        assert queries.select_thing(connection, "t") is None
        assert queries.count_things(connection) == 0
        assert queries.select_datastreams(connection, thing) == []
        assert b"".join(select_latest(connection, 10).features) == b""
        area = queries.Area(((138.0, 34.0, 140.0, 36.0),))
        assert b"".join(select_latest(connection, 10, "", area).features) == b""
        assert history.select_datastream(connection, "t", "heart-rate") is None
        known = history.Datastream(stream, ResultKind.NUMBER, "1", None)
        everything = history.Span("-infinity", "infinity")
        assert history.select_observations(connection, known, everything, 10) == []
        assert history.first_time(connection, known, everything) is None
        appends = gate.appends("harbour", 0, append, 10)
        assert appends
        assert queries.select_appended(connection, appends, 10) == []


def test_a_thing_shows_only_its_visible_streams_and_place(gate: Gate, city: City) -> None:
    thing = city.thing("harbour", "t", at=(139.0, 35.0), data_class="shared")
    city.datastream(thing, "heading", data_class="open")
    city.datastream(thing, "crew", data_class="personal")
    with gate.reading(ANONYMOUS, OPEN) as connection:
        found = queries.select_thing(connection, "t")
        assert found is not None
        assert found["longitude"] is None
        listed = queries.select_datastreams(connection, found["id"])
        assert [each["property"] for each in listed] == ["heading"]
    with gate.reading(READERS[0], OPEN) as connection:
        found = queries.select_thing(connection, "t")
        assert found is not None
        assert found["longitude"] == 139.0


@pytest.mark.parametrize("who", EVERYONE, ids=lambda p: p.name)
def test_a_personal_sector_is_denied_with_a_record(gate: Gate, city: City, who: Principal) -> None:
    with pytest.raises(CityError) as caught, gate.reading(who, PERSONAL):
        pytest.fail("the gate opened")
    assert caught.value.slug == "forbidden"
    rows = city.connection.execute(
        "SELECT principal, role, sector, outcome, reason FROM audit.decision"
    ).fetchall()
    name = "person/1" if who.role is Role.CITIZEN else who.name  # erasure leaves a number nameless
    assert rows == [(name, who.role, "clinic", "refused", "personal-sector")]


def test_permission_is_denied_by_default_and_on_record(gate: Gate, city: City) -> None:
    """Nobody is a recipient before one is registered, whatever a token says."""
    question = Question(PERSONAL, "dpv:Marketing", "pd:Age", Operation.READ, span_of("", ""), 10)
    for who in EVERYONE:
        with pytest.raises(CityError) as caught:
            gate.disclose(who, question)
        assert caught.value.slug == "forbidden"
    count = city.one("SELECT count(*) FROM audit.decision WHERE purpose = 'dpv:Marketing'")
    assert count == len(EVERYONE)


def test_no_audit_means_no_answer(gate: Gate, city: City) -> None:
    """Where the refusal cannot be recorded, the answer is not even the refusal."""
    city.connection.execute("REVOKE INSERT ON audit.decision FROM chimata_gate")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), gate.reading(ANONYMOUS, PERSONAL):
        pytest.fail("the gate opened")


CHANGES = (
    "UPDATE audit.decision SET outcome = 'permitted'",
    "DELETE FROM audit.decision",
    "TRUNCATE audit.decision",
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "role", ["chimata_gate", "chimata_read", "chimata_ingest", "chimata_audit", "none"]
)
def test_nobody_changes_the_audit_log(gate: Gate, city: City, change: str, role: str) -> None:
    with pytest.raises(CityError), gate.reading(ANONYMOUS, PERSONAL):
        pass
    city.connection.execute(f"SET ROLE {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        city.connection.execute(change.encode())
    city.connection.execute("RESET ROLE")
    assert city.one("SELECT count(*) FROM audit.decision WHERE outcome = 'refused'") == 1


def test_a_query_without_the_filter_does_not_run(gate: Gate) -> None:
    with gate.reading(ANONYMOUS, OPEN) as connection:
        with pytest.raises(ValueError, match="classes"):
            connection.fetch("SELECT * FROM thing")
        for bound in ("classes", "sector", "default_class"):
            with pytest.raises(ValueError, match=bound):
                connection.fetch("SELECT %(classes)s", {bound: ["personal"]})


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_a_text_that_cannot_be_stored_is_the_callers_fault(gate: Gate, text: str) -> None:
    with pytest.raises(CityError) as caught, gate.reading(ANONYMOUS, OPEN) as connection:
        queries.select_thing(connection, text)
    assert caught.value.slug == "invalid"


def test_only_the_gate_makes_connections_and_none_can_be_widened(gate: Gate) -> None:
    with pytest.raises(TypeError):
        PermittedConnection(object(), None, "s", "open", ("personal",), {})  # type: ignore[arg-type]
    with gate.reading(ANONYMOUS, OPEN) as connection:
        with pytest.raises(AttributeError):
            connection.classes = ("open", "personal")
        with pytest.raises(AttributeError):
            del connection.sector


def test_reading_cannot_write(gate: Gate) -> None:
    query = "INSERT INTO gateway (id, data_class) VALUES ('x', %(classes)s::text) RETURNING id"
    with pytest.raises(psycopg.Error) as caught, gate.reading(ANONYMOUS, OPEN) as connection:
        connection.fetch(query)
    assert caught.value.sqlstate in {"25006", "42501"}


def test_readers_have_no_way_into_personal_tables(gate: Gate) -> None:
    query = "SELECT o.* FROM personal.observation o WHERE 'open' = ANY(%(classes)s)"
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        gate.reading(READERS[0], OPEN) as connection,
    ):
        connection.fetch(query)


def test_a_database_that_is_away_is_unavailable() -> None:
    gate = Gate(Settings(database_url="postgresql://x@127.0.0.1:9/none?connect_timeout=1"))
    try:
        with pytest.raises(CityError) as caught:
            gate.check_health()
        assert caught.value.slug == "unavailable"
    finally:
        gate.close()


def test_pool_is_bounded(database_url: str) -> None:
    """With every connection in use the health check waits its time, and says so."""
    gate = Gate(Settings(database_url=database_url, pool_connections_max=2))
    try:
        with ExitStack() as held:
            for _ in range(2):
                held.enter_context(gate.reading(ANONYMOUS, OPEN))
            with pytest.raises(CityError) as caught:
                gate.check_health()
            assert caught.value.slug == "unavailable"
        gate.check_health()
    finally:
        gate.close()


DATABASE = ("psycopg", "psycopg_pool", "core.storage")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def calls(path: Path) -> Iterator[str]:
    """The names of every function called in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                yield function.id
            elif isinstance(function, ast.Attribute):
                yield function.attr


def reaches_database(path: Path) -> bool:
    return any(
        name == part or name.startswith(part + ".") for name in imports(path) for part in DATABASE
    )


def test_no_route_reaches_the_database_but_through_the_gate(root: Path) -> None:
    """Routes, queries and streams import no driver and no storage."""
    checked = [
        *root.glob("api/**/*.py"),
        *root.glob("domains/**/*.py"),
        *root.glob("gateways/**/*.py"),
    ]
    checked = [path for path in checked if "node_modules" not in path.parts]
    assert len(checked) > 10
    assert [str(path) for path in checked if reaches_database(path)] == []
    assert reaches_database(root / "consent" / "gate.py")  # so that the check can fail


def test_only_the_gate_opens_the_reading_roles(root: Path) -> None:
    packages = ("core", "consent", "domains", "ingest", "api", "gateways", "deploy")
    opened = {
        path.relative_to(root).as_posix()
        for package in packages
        for path in (root / package).rglob("*.py")
        if "node_modules" not in path.parts
        for source in [path.read_text("utf-8")]
        if "DatabaseRole.READ" in source or "DatabaseRole.GATE" in source
    }
    assert opened == {"consent/gate.py"}


FILTERS = (
    "data_class = ANY(%(classes)s)",
    "data_classes && %(classes)s",
    "%(default_class)s = ANY(%(classes)s)",
)


def test_every_query_constant_filters_by_class(root: Path) -> None:
    """Every statement that returns rows filters by data class, in the sectors and here."""
    ours = (root / "consent" / f"{name}.py" for name in ("history", "latest", "queries"))
    paths = [*root.glob("domains/*/queries.py"), *ours]
    for path in paths:
        names: dict[str, Any] = {}
        tree = ast.parse(path.read_text("utf-8"))
        kinds = (ast.Assign, ast.Import, ast.ImportFrom)
        wanted: list[ast.stmt] = [node for node in tree.body if isinstance(node, kinds)]
        exec(compile(ast.Module(wanted, []), str(path), "exec"), names)  # the constants alone
        for name, value in names.items():
            if not name.startswith(("SELECT_", "COUNT_")):
                continue
            statements = value.values() if isinstance(value, dict) else [value]
            for statement in statements:
                assert any(each in statement for each in FILTERS), f"{path}: {name}"
