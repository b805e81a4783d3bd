"""Noise for differential privacy: exact samples of the discrete Laplace distribution.

Canonne, Kamath, Steinke: The Discrete Gaussian for Differential Privacy (NeurIPS 2020), algorithms
1 and 2. Whole numbers and fractions alone: samples made of floating-point numbers tell more than
they should by their last bits (Mironov, CCS 2012).
"""

import secrets
from fractions import Fraction
from typing import Protocol


class Chance(Protocol):
    """Where randomness comes from."""

    def below(self, count: int) -> int:
        """One of 0 to count - 1, each as likely."""

    def happens(self, probability: Fraction) -> bool:
        """Whether something of this probability happens."""


class Secure:
    """The operating system's."""

    def below(self, count: int) -> int:
        return secrets.randbelow(count)

    def happens(self, probability: Fraction) -> bool:
        return secrets.randbelow(probability.denominator) < probability.numerator


SECURE = Secure()


def discrete_laplace(scale: Fraction, chance: Chance = SECURE) -> int:
    """z with a probability in proportion to exp(-|z| / scale); ValueError for no noise at all.

    Added to a whole number that one person changes by at most d, it is (d / scale)-differentially
    private.
    """
    if scale <= 0:
        raise ValueError("noise has a scale above 0")
    whole, parts = scale.numerator, scale.denominator
    while True:
        first = chance.below(whole)
        if not _decays(Fraction(first, whole), chance):
            continue
        rounds = 0
        while _decays(Fraction(1), chance):
            rounds += 1
        size = (first + whole * rounds) // parts
        negative = chance.happens(Fraction(1, 2))
        if negative and size == 0:
            continue  # zero has one sign
        return -size if negative else size


def _decays(exponent: Fraction, chance: Chance) -> bool:
    """Whether something of probability exp(-exponent) happens; for exponents of 0 to 1."""
    count = 1
    while chance.happens(exponent / count):
        count += 1
    return count % 2 == 1
