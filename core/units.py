"""UCUM units: validation and linear conversion; the UCUM grammar loads only when it is needed."""

import math
import re
from functools import cache, lru_cache
from typing import Any

from core.errors import invalid

UNIT_LENGTH_MAX = 64
# A power such as 10*99999999999 is valid UCUM and would keep the converter busy for hours.
_UNBOUNDED = re.compile(r"\d{5}|10[*^][+-]?\d{3}")

# Codes that nearly every message uses: known here, so that most processes never load the grammar
# (45 MB and half a second). A test checks each against it.
# fmt: off
COMMON = frozenset({
    "1", "%", "%{RH}", "[ppm]", "10*-3", "deg", "rad", "sr", "m", "cm", "mm", "km", "m2", "m3", "g",
    "kg", "s", "ms", "min", "h", "d", "A", "mA", "V", "mV", "W", "kW", "J", "kJ", "MJ", "Hz", "kHz",
    "MHz", "K", "Cel", "N", "Pa", "hPa", "kPa", "L", "L/s", "m/s", "km/h", "m/s2", "m3/s", "mm/h",
    "mm/d", "/s", "/min", "/h", "W/m2", "J/m2", "MJ/m2", "S/m", "dS/m", "uS/cm", "mS/cm", "lx",
    "lm", "cd", "[pH]", "dB", "dB{mW}", "dB[W]", "bit", "kbit", "Mbit", "bit/s", "kbit/s", "Mbit/s",
    "Gbit/s", "By", "kBy", "MBy", "GBy", "KiBy", "By/s", "m3/m3", "kg/kg", "kg/m3", "ug/m3", "mg/L",
    "W.h", "kW.h", "A.h", "V.A", "{count}", "[degF]", "deg/s", "har",
})
# fmt: on


@cache
def _grammar() -> Any:
    """The UCUM grammar of ucumvert, loaded once a process."""
    from ucumvert import get_ucum_parser

    return get_ucum_parser()


@cache
def _registry() -> Any:
    """The pint registry that holds UCUM's units, loaded once a process."""
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@lru_cache(maxsize=4096)
def is_ucum(text: str) -> bool:
    """Whether `text` is a case-sensitive UCUM unit (UCUM 2.1, section 1.3) of bounded size."""
    if text in COMMON:
        return True
    if not text or len(text) > UNIT_LENGTH_MAX or not text.isascii() or _UNBOUNDED.search(text):
        return False
    from lark.exceptions import LarkError

    try:
        _grammar().parse(text)
    except LarkError:
        return False
    return True


def check_ucum(unit: str) -> None:
    """CityError `invalid` for a unit that is not UCUM."""
    if not is_ucum(unit):
        raise invalid("unit", f"{unit!r} is not a UCUM unit")


def conversion(source: str, target: str) -> tuple[float, float]:
    """(factor, offset) such that a result in `target` = result in `source` * factor + offset.

    CityError `invalid` names the unit that is not UCUM, or both where they measure different
    things or relate by a logarithm (dB): no factor would be right.
    """
    check_ucum(source)
    line = conversion_if_any(source, target)
    if line is None:
        raise invalid("unit", f"{source!r} does not convert to {target!r}")
    return line


@lru_cache(maxsize=4096)
def conversion_if_any(source: str, target: str) -> tuple[float, float] | None:
    """The same, or None where there is none; CityError `invalid` for a target that is not UCUM."""
    check_ucum(target)
    plain_source, plain_target = _without_annotations(source), _without_annotations(target)
    if plain_source == plain_target:
        return (1.0, 0.0)
    return _line(plain_source, plain_target) if is_ucum(source) else None


def _without_annotations(unit: str) -> str:
    """Annotations carry no meaning (UCUM 2.1, section 2.1.4): `{count}` is 1, `%{RH}` is %."""
    return re.sub(r"\{[^}]*\}", "", unit) or "1"


def _line(source: str, target: str) -> tuple[float, float] | None:
    """The straight line between two units, or None where there is none."""
    registry = _registry()
    try:
        units = registry.from_ucum(source).units, registry.from_ucum(target).units
        at = [float(registry.Quantity(x, units[0]).to(units[1]).magnitude) for x in (0.0, 1.0, 2.0)]
    except Exception:  # noqa: BLE001 - pint and lark raise a dozen unrelated types, all "cannot"
        return None
    factor, offset = at[1] - at[0], at[0]
    if not all(map(math.isfinite, at)) or factor == 0.0:
        return None
    if not math.isclose(at[2] - at[1], factor, rel_tol=1e-6):
        return None
    # Without an offset the value at 1 is exact; with one, a wide base keeps the digits.
    return (at[1], 0.0) if offset == 0.0 else (_slope(registry, units, offset), offset)


def _slope(registry: Any, units: tuple[Any, Any], offset: float) -> float:
    """The factor of an affine conversion from a base wide enough not to lose digits."""
    base = 1e6
    top = float(registry.Quantity(base, units[0]).to(units[1]).magnitude)
    return float(f"{(top - offset) / base:.12g}") if math.isfinite(top) else top
