"""How far the forecast of shared bicycles errs, beside their last count told unchanged.

Recorded stations where `../shared/data` is beside the project; and a made city of commuters, whose
habits there is something to learn of.
"""

import json
from pathlib import Path

import numpy as np

from benchmarks.result import Goal, Result
from domains.mobility.gbfs import forecast as f

RECORDED = Path(__file__).parents[2] / "shared/data/gbfs/docomo-cycle-tokyo"
STATIONS, DAYS = 100, 21
JAPAN_SECONDS = 9 * 3600
START = 1_700_000_000
NO_WORSE = Goal("ratio", maximum=1.0)
History = tuple[f.Int64, f.Float64]


def run(scale: float = 1.0) -> list[Result]:
    """Mean absolute error over horizons of 10 to 60 minutes, by rolling origin."""
    made = [commuters(seed) for seed in range(max(int(STATIONS * scale), 2))]
    results = [_judged("gbfs_forecast_commuters", made)]
    if RECORDED.is_dir():
        results.append(_judged("gbfs_forecast_recorded", list(histories(RECORDED).values())))
    return results


def histories(folder: Path) -> dict[str, History]:
    """Each station's times and counts out of a folder of polled histories."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("*.history.json")):
        for station, states in json.loads(path.read_text()).items():
            told = {each["last_reported"]: each["num_bikes_available"] for each in states}
            found.setdefault(station, {}).update(told)
    return {
        station: (np.array(sorted(told)), np.array([told[t] for t in sorted(told)], np.float64))
        for station, told in found.items()
    }


def commuters(seed: int) -> History:
    """A station that riders leave in the morning and come to in the evening, or the reverse."""
    rng = np.random.default_rng(seed)
    times = np.arange(START, START + DAYS * 86_400, 300)
    hour = (times + JAPAN_SECONDS) % 86_400 / 3600
    sign = rng.choice([-1.0, 1.0])
    swing = rng.uniform(3, 12)
    trips = np.exp(-((hour - 8) ** 2) / 2) - np.exp(-((hour - 18.5) ** 2) / 2)
    usual = 15 + sign * swing * np.cumsum(trips) / 12 / 2
    strayed = np.zeros(len(times))
    for step, push in enumerate(rng.normal(0, 0.4, len(times) - 1), start=1):
        strayed[step] = 0.98 * strayed[step - 1] + push
    return times, np.clip(np.rint(usual + strayed), 0, 30)


def _judged(name: str, found: list[History]) -> Result:
    told, naive = [], []
    for times, counts in found:
        made = f.forecast(times, counts, int(times[-1]), JAPAN_SECONDS)
        told.append(np.mean(made.mae))
        naive.append(np.mean(made.mae_persistence))
    mae, persistence = float(np.mean(told)), float(np.mean(naive))
    return Result(
        name, round(mae, 4), "vehicles", ratio=round(mae / persistence, 4),
        ratio_to="MAE of persistence", goal=NO_WORSE,
        note=f"{len(found)} stations, horizons of 10 to 60 min; persistence {persistence:.4f}",
    )  # fmt: skip
