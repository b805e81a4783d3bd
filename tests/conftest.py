"""Fixtures that every test may use; the heavy ones start once a session and only when asked for."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest_plugins = ["tests.databases", "tests.kafka_server", "tests.platform"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Logs that quote half a surrogate pair, as hostile messages hold, can be handed over too."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's own folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings of real devices, never copied here: CHIMATA_TEST_DATA or ../shared/data."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("CHIMATA_TEST_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; point CHIMATA_TEST_DATA at them")
    return folder
