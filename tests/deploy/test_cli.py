"""The `chimata` command as people run it: real processes, exit codes, one clear line on errors."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import tokens
from deploy import local, postgres
from tests.domains.mobility.feeds import SMALL, packed


def chimata(*arguments: str, cwd: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHIMATA_")}
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2]), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder as `chimata up` leaves it: a migrated database and keys."""
    from core.storage.migrate import migrate

    folder = tmp_path_factory.mktemp("cli") / "データ folder"
    server = postgres.start(folder / "postgres", options={"fsync": "off"})
    migrate(server.url)
    server.stop()
    tokens.load_keys(folder / "keys", create=True)
    yield folder


def test_help_names_every_command(tmp_path: Path) -> None:
    text = chimata("--help", cwd=tmp_path).stdout
    for command in ("up", "migrate", "serve", "ingest", "gateway", "account", "token", "sectors",
                    "doctor", "fields", "export", "import"):  # fmt: skip
        assert f" {command} " in text
    assert "end-with-parent" not in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nothing"], 2),
        (["token", "issue"], 2),
        (["token", "issue", "--role", "mayor"], 2),
        (["gateway", "replay", "--sector", "ports"], 2),
        (["account", "--data", "missing"], 1),
        (["token", "issue", "--role", "operator", "--data", "missing"], 1),
        (["up", "--http", "nowhere", "--data", "d"], 1),
        (["up", "--mqtt", "127.0.0.1:70000", "--data", "d"], 1),
        (["migrate"], 1),
    ],
)
def test_errors_have_their_exit_code(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = chimata(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("chimata: ")


def test_a_bad_setting_names_its_variable(tmp_path: Path) -> None:
    done = chimata("up", cwd=tmp_path, CHIMATA_BODY_BYTES_MAX="many")
    assert (done.returncode, done.stdout) == (1, "")
    assert "CHIMATA_BODY_BYTES_MAX" in done.stderr


def test_an_unreachable_database_is_one_line(tmp_path: Path) -> None:
    done = chimata("migrate", cwd=tmp_path, CHIMATA_DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_stands_alone_on_standard_output(data: Path, tmp_path: Path) -> None:
    done = chimata(
        "token", "issue", "--role", "gateway", "--gateway", "pier-7", "--data", str(data),
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    keys = tokens.load_keys(data / "keys")
    principal = tokens.Verifier(keys.signing).verify(done.stdout.strip())
    assert (principal.role, principal.gateway) == (tokens.Role.GATEWAY, "pier-7")


@pytest.mark.parametrize("gateway", ["*", "a b", "A", "", "x" * 65, "../x"])
def test_a_gateway_name_with_wildcards_gets_no_token(
    gateway: str, data: Path, tmp_path: Path
) -> None:
    done = chimata(
        "token", "issue", "--role", "gateway", "--gateway", gateway, "--data", str(data),
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "gateway" in done.stderr


def test_a_citizen_needs_a_subject(data: Path, tmp_path: Path) -> None:
    done = chimata("token", "issue", "--role", "citizen", "--data", str(data), cwd=tmp_path)
    assert done.returncode == 1
    assert "subject" in done.stderr


def test_account_starts_the_database_for_the_moment(data: Path, tmp_path: Path) -> None:
    done = chimata("account", "--json", "--data", str(data), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"sources": []}
    assert not (data / "postgres" / "cluster" / "postmaster.pid").exists()


def test_account_of_the_running_one_shares_it(data: Path, tmp_path: Path) -> None:
    server = postgres.start(data / "postgres", options={"fsync": "off"})
    try:
        done = chimata("account", "--json", "--data", str(data), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.is_alive()
    finally:
        server.stop()


def test_migrate_twice_does_nothing_the_second_time(data: Path, tmp_path: Path) -> None:
    done = chimata("migrate", "--data", str(data), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "the database is up to date\n"), done.stderr


def test_sectors_are_what_is_installed(tmp_path: Path) -> None:
    import domains

    listed = json.loads(chimata("sectors", "--json", cwd=tmp_path).stdout)["sectors"]
    assert tuple(sector["name"] for sector in listed) == domains.names()
    table = chimata("sectors", cwd=tmp_path)
    assert table.returncode == 0
    assert all(name in table.stdout for name in domains.names())


def test_doctor_says_what_to_mend(data: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        http = f"127.0.0.1:{taken.getsockname()[1]}"
        (data / "keys" / "signing.jwk").chmod(0o644)
        try:
            done = chimata("doctor", "--data", str(data), cwd=tmp_path, CHIMATA_HTTP=http)
        finally:
            (data / "keys" / "signing.jwk").chmod(0o600)
    lines = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "bad HTTP port" in lines
    assert "--http" in lines
    assert "bad data folder" in lines
    assert "chmod 600" in lines
    assert "ok PostgreSQL binaries: postgres (PostgreSQL) 18" in lines
    assert "ok MQTT broker binary: nats-server" in lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:1883", ("::1", 1883)), ("h:1", ("h", 1))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert local.resolve_address(text, "--http") == expected


def test_port_0_is_a_free_port() -> None:
    assert local.resolve_address("127.0.0.1:0", "--http")[1] > 0


def test_an_import_makes_the_data_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """A timetable can be in before the city runs, and what was in is recognised."""
    feed, data = tmp_path / "small.zip", tmp_path / "new" / "data"
    feed.write_bytes(packed(SMALL))
    arguments = ("import", "gtfs", str(feed), "--json", "--data", str(data))
    first, again = (chimata(*arguments, cwd=tmp_path) for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert [json.loads(run.stdout)["known"] for run in (first, again)] == [False, True]
    assert postgres.running_url(data / "postgres") is None, "it was started for the moment"
