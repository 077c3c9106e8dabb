"""The threshold of a score that flags a chosen share of in-distribution rows.

A row is flagged when its score is strictly above the threshold, the k-th smallest of n calibration
scores, k = ⌈(n + 1)(1 − α)⌉. The next in-distribution row is then flagged with probability at most
α; given the calibration rows, the rate is Beta(n + 1 − k, k) for scores without ties
(`order_statistics`, which derives the interval with ties, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from numpy.typing import ArrayLike

from service.calibration import checks
from service.calibration.checks import BoolArray, FloatArray
from service.calibration.order_statistics import order_statistic


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and what it promises.

    Args:
        value: rows with a score strictly above it are flagged.
        rows: the calibration rows behind it.
        false_positive_rate: as asked for.
        attained_rate: share of the calibration rows above the value. With ties, as a score of few
            distinct values has them, it can be much lower than asked.
        interval: 95 % interval of the true false-positive rate, valid with ties.
    """

    value: float
    rows: int
    false_positive_rate: float
    attained_rate: float
    interval: tuple[float, float]


def fit_threshold(
    values_B: ArrayLike, false_positive_rate: float, field: str = "values"
) -> Threshold:
    """The threshold that flags at most this share of in-distribution rows.

    Args:
        values_B: scores of held-out in-distribution rows [B], higher = less like the training data.
        false_positive_rate: above 0, below 1.
        field: how messages call the values.

    Raises:
        CalibrationFailed: values that are not finite, a rate that is none.
        TooFewRows: the rows cannot resolve the rate: it takes 1 / rate − 1.
    """
    scores_B = checks.finite(field, values_B, "B")
    wanted = checks.rate("false_positive_rate", false_positive_rate)
    level = float(1 - Fraction(str(wanted)))
    purpose = f"a false-positive rate of {wanted:g}"
    found = order_statistic(field, scores_B, level, purpose)
    low, high = found.interval
    return Threshold(found.value, found.rows, wanted, 1 - found.share, (1 - high, 1 - low))


def flagged(values_B: FloatArray, threshold: Threshold) -> BoolArray:
    """Which rows [B] are above the threshold."""
    return values_B > threshold.value
