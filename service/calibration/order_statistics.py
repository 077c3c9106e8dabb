"""How much of a distribution lies below an order statistic of a sample of it.

The k-th smallest X_(k) of n exchangeable draws is not exceeded by the next draw with probability at
least k / (n + 1), and exactly so for a continuous distribution F: the ranks of n + 1 draws are
equally likely. k = ⌈(n + 1) level⌉ therefore keeps a level in a finite sample (Vovk, Gammerman and
Shafer, "Algorithmic Learning in a Random World", 2005, proposition 2.3).

Given the sample, the share itself is random: F(X_(k)) ~ Beta(k, n + 1 − k), the distribution of the
k-th of n uniforms (Wilks, "Determination of sample sizes for setting tolerance limits", 1941; Vovk,
"Conditional validity of inductive conformal predictors", 2012, proposition 2). Its quantiles bound
the share that a user will see on more data.

With ties F has jumps, and X = F⁻¹(U) for uniforms U gives F(X_(k)) ≥ U_(k): the Beta's lower
quantile stays a lower bound, its upper one does not. Let j ≥ k be the number of rows at or below
X_(k). The upper bound is then that of Clopper and Pearson for n − j rows above, `1 − L(n − j)`. It
holds although X_(k) was not chosen beforehand: let a be the smallest value whose true share above,
p_a, is below L(n − k). A threshold that ends below a cannot fail. One above a needs n − k + 1 rows
or more above a, one at a fails if p_a < L(rows above a), and as L grows with the number of rows
both are within the event p_a < L(rows above a), whose probability the level of L bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import special

from service.calibration import checks
from service.calibration.checks import FloatArray

CONFIDENCE = 0.95
"""Of every interval that is stated."""


@dataclass(frozen=True, slots=True)
class OrderStatistic:
    """The value below which a share of the distribution lies.

    Args:
        value: X_(k).
        rows: n.
        share: of the sample's rows that are at or below `value`, j / n.
        interval: 95 % interval of the distribution's own share at or below `value`.
    """

    value: float
    rows: int
    share: float
    interval: tuple[float, float]


def rows_needed(level: float) -> int:
    """The fewest rows n with ⌈(n + 1) level⌉ ≤ n, that is n ≥ level / (1 − level)."""
    exact = _exact(level)
    return math.ceil(exact / (1 - exact))


def rank(rows: int, level: float) -> int:
    """k = ⌈(n + 1) level⌉; n + 1 where n rows are too few for the level."""
    return math.ceil((rows + 1) * _exact(level))


def expected_interval(rows: int, level: float) -> tuple[float, float]:
    """95 % interval of F(X_(k)) ~ Beta(k, n + 1 − k) for a continuous F."""
    k = rank(rows, level)
    low, high = special.betaincinv(k, rows + 1 - k, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def order_statistic(
    field: str, values_B: FloatArray, level: float, purpose: str = ""
) -> OrderStatistic:
    """The smallest row's value that at least a `level` of the distribution does not exceed.

    Args:
        field: how messages call the values.
        values_B: a sample [B], finite.
        level: above 0, below 1.
        purpose: what messages say that it is for.

    Raises:
        TooFewRows: the sample cannot resolve the level.
    """
    rows = len(values_B)
    needed = rows_needed(level)
    checks.enough_rows(field, rows, needed, purpose or f"a quantile at the level {level:g}")
    ordered_B = np.sort(values_B)
    value = ordered_B[rank(rows, level) - 1]
    below = int(np.searchsorted(ordered_B, value, side="right"))
    low, high = expected_interval(rows, level)
    if (ordered_B[1:] == ordered_B[:-1]).any():
        above = rows - below
        tail = (1 - CONFIDENCE) / 2
        high = 1 - float(special.betaincinv(above, below + 1, tail)) if above else 1.0
    return OrderStatistic(float(value), rows, below / rows, (low, high))


def _exact(level: float) -> Fraction:
    """The decimal that was written: 0.9 means nine tenths, not the nearest binary fraction."""
    return Fraction(str(float(level)))
