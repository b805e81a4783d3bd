"""What docs/certification.md and its neighbours name exists: tests, addresses of the API, files."""

import ast
import re

import pytest

from api.app import create_app
from core.settings import Settings
from tests.conftest import ROOT

DOCUMENTS = ("certification.md", "circulation.md", "contracts/README.md")
CODE = re.compile(r"`([^`\n]+)`")
ADDRESS = re.compile(r"(?:(GET|PUT|DELETE|POST) )?(/v1/[a-z/{}_]+)")
ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.M)
MET = ("yes", "part", "organisation", "no")


@pytest.fixture(scope="module")
def described() -> dict[str, set[str]]:
    """The methods of each address of the API."""
    paths = create_app(Settings()).openapi()["paths"]
    return {path: {method.upper() for method in methods} for path, methods in paths.items()}


def words(document: str) -> list[str]:
    return CODE.findall((ROOT / "docs" / document).read_text("utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_address_named_is_one_of_the_api(
    document: str, described: dict[str, set[str]]
) -> None:
    named = [match for word in words(document) if (match := ADDRESS.fullmatch(word))]
    assert named
    unknown = [
        match[0]
        for match in named
        if match[2] not in described or (match[1] and match[1] not in described[match[2]])
    ]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_file_and_test_named_exists(document: str) -> None:
    for word in words(document):
        name, _, test = word.partition("::")
        if not re.fullmatch(r"[a-z_/]+(\.py|/)", name):
            continue
        assert (ROOT / name).exists(), word
        if test:
            tree = ast.parse((ROOT / name).read_text("utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert test in functions, word


def test_each_criterion_says_where_it_is_known_from_and_whether_it_is_met() -> None:
    """Numbered without a gap; what is met has a test."""
    rows = ROW.findall((ROOT / "docs/certification.md").read_text("utf-8"))
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, row in rows:
        criterion, known, feature, shown, met = (cell.strip() for cell in row.split(" | "))
        assert criterion, number
        assert known, number
        assert feature, number
        assert met.startswith(MET), number
        if met.startswith(("yes", "part")):
            assert "::test_" in shown, number
