"""Breaks each rule of consent on purpose, and says whether its test goes red: make mutations.

tests/mutations.toml is the record: what is replaced in which file, and the test that must fail.
Each runs in a copy of the tree, with this tree's packages.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORDINGS = ROOT.parent / "shared" / "data"
"""Where this tree's tests look for recordings: a copy has no such neighbour."""
RECORD = Path(__file__).with_suffix(".toml")
SECONDS_MAX = 600
FAILED = 1
"""What pytest ends with where tests ran and failed; not where they could not be run."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One rule broken: `find`, which `file` has exactly once, becomes `replace`."""

    property: int
    broken: str
    file: str
    find: str
    replace: str
    test: str

    def apply(self, tree: Path) -> None:
        """Break the rule in a copy of the tree; ValueError where there is no such text."""
        path = tree / self.file
        text = path.read_text()
        if text.count(self.find) != 1:
            raise ValueError(f"{self.file} has {text.count(self.find)} times: {self.find}")
        path.write_text(text.replace(self.find, self.replace))


def recorded() -> list[Mutation]:
    """Every mutation of the record, by property."""
    told = tomllib.loads(RECORD.read_text())["mutation"]
    return sorted((Mutation(**each) for each in told), key=lambda m: (m.property, m.broken))


def is_noticed(mutation: Mutation) -> bool:
    """Whether the test fails in a tree where the rule is broken, and passes nothing on."""
    with tempfile.TemporaryDirectory(prefix="chimata-mutation-") as folder:
        tree = Path(folder) / "main"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
        mutation.apply(tree)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test],
            check=False,
            cwd=tree,
            env={"CHIMATA_TEST_DATA": str(RECORDINGS), **os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            timeout=SECONDS_MAX,
        )
    return done.returncode == FAILED


def lines(chosen: set[int]) -> Iterator[tuple[bool, str]]:
    """For each mutation of these properties (of all, if none is named), what came of it."""
    for mutation in recorded():
        if not chosen or mutation.property in chosen:
            noticed = is_noticed(mutation)
            word = "noticed" if noticed else "SURVIVED"
            yield noticed, f"{mutation.property:>2}  {word}  {mutation.broken}  [{mutation.test}]"


def main() -> int:
    """Try them; 1 where a broken rule went unnoticed."""
    survived = 0
    for noticed, line in lines({int(each) for each in sys.argv[1:]}):
        print(line, flush=True)
        survived += not noticed
    return min(survived, 1)


if __name__ == "__main__":
    sys.exit(main())
