"""UCUM units: which texts are units, and how results convert between them."""

import subprocess
import sys

import pytest
from ucumvert import get_ucum_parser

from core.errors import CityError
from core.formats.senml_units import UNITS
from core.units import COMMON, conversion, is_ucum


def test_common_units_are_what_the_grammar_says() -> None:
    grammar = get_ucum_parser()
    for unit in sorted(COMMON):
        assert grammar.parse(unit) is not None, unit


def test_senml_units_map_to_ucum() -> None:
    wrong = [name for name, meaning in UNITS.items() if not is_ucum(meaning.ucum)]
    assert wrong == []


@pytest.mark.parametrize("text", ["uS/cm", "kg.m2/s3", "m3/m3", "[pH]", "10*-6", "/min", "mm[Hg]"])
def test_units(text: str) -> None:
    assert is_ucum(text)


@pytest.mark.parametrize(
    "text", ["", "°C", "foo", "m" * 65, "dBm", "10*99999999999", "m/s\0", "10*999", "Cel "]
)
def test_not_units(text: str) -> None:
    assert not is_ucum(text)


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("[degF]", "Cel", 212.0, 100.0),
        ("K", "Cel", 0.0, -273.15),
        ("Cel", "K", 20.0, 293.15),
        ("m/s", "km/h", 10.0, 36.0),
        ("hPa", "Pa", 1013.25, 101325.0),
        ("m3/m3", "%", 0.25, 25.0),
        ("Mbit/s", "bit/s", 1.5, 1.5e6),
        ("uS/cm", "dS/m", 1000.0, 1.0),
        ("%{RH}", "%", 40.0, 40.0),
        ("{count}", "1", 3.0, 3.0),
        ("mm/d", "mm/h", 24.0, 1.0),
        ("dB", "dB{mW}", -90.0, -90.0),  # an annotation carries no meaning
        ("rad", "deg", 3.141592653589793, 180.0),
    ],
)
def test_conversion(source: str, target: str, value: float, expected: float) -> None:
    factor, offset = conversion(source, target)
    assert value * factor + offset == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("unit", sorted(COMMON))
def test_a_unit_converts_to_itself(unit: str) -> None:
    assert conversion(unit, unit) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        ("foo", "m", "foo"),
        ("m", "foo", "foo"),
        ("m", "s", "m"),
        ("dB", "1", "dB"),  # a logarithm: no factor is right
        ("dB[W]", "dB{mW}", "dB[W]"),
    ],
)
def test_no_conversion(source: str, target: str, named: str) -> None:
    with pytest.raises(CityError, match="unit") as caught:
        conversion(source, target)
    assert named in str(caught.value)
    assert caught.value.kind.status == 422


def test_grammar_stays_unloaded_until_needed() -> None:
    """An idle house has 500 MB: 45 of them are not for a grammar nobody asked for."""
    code = (
        "import sys; from core.units import is_ucum, conversion;"
        "assert is_ucum('Cel') and conversion('%', '%') == (1.0, 0.0);"
        "assert 'ucumvert' not in sys.modules and 'pint' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
