"""Every benchmark runs, at a hundredth of its size: what is measured works and gives numbers.

No time is held against its goal here: that is `make bench` on a quiet machine.
"""

import math
from importlib import import_module

import pytest

from benchmarks.__main__ import README, names, recorded
from benchmarks.result import Result
from tests.require import require

SCALE = 0.01
SMALLER = {"races": 0.001, "worlds": 0.002}
"""tests/api/test_consent_{races,worlds}.py run the hundredth of these."""

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", names())
def test_a_hundredth_gives_finite_results(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    for program in getattr(module, "NEEDS", ()):
        require(program)
    returned = module.run(scale=SMALLER.get(name, SCALE))
    results = [returned] if isinstance(returned, Result) else list(returned)
    assert results
    for result in results:
        assert math.isfinite(result.value) and result.unit, result
        assert result.ratio is None or (math.isfinite(result.ratio) and result.ratio_to), result
        assert result.spread is None or all(map(math.isfinite, result.spread)), result
    assert len({result.name for result in results}) == len(results)


def test_readme_tells_what_is_recorded() -> None:
    text = README.read_text("utf-8")
    assert recorded() in text
    assert all(f"| `{name}` |" in text for name in names())
