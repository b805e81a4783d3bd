"""The rules of the house: layout, imports, packaging, style and what is documented."""

import ast
import configparser
import re
import subprocess
import sys
import tokenize
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PACKAGES = ("core", "consent", "domains", "ingest", "api", "gateways", "deploy")
TOP_LEVEL = {
    *PACKAGES, "benchmarks", "docs", "tests", ".ci",
    ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    "SECURITY.md", "pyproject.toml", "requirements.lock", "requirements-dev.lock",
}  # fmt: skip
SECTOR_FILES = {
    "__init__.py", "sector.py", "decode.py", "wire.py", "rules.py", "queries.py", "schemas.py",
    "routes.py", "README.md",
}  # fmt: skip
SECTOR_FOLDERS = {"migrations", "examples"}

FILE_BYTES_MAX = 512 * 1024
FILE_LINES_MAX = 600
CODEC_LINES_MAX = 900  # a wire.py is one standard's codec and may import nothing of ours
FUNCTION_LINES_MAX = 70
LOCKS = ("requirements.lock", "requirements-dev.lock")


def tracked() -> list[Path]:
    """Every file of the repository: committed or about to be, never an ignored one."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    return sorted({p for name in listed.split("\0") if name and (p := ROOT / name).is_file()})


FILES = tracked()
PYTHON = [
    path for path in FILES
    # An empty __init__.py says all there is to say of a folder of tests.
    if path.suffix == ".py" and not (path.name == "__init__.py" and not path.stat().st_size)
]  # fmt: skip
SHIPPED = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in PACKAGES]


def name(path: Path) -> str:
    """A file's path in the repository, for messages."""
    return str(path.relative_to(ROOT))


def test_layout() -> None:
    """Nothing lives at the top but what ARCHITECTURE names."""
    assert {p.relative_to(ROOT).parts[0] for p in FILES} - TOP_LEVEL == set()


def sector_folders() -> list[Path]:
    return sorted({p.parent for p in SHIPPED if p.parent.parent == ROOT / "domains"})


@pytest.mark.parametrize("folder", sector_folders(), ids=lambda p: p.name)
def test_sector_has_the_same_file_names(folder: Path) -> None:
    """A sector's files are the plug-in interface: all there; helpers of its own may be beside."""
    inside = {p.relative_to(folder).parts for p in FILES if folder in p.parents}
    assert SECTOR_FILES - {parts[0] for parts in inside if len(parts) == 1} == set()
    folders = {parts[0] for parts in inside if len(parts) > 1} - SECTOR_FOLDERS
    assert [name for name in folders if not (folder / name / "__init__.py").is_file()] == []


def test_import_contracts() -> None:
    """Layers, independent sectors, and who may speak to the database."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_names_sectors_by_wildcard() -> None:
    """A new sector must not need a line in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    named = [folder.name for folder in sector_folders() if f"domains.{folder.name}" in text]
    assert named == []


def test_wheel_holds_our_packages_and_no_tests(tmp_path: Path) -> None:
    """The wheel: the seven packages by name, typed, with SQL and pages, without tests."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (n for n in names if n.endswith("entry_points.txt"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(entry_points).decode())
    tops = {n.partition("/")[0] for n in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [n for n in names if "/tests/" in n or "node_modules" in n or "__pycache__" in n]
    assert "core/py.typed" in names
    if (ROOT / "api/web/dist/index.html").is_file():
        assert "api/web/dist/index.html" in names
    assert any(n.startswith("core/migrations/") for n in names)
    assert scripts["console_scripts"]["chimata"] == "deploy.cli:main"


def test_no_other_distribution_owns_our_names() -> None:
    """The price of a flat layout is generic names: nobody else here may have them."""
    owners = packages_distributions()
    taken = {top: set(owners.get(top, ())) - {"chimata"} for top in PACKAGES}
    assert not {top: others for top, others in taken.items() if others}
    for package in PACKAGES:
        module = __import__(package)
        assert module.__file__ is not None
        assert Path(module.__file__).is_relative_to(ROOT), module.__file__


def pins(lock: str) -> dict[str, str]:
    """Name -> version of a lock file."""
    found = re.findall(
        r"^([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==(\S+)", (ROOT / lock).read_text(), re.M
    )
    return {canonicalize_name(package): version for package, version in found}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_and_no_address(lock: str) -> None:
    """Every pin has a hash; which mirror serves it is the machine's business."""
    text = (ROOT / lock).read_text("utf-8")
    assert not re.search(r"://|--(extra-)?index-url|--find-links|@ |\.(org|com|io|net)\b", text)
    blocks = re.split(r"\n(?=\S)", text.strip())
    unhashed = [b.splitlines()[0] for b in blocks if not b.startswith("#") and "sha256:" not in b]
    assert unhashed == []


def test_lock_satisfies_pyproject() -> None:
    """`make lock` was run after the last change of a dependency."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    runtime, development = pins(LOCKS[0]), pins(LOCKS[1])
    for text in about["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(runtime[canonicalize_name(wanted.name)]), text
    for text in (*about["dependencies"], *about["optional-dependencies"]["dev"]):
        wanted = Requirement(text)
        assert wanted.specifier.contains(development[canonicalize_name(wanted.name)]), text
    assert {n: v for n, v in runtime.items() if development.get(n) != v} == {}


def test_no_registry_is_named() -> None:
    """Packages come through the machine's own clients: no file says from which host."""
    host = re.compile(
        rb"//[^\s\"'/]*\b(registry|pypi|pythonhosted|npmjs|yarnpkg|maven|sonatype|crates|debian)\b[^\s\"'/]*"
    )
    named = [f"{name(p)}: {m[0]!r}" for p in FILES if (m := host.search(p.read_bytes()))]
    assert named == []


def imported(path: Path) -> set[str]:
    """Top-level names of every absolute import of a file, also those inside functions."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    whole = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    parts = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
    return {module.partition(".")[0] for module in whole | parts}


def test_every_import_is_a_declared_dependency() -> None:
    """What we import we declare: a dependency's dependency may leave with its next version."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in about["dependencies"]}
    owners = packages_distributions()
    foreign = {
        (name(path), module)
        for path in SHIPPED
        for module in imported(path) - set(PACKAGES) - sys.stdlib_module_names
    }
    undeclared = {
        (where, module)
        for where, module in foreign
        if not {canonicalize_name(owner) for owner in owners.get(module, ())} & declared
    }
    assert undeclared == set()


def test_licences_of_what_we_depend_on() -> None:
    """Nothing that we install with us is under the GPL or AGPL (the LGPL is fine)."""
    runtime = pins(LOCKS[0])
    bad = []
    for distribution in distributions():
        about = distribution.metadata
        if canonicalize_name(about["Name"]) not in runtime:
            continue
        words = [about.get("License-Expression") or "", (about.get("License") or "")[:200]]
        words += [c for c in about.get_all("Classifier") or () if c.startswith("License")]
        if any(re.search(r"(?<!L)(?<!Lesser )\bA?GPL|Affero", word) for word in words):
            bad.append(f"{about['Name']}: {words}")
    assert bad == []


def test_no_large_file() -> None:
    """Recordings, pictures of pictures and builds do not enter the repository."""
    large = [f"{name(p)}: {p.stat().st_size}" for p in FILES if p.stat().st_size > FILE_BYTES_MAX]
    assert large == []


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_first_line_says_what_the_file_is_for(path: Path) -> None:
    """A sentence, not a title: what one finds here."""
    lines = path.read_text("utf-8").splitlines()
    assert lines, f"{name(path)} is empty: say what it is for"
    assert re.match(r'(r?"""|#!)\S.{14,}', lines[0]), f"{name(path)}:1 {lines[0]!r}"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_fits_a_screen(path: Path) -> None:
    """Files under 600 lines, functions under 70: past that, split."""
    text = path.read_text("utf-8")
    lines, lines_max = len(text.splitlines()), FILE_LINES_MAX
    if path.name == "wire.py":
        lines_max = CODEC_LINES_MAX
    assert lines <= lines_max, f"{name(path)} has {lines} lines, more than {lines_max}"
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


@pytest.mark.parametrize("path", SHIPPED, ids=name)
def test_shipped_code_is_finished(path: Path) -> None:
    """No postponed work and no leftover print; ruff's T20 misses sys.stdout on purpose."""
    marks = [f"{n}: {c}" for n, c in comments(path) if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", c)]
    assert marks == []
    calls = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)]
    prints = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
    assert prints == [], f"{name(path)}: print() at lines {prints}"
    stubs = [
        n.lineno for n in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(n, ast.Name) and n.id == "NotImplementedError"
    ]  # fmt: skip
    assert stubs == [], f"{name(path)}: NotImplementedError at lines {stubs}"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_every_silenced_check_says_why(path: Path) -> None:
    """`noqa` and `type: ignore` name their rule."""
    bare = [
        f"{n}: {c}" for n, c in comments(path)
        if re.search(r"noqa(?!: ?[A-Z]+[0-9]+)|type: ignore(?!\[)", c)
    ]  # fmt: skip
    assert bare == []


ROUTE = re.compile(r'@router\.(get|put|post|delete)\(\s*"(/v1[^"]*)"')


def test_no_two_routes_share_an_address() -> None:
    """The first to be included would answer for both, and the document show one of them."""
    found = [
        (method, re.sub(r"\{[^}]*\}", "{}", path))
        for file in sorted((ROOT / "api").glob("*.py"))
        for method, path in ROUTE.findall(file.read_text())
    ]
    assert len(found) > 30
    assert sorted(found) == sorted(set(found))
