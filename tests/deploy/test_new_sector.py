"""A new sector is one command and one folder: it works, and no other file changes."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from core.errors import CityError
from deploy import new_sector
from tests.conftest import ROOT
from tests.platform import running
from tests.test_house import tracked

BIN = Path(sys.executable).parent
LATEST_SECONDS_MAX = 10.0


def run(folder: Path, *command: str) -> str:
    """Run a command in the copy, which must win over the installed tree; its output."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it would be committed, with a new sector `water` in it."""
    folder = tmp_path_factory.mktemp("copy") / "巷 copy"
    for source in tracked():
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    before = contents(folder)
    run(folder, sys.executable, "-m", "deploy.new_sector", "water")
    after = contents(folder)
    assert {n: b for n, b in after.items() if not n.startswith("domains/water/")} == before
    return folder


def test_it_is_installed_by_being_there(copy: Path) -> None:
    """The sector loads from its folder, from the copy and not from here."""
    code = "import domains; print(domains.__file__); print(domains.sector('water').formats)"
    where, formats = run(copy, sys.executable, "-c", code).splitlines()
    assert where == str(copy / "domains" / "__init__.py")
    assert formats == "('csv',)"


def test_it_passes_what_every_sector_passes(copy: Path) -> None:
    """Files, examples, units, README: the same test as for the others."""
    told = run(copy, sys.executable, "-m", "pytest", "-q", "-k", "water", "tests/domains")
    assert " passed" in told
    assert "skipped" not in told


def test_it_passes_the_checks(copy: Path) -> None:
    """Format, lint, types and import contracts, with pyproject.toml as it is."""
    run(copy, str(BIN / "ruff"), "format", "--check", "domains/water")
    run(copy, str(BIN / "ruff"), "check", "domains/water")
    run(copy, str(BIN / "lint-imports"), "--no-cache")
    run(copy, str(BIN / "mypy"), "-p", "domains.water")


def test_it_works_from_the_gateway_to_its_own_words(copy: Path, tmp_path: Path) -> None:
    """The platform of the copy takes the example, accounts for it and answers from it."""
    example = (copy / "domains/water/examples/readings.csv").read_bytes()
    environment = {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    with running(tmp_path / "data", environment=environment) as city:
        sender = {"Authorization": f"Bearer {city.token('gateway', '--gateway', 'well')}"}
        reader = {"Authorization": f"Bearer {city.token('operator', '--subject', 'tests')}"}
        sent = httpx.post(f"{city.url}/v1/ingest/water/csv", content=example, headers=sender)
        assert sent.status_code == 200, sent.text
        (batch,) = sent.json()["batches"]
        assert (batch["received"], batch["stored"], batch["rejected"]) == (8, 5, 3)
        assert httpx.get(f"{city.url}/v1/water/states").status_code == 401
        deadline = time.monotonic() + LATEST_SECONDS_MAX
        while True:
            answer = httpx.get(f"{city.url}/v1/water/states", headers=reader)
            assert answer.status_code == 200, answer.text
            if answer.json()["stations"] or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        states = {each["station"]: each["state"] for each in answer.json()["stations"]}
        assert states == {"station-1": "warning", "station-2": "normal"}


@pytest.mark.parametrize(
    "name", ["", "Water", "9water", "a", "wa ter", "water/x", "import", "live", "../water", "水"]
)
def test_a_name_that_cannot_be_one(name: str, tmp_path: Path) -> None:
    """A sector's name stands in a topic, a URL and an import at once."""
    with pytest.raises(CityError, match="NAME"):
        new_sector.create(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_never_writes_over_a_sector(tmp_path: Path) -> None:
    """A second time is a conflict, and the first one stays."""
    new_sector.create("water", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(CityError, match="already"):
        new_sector.create("water", tmp_path)
    assert contents(tmp_path) == before
