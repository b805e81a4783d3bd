"""What a test needs from the machine: missing is a skip with a reason, and a failure in CI."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

PROGRAMS = {
    "kafka": ("java", "mvn"),
    "mosquitto": ("mosquitto",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "node": ("node",),
}
"""For `kafka` every program is needed; for the others any one of them will do."""


def missing(reason: str) -> NoReturn:
    """Skip with this reason; in CI (CI=true) fail, so that a green run has run everything."""
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(f"CI must have it: {reason}", pytrace=False)
    pytest.skip(reason)


def program(name: str) -> Path:
    """The path of an installed program, found also in /usr/sbin; see `missing` for what else."""
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which(name, path=search)
    return Path(found) if found else missing(f"{name} is not installed")


def require(name: str) -> Path:
    """The program behind a name of PROGRAMS (its first one for kafka), or skip / fail."""
    if name == "kafka":
        java, _maven = (program(each) for each in PROGRAMS["kafka"])
        return java
    for candidate in PROGRAMS[name][:-1]:
        if found := shutil.which(candidate):
            return Path(found)
    return program(PROGRAMS[name][-1])


def timescale_url() -> str:
    """CHIMATA_TEST_TIMESCALE_URL: a superuser's URL of a server that offers timescaledb, or skip.

    It stays a skip in CI too, which has no such server.
    """
    url = os.environ.get("CHIMATA_TEST_TIMESCALE_URL", "")
    if not url:
        pytest.skip("CHIMATA_TEST_TIMESCALE_URL is not set: no server with timescaledb")
    return url
