"""The next hour of a station: never worse than its last count, and nothing known beforehand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import gbfs_forecast
from domains.mobility.gbfs import forecast as f

DAY = 86_400
START = 1_700_000_000 // DAY * DAY


def daily(days: int, noise: float = 0.0) -> tuple[f.Int64, f.Float64]:
    """A station that empties each morning and fills each evening, counted every three minutes."""
    times = np.arange(START, START + days * DAY, 180)
    hour = (times % DAY) / 3600
    counts = 20 - 18 * np.exp(-(((hour - 12) / 3) ** 2))
    rng = np.random.default_rng(7)
    return times, np.clip(np.rint(counts + noise * rng.normal(size=len(times))), 0, 20)


def test_a_habit_is_learned() -> None:
    """After two weeks of the same day the profile is told, and errs less than the last count."""
    times, counts = daily(14, noise=1.5)
    morning = np.searchsorted(times, START + 13 * DAY + 10 * 3600)
    made = f.forecast(times[:morning], counts[:morning], int(times[morning - 1]))
    assert (made.model[2:] > 0).all()
    assert (made.mae < 0.95 * made.mae_persistence)[2:].all()
    assert made.counts[-1] < counts[morning - 1]


@settings(max_examples=40, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 20_000), min_size=1, max_size=400),
    seed=st.integers(0, 2**16),
    capacity=st.sampled_from([0.0, 5.0, np.inf]),
)
def test_any_history_is_answered(gaps: list[int], seed: int, capacity: float) -> None:
    """Finite counts within what the station holds, and no error above that of persistence."""
    times = START + np.cumsum(gaps)
    counts = np.random.default_rng(seed).integers(0, 6, len(times)).astype(np.float64)
    made = f.forecast(times, counts, int(times[-1]), 32_400, capacity)
    assert np.isfinite(made.counts).all()
    assert (made.counts >= 0).all()
    assert (made.counts <= (capacity or np.inf)).all()
    known = np.isfinite(made.mae)
    assert (made.mae[known] <= made.mae_persistence[known]).all()
    assert (known == np.isfinite(made.mae_persistence)).all()


def test_what_comes_later_changes_no_earlier_error() -> None:
    """Errors of the first days are the same whatever the last one brought."""
    times, counts = daily(6, noise=2.0)
    cut = np.searchsorted(times, START + 5 * DAY)
    strange = counts.copy()
    strange[cut:] = 0
    first, grid = f.gridded(times, counts, int(times[-1]))
    _, other = f.gridded(times, strange, int(times[-1]))
    until = 5 * f.DAY_STEPS - f.WARM_STEPS - f.HORIZONS - 1
    told, _, _ = f.judged(grid, first, 0)
    again, _, _ = f.judged(other, first, 0)
    np.testing.assert_array_equal(told[:until], again[:until])


def test_counts_at_full_steps_are_the_newest_then() -> None:
    """Nothing of the future, and nothing that is older than an hour."""
    times = np.array([START + 10, START + 590, START + 601, START + 9_000])
    first, grid = f.gridded(times, np.array([1.0, 2.0, 3.0, 4.0]), START + 9_600)
    assert first == START // 600 + 1
    assert grid[:2].tolist() == [2.0, 3.0]
    assert np.isnan(grid[7:14]).all()
    assert grid[14:].tolist() == [4.0, 4.0]


@pytest.mark.shared_data
def test_the_recorded_stations_are_forecast_no_worse_than_by_their_last_count(
    shared_data: Path,
) -> None:
    """docomo's four, in January 2023: 944 counts each, judged by rolling origin."""
    histories = gbfs_forecast.histories(shared_data / "gbfs/docomo-cycle-tokyo")
    assert sorted(map(len, (counts for _, counts in histories.values()))) == [944] * 4
    for times, counts in histories.values():
        made = f.forecast(times, counts, int(times[-1]), 32_400)
        assert made.judged > 200
        assert (made.mae <= made.mae_persistence).all()
    assert json.dumps(made.counts.tolist())
