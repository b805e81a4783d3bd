"""What the documents say is true: settings, errors, links, make targets, and every command runs."""

import ast
import os
import re
import subprocess
import time
from dataclasses import fields
from pathlib import Path

import pytest

from core.errors import KINDS
from core.settings import PREFIX, Settings
from tests.conftest import ROOT
from tests.platform import Platform
from tests.test_house import FILES

DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]+)")
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
DEMO_SECONDS_MAX = 60.0


def table(document: str, columns: int) -> dict[str, list[str]]:
    """Rows of the document's tables that begin with a word in backticks, by that word."""
    rows = {}
    for line in (ROOT / document).read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| \n").split(" | ")]
        if len(cells) == columns and (match := re.fullmatch(r"`([^`]+)`", cells[0])):
            rows[match[1]] = cells[1:]
    return rows


def documented_default(value: object) -> str:
    if value == "":
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def meanings() -> dict[str, str]:
    """The docstring under each field of Settings."""
    tree = ast.parse((ROOT / "core/settings.py").read_text("utf-8"))
    (body,) = (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Settings")
    found, last = {}, ""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and last:
            found[last] = str(node.value.value)
    return found


def settings_rows() -> list[str]:
    """The table of docs/settings.md as the code has it; copy it from here when it differs."""
    text = meanings()
    return [
        f"| `{PREFIX}{f.name.upper()}` | {documented_default(f.default)} "
        f"| {' '.join(text[f.name].split())} |"
        for f in fields(Settings)
    ]


def test_every_setting_is_documented_as_it_is() -> None:
    """Names, defaults and meanings of docs/settings.md are those of the code, and no others."""
    lines = (ROOT / "docs/settings.md").read_text("utf-8").splitlines()
    in_document = [line for line in lines if line.startswith("| `CHIMATA_")]
    assert sorted(in_document) == sorted(settings_rows())


def test_no_other_setting_is_named_anywhere() -> None:
    """A CHIMATA_ word in a document is a setting, or one for tests."""
    known = {PREFIX + f.name.upper() for f in fields(Settings)}
    known |= {"CHIMATA_TEST_DATA", "CHIMATA_TEST_TIMESCALE_URL"}
    used = {
        word: str(path.relative_to(ROOT))
        for path in DOCUMENTS
        for word in re.findall(r"\bCHIMATA_[A-Z_]+[A-Z]\b", path.read_text("utf-8"))
    }
    assert {word: where for word, where in used.items() if word not in known} == {}


def test_every_error_is_documented_as_it_is() -> None:
    """Slugs, statuses and titles of docs/api.md are those of core/errors.py."""
    in_code = {kind.slug: [str(kind.status), kind.title] for kind in KINDS.values()}
    assert table("docs/api.md", 3) == in_code


def test_every_format_is_documented() -> None:
    """docs/ingest.md lists the formats of every sector, and no other but the file-only one.

    A new sector's own formats are told in its README, which test_every_sector reads.
    """
    import domains
    from core.sector import COMMON_FORMATS, all_formats

    taken = {name for each in domains.names() for name in all_formats(domains.sector(each))}
    told = set(table("docs/ingest.md", 3)) - {"stored", "batches"}
    assert set(COMMON_FORMATS) <= told <= taken | {"cm-script"}


def test_every_decision_is_listed() -> None:
    """The index of docs/decisions names each record once."""
    records = {p.name for p in (ROOT / "docs/decisions").glob("0*.md")}
    listed = LINK.findall((ROOT / "docs/decisions/README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(records)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    """Links between documents, and pictures."""
    targets = LINK.findall(path.read_text("utf-8"))
    assert [t for t in targets if not (path.parent / t).exists()] == []


def test_make_help_lists_every_target() -> None:
    """`make help` says what each target does; README names none that does not exist."""
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    listed = set(re.findall(r"make ([a-z-]+)(?:\x1b|\s\s)", told))
    text = (ROOT / "Makefile").read_text("utf-8")
    declared = re.search(r"^\.PHONY:(.*)$", text, re.M)
    assert declared is not None
    assert listed == set(declared[1].split())
    for path in DOCUMENTS:
        code = re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", path.read_text("utf-8"), re.M)
        assert {a or b for a, b in code} <= listed, path.name


def readme_commands() -> list[str]:
    return SHELL.findall((ROOT / "README.md").read_text("utf-8"))


def test_readme_has_commands() -> None:
    """The first look: open data, the live stream, tokens and sending."""
    assert len(readme_commands()) >= 3


@pytest.fixture(scope="module")
def lively(demo: Platform) -> Platform:
    """The demo, once every sector has something to show."""
    import httpx

    token = {"Authorization": f"Bearer {demo.token('operator', '--subject', 'tests')}"}
    deadline = time.monotonic() + DEMO_SECONDS_MAX
    while time.monotonic() < deadline:
        sectors = httpx.get(f"{demo.url}/v1/sectors", headers=token).json()["sectors"]
        # A ship may be known by its name before its first position is.
        ships = httpx.get(f"{demo.url}/v1/ports/latest", params={"bbox": "138,34,139,36"}).json()
        public = [sector for sector in sectors if sector["data_class"] != "personal"]
        if ships["features"] and all(sector["things"] for sector in public):
            return demo
        time.sleep(0.5)
    raise AssertionError(f"after {DEMO_SECONDS_MAX} s: {sectors}")


@pytest.mark.parametrize("number", range(len(readme_commands())))
def test_readme_commands_run(number: int, lively: Platform) -> None:
    """Each block as written, but on this demo's port and folder; every answer is a good one."""
    script = readme_commands()[number].replace("http://127.0.0.1:8000", lively.url)
    # The reader stands in the repository, where `data` is the default folder.
    environment = {**os.environ, "CHIMATA_DATA": str(lively.data)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip(), "the command printed nothing"
    assert "/problems/" not in done.stdout, done.stdout
    if "/v1/live" in script:
        assert "event: observations" in done.stdout
    if "/v1/ports/latest" in script:
        assert '"FeatureCollection"' in done.stdout
        assert '"features":[{' in done.stdout, "no ship where README looks for one"
    if "/v1/ingest/" in script:
        assert '"result":"stored"' in done.stdout


def test_the_commands_of_mobility_run(lively: Platform) -> None:
    """docs/mobility.md as one script: a feed is registered, polled, told of and removed."""
    blocks = SHELL.findall((ROOT / "docs/mobility.md").read_text("utf-8"))
    script = "".join(blocks).replace("http://127.0.0.1:8000", lively.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env={**os.environ, "CHIMATA_DATA": str(lively.data)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/problems/" not in done.stdout
    assert '"id":"neighbour"' in done.stdout
    assert "neighbour is removed" in done.stdout
    assert '"scheduled":"' in done.stdout
    assert '"fares":[' in done.stdout
    assert "OpenStreetMap contributors" in done.stdout


def test_the_walk_through_of_consent_runs(lively: Platform) -> None:
    """docs/consent.md as one script: the clinic reads a value, by a grant and in an emergency."""
    blocks = SHELL.findall((ROOT / "docs/consent.md").read_text("utf-8"))
    script = "".join(blocks).replace("http://127.0.0.1:8000", lively.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env={**os.environ, "CHIMATA_DATA": str(lively.data)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"result":61.0') == 2, done.stdout
    assert done.stdout.count('"observations":[],"next":null}') == 1, done.stdout
    assert done.stdout.count("holds: leaf ") == 1, done.stdout
