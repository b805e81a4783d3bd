"""How many vehicles a station will have in the next hour, with what that is worth. Pure numpy.

A forecast is the last count (persistence), drawn towards the station's profile of the day or moved
as that profile moves, by a weight of each horizon. Which is chosen as time passes: at each step
what would have erred least until then, and persistence unless it was clearly beaten. So every error
that is told is one of a forecast that knew nothing of what came after it (rolling origin).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

STEP_SECONDS = 600
HORIZONS = 6
DAY_STEPS = 86_400 // STEP_SECONDS
GAP_STEPS_MAX = 6
"""A count that is older than an hour says nothing of now."""
DRAWN = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 0.0, 0.0, 0.0, 0.0])
MOVED = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.4, 0.7, 1.0, 1.3])
"""Weights that are tried: towards the profile, and as it moves; the first is persistence."""
WIDTH_STEPS = 6
"""The profile of a time of day is of what was seen within an hour of it."""
PRIOR_STEPS = 36.0
"""As many observations as the mean of all counts stands for in a profile of few days."""
WARM_STEPS = DAY_STEPS // 2
"""Nothing is forecast of a station that has been seen for less than half a day."""
JUDGED_MIN = 72
"""Forecasts that must have been judged before anything but persistence is told."""
BETTER_BY = 0.02


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next HORIZONS steps: counts, and by horizon the mean absolute errors so far.

    `model` is by horizon which of the weights is used, 0 is persistence. `mae` is of what was told,
    `mae_persistence` of the last count; NaN where nothing was judged yet. `judged` is how many
    forecasts of the first horizon were.
    """

    counts: Float64
    mae: Float64
    mae_persistence: Float64
    model: Int64
    judged: int


def gridded(times: Int64, counts: Float64, until: int) -> tuple[int, Float64]:
    """Counts at each full step up to `until` (s since 1970): the newest one at that time.

    Returns the first step's number since 1970 and the counts; NaN where the newest is too old.
    `times` ascend.
    """
    first, last = -(-int(times[0]) // STEP_SECONDS), until // STEP_SECONDS
    steps = np.arange(first, last + 1)
    if not len(steps):
        return first, np.empty(0)
    newest = np.searchsorted(times, steps * STEP_SECONDS, side="right") - 1
    age = steps * STEP_SECONDS - times[newest]
    grid = counts[newest].astype(np.float64)
    grid[age > GAP_STEPS_MAX * STEP_SECONDS] = np.nan
    return first, grid


def forecast(
    times: Int64, counts: Float64, now: int, zone_seconds: int = 0, capacity: float = np.inf
) -> Forecast:
    """The next hour from now on, from a station's history; `zone_seconds` is its offset from UTC.

    `times` (s since 1970) ascend, the last is no later than `now`; at least one.
    """
    first, grid = gridded(times, counts, now)
    told, persisted, model = judged(grid, first, zone_seconds)
    seen = np.isfinite(told).sum(axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0: nothing was judged
        mae, naive = np.nansum(told, axis=0) / seen, np.nansum(persisted, axis=0) / seen
    # Where the whole past says that persistence was better, it is what is told.
    worse = ~(mae <= naive)
    model = np.where(worse, 0, model)
    tried = np.full((HORIZONS, len(DRAWN)), counts[-1])
    if model.any():
        usual = profile_of(grid, first, zone_seconds, len(grid))
        tried = _tried(usual, (now + zone_seconds) // STEP_SECONDS, float(counts[-1]))
    expected = tried[np.arange(HORIZONS), model]
    return Forecast(
        np.clip(expected, 0, capacity if capacity > 0 else np.inf),
        np.where(worse, naive, mae), naive, model, int(seen[0]),
    )  # fmt: skip


def _tried(usual: Float64, step: int, last: float) -> Float64:
    """What each of the weights says (horizon, weight); counts are whole, as the truth is."""
    ahead = usual[(step + np.arange(1, HORIZONS + 1)) % DAY_STEPS][:, None]
    moved = ahead - usual[step % DAY_STEPS]
    tried: Float64 = np.rint(last + DRAWN * (ahead - last) + MOVED * moved)
    return tried


def profile_of(grid: Float64, first: int, zone_seconds: int, until: int) -> Float64:
    """The usual count by step of the local day, of what was seen before the step `until`."""
    slots = (first + zone_seconds // STEP_SECONDS + np.arange(until)) % DAY_STEPS
    known = np.isfinite(grid[:until])
    sums = np.bincount(slots[known], grid[:until][known], DAY_STEPS)
    seen = np.bincount(slots[known], minlength=DAY_STEPS).astype(np.float64)
    around = np.ones(2 * WIDTH_STEPS + 1)
    wide_sums = _circular(sums.astype(np.float64), around)
    wide_seen = _circular(seen, around)
    total = seen.sum()
    if not total:
        return np.full(DAY_STEPS, np.nan)
    mean = sums.sum() / total
    usual: Float64 = (wide_sums + PRIOR_STEPS * mean) / (wide_seen + PRIOR_STEPS)
    return usual


def _circular(values: Float64, around: Float64) -> Float64:
    padded = np.concatenate([values[-WIDTH_STEPS:], values, values[:WIDTH_STEPS]])
    return np.convolve(padded, around, mode="valid")


def judged(grid: Float64, first: int, zone_seconds: int) -> tuple[Float64, Float64, Int64]:
    """What each forecast of the past erred by, made of its own past alone.

    Returns absolute errors (origin, horizon) of what would have been told and of persistence, NaN
    where the truth is not known, and by horizon which of the weights would be told next.
    """
    origins = np.arange(WARM_STEPS, len(grid) - 1)
    told = np.full((len(origins), HORIZONS), np.nan)
    naive = np.full((len(origins), HORIZONS), np.nan)
    errors = np.zeros((HORIZONS, len(DRAWN)))
    counted = np.zeros(HORIZONS)
    waiting: list[tuple[int, Float64]] = []
    for number, origin in enumerate(origins.tolist()):
        # Forecasts whose truth is known by now: that of horizon h was made h steps ago.
        for made, tried in waiting:
            horizon = origin - made
            truth = grid[origin]
            if horizon <= HORIZONS and np.isfinite(truth):
                errors[horizon - 1] += np.abs(tried[horizon - 1] - truth)
                counted[horizon - 1] += 1
        waiting = [each for each in waiting if origin - each[0] < HORIZONS]
        if not np.isfinite(grid[origin]):
            continue
        usual = profile_of(grid, first, zone_seconds, origin + 1)
        last = grid[origin]
        tried = _tried(usual, first + zone_seconds // STEP_SECONDS + origin, last)
        waiting.append((origin, tried))
        choice = chosen(errors, counted)
        reach = min(HORIZONS, len(grid) - 1 - origin)
        truths = grid[origin + 1 : origin + 1 + reach]
        told[number, :reach] = np.abs(tried[np.arange(reach), choice[:reach]] - truths)
        naive[number, :reach] = np.abs(last - truths)
    return told, naive, chosen(errors, counted)


def chosen(errors: Float64, counted: Float64) -> Int64:
    """The weight (its index) by horizon that erred least so far; 0 unless it is clearly better."""
    best = np.argmin(errors, axis=1)
    least = errors[np.arange(len(errors)), best]
    clearly = (counted >= JUDGED_MIN) & (least < (1 - BETTER_BY) * errors[:, 0])
    return np.where(clearly, best, 0)
