"""Declared resolution: decimals are stored as multiples of a power of two, and served as they came.

A columnstore keeps a double in few bits if its mantissa ends in zeros, which no decimal fraction's
does. So a result that has no more than the declared decimals is stored as the nearest multiple of
the largest power of two that is not above their step: off by less than half a step, so that
rounding brings the very decimal back (bit grooming, without its loss; Zender 2016,
doi:10.5194/gmd-9-3199-2016). A result with more digits is stored as it came.
"""

import numpy as np
from numpy.typing import NDArray

DECIMALS_MAX = 9
UNDECLARED = -1
"""In an array of decimals: every result is stored as it came."""
NOISE = 4 * np.finfo(np.float64).eps
"""Of a result: what 3 * 0.1 is off from 0.3, and more, is no digit of its own."""

# By number of decimals; the last element is of UNDECLARED, whose limit nothing is below.
_DECIMALS = np.arange(DECIMALS_MAX + 1)
_SCALE = np.append(10.0**_DECIMALS, 1.0)
_STEP = np.append(np.exp2(np.floor(-_DECIMALS * np.log2(10.0))), 1.0)
# Above 13 digits the noise comes near the resolution: such a result is stored as it came.
_LIMIT = np.append(10.0 ** (13 - _DECIMALS), 0.0)

Results = NDArray[np.float64]


def groomed(result: Results, decimals: NDArray[np.int8]) -> Results:
    """Results as they are stored, by the decimals of each."""
    step, size = _STEP[decimals], np.abs(result)
    with np.errstate(over="ignore"):
        multiple = np.rint(result / step) * step
    fits = size < _LIMIT[decimals]
    is_decimal = np.abs(result - _rounded(result, decimals)) <= NOISE * size
    kept = np.where(fits & is_decimal, multiple, result)
    ambiguous = fits & ~is_decimal & (result == multiple)
    if ambiguous.any():  # a multiple of the step is read as a decimal, and this one is none
        kept[ambiguous] = np.nextafter(kept[ambiguous], np.inf)
    return kept


def served(stored: Results, decimals: NDArray[np.int8]) -> Results:
    """Stored results as they came, by the decimals of each; SQL's `served` says the same."""
    step, size = _STEP[decimals], np.abs(stored)
    with np.errstate(over="ignore"):
        multiple = np.rint(stored / step) * step
    moved_back = np.where(np.abs(stored - multiple) <= NOISE * size, multiple, stored)
    told = np.where(stored == multiple, _rounded(stored, decimals), moved_back)
    return np.where(size < _LIMIT[decimals], told, stored)


def _rounded(result: Results, decimals: NDArray[np.int8]) -> Results:
    scale = _SCALE[decimals]
    with np.errstate(over="ignore"):  # what is over the limit is not taken
        rounded: Results = np.rint(result * scale) / scale
    return rounded
