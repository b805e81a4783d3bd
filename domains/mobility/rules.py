"""Which positions of a track are plausible; pure. Nothing is derived from a person's trip."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.clock import MICROSECONDS
from core.sensorthings import Decoded, Positions, Quality

SPEED_MAX = 170.0
"""m/s: no train was faster (JR-Maglev, 603 km/h in 2015). Who flies is marked, not refused."""
EARTH_METRES = 6_371_008.8


def derive(decoded: Decoded) -> Decoded:
    """Mark what moves too fast: by its own word out of range, by its neighbours suspect."""
    columns = decoded.positions
    if columns is None:
        return decoded
    with np.errstate(invalid="ignore"):
        told = (columns.speed < 0) | (columns.speed > SPEED_MAX)
    flags = np.where(told, Quality.OUT_OF_RANGE, 0) | np.where(leaps(columns), Quality.SUSPECT, 0)
    if not flags.any():
        return decoded
    before = np.zeros(len(flags), np.int16) if columns.quality is None else columns.quality
    quality = before | flags.astype(np.int16)
    return replace(decoded, positions=replace(columns, quality=quality))


def leaps(columns: Positions) -> NDArray[np.bool_]:
    """Which positions nothing on the ground could have reached from the one before them."""
    order = np.lexsort((columns.phenomenon_time, columns.stream))
    longitude, latitude = np.radians(columns.longitude[order]), np.radians(columns.latitude[order])
    half = np.sin(np.diff(latitude) / 2) ** 2
    half += np.cos(latitude[1:]) * np.cos(latitude[:-1]) * np.sin(np.diff(longitude) / 2) ** 2
    metres = 2 * EARTH_METRES * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    seconds = np.diff(columns.phenomenon_time[order]) / MICROSECONDS
    same = np.diff(columns.stream[order]) == 0
    found = np.zeros(len(order), np.bool_)
    found[order[1:]] = same & (metres > SPEED_MAX * seconds) & (seconds > 0)
    return found
