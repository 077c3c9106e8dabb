"""How well a score tells out-of-distribution rows from in-distribution ones.

Out of distribution is the positive class, higher scores speak for it, and ties count one half.

- AUROC: the chance that an out-of-distribution row scores higher. Its interval is that of DeLong,
  DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
  characteristic curves" (Biometrics 1988), from midranks as in Sun and Xu (2014), on the logit
  scale, which keeps it within 0 and 1. Where that variance is zero, as for scores that separate the
  two without a fault, it is Newcombe's, "Confidence intervals for an effect size measure based on
  the Mann–Whitney statistic. Part 2" (Statistics in Medicine 2006, method 5).
- AUPR: average precision; `aupr_in` has in-distribution as the positive class.
- FPR at 95 % TPR: share of in-distribution rows flagged by the highest threshold that flags 95 %
  of the others (Hendrycks and Gimpel 2017; Liang, Li and Srikant 2018).

The last three have percentile intervals of a bootstrap that draws both kinds of rows anew (Efron
1979). A bootstrap of a faultless separation is faultless, too: its interval is a point, and says
less than AUROC's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy import special

from service.calibration import checks
from service.calibration.checks import FloatArray, IntArray
from service.calibration.order_statistics import CONFIDENCE
from service.errors import CalibrationFailed

BOOTSTRAPS = 1000
_CHUNK = 2_000_000
"""Numbers held at once while bootstrapping."""

_TRUE_POSITIVES = 95
"""Percent."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Detection:
    """How well one score detects; intervals are of 95 %.

    Args:
        auroc: ½ for a score that says nothing.
        aupr_out: average precision, out of distribution positive; for a score that says nothing
            their share of the rows.
        aupr_in: average precision, in distribution positive.
        fpr95: false-positive rate at a true-positive rate of 95 %.
        rows_in: in-distribution rows.
        rows_out: out-of-distribution rows.
    """

    auroc: float
    auroc_interval: Interval
    aupr_out: float
    aupr_out_interval: Interval
    aupr_in: float
    aupr_in_interval: Interval
    fpr95: float
    fpr95_interval: Interval
    rows_in: int
    rows_out: int


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A score chosen on one half of the rows and reported on the other.

    Args:
        name: the score with the largest AUROC on the choosing half, the first of equals.
        chosen_by: AUROC of every score on the choosing half; biased for the chosen one.
        reported: every score on the other half, on which nothing was chosen.
    """

    name: str
    chosen_by: Mapping[str, float]
    reported: Mapping[str, Detection]


def detection(in_B: ArrayLike, out_B: ArrayLike, seed: int = 0) -> Detection:
    """How well a score detects.

    Args:
        in_B: the score of in-distribution rows, [B].
        out_B: the score of out-of-distribution rows, of any number.
        seed: of the bootstrap.

    Raises:
        CalibrationFailed: values that are not finite.
        TooFewRows: fewer than two rows of either.
    """
    in_B, out_B = _both(in_B, out_B)
    area, interval = _auroc(in_B, out_B)
    in_K, out_K = _counts(in_B, out_B)
    [point] = _curves(in_K[None], out_K[None])
    generator = np.random.default_rng(seed)
    low, high = np.quantile(
        np.concatenate(list(_bootstrap(in_K, out_K, generator))),
        [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2],
        axis=0,
    ).tolist()
    out, inside, fpr = point.tolist()
    return Detection(
        auroc=area,
        auroc_interval=interval,
        aupr_out=out,
        aupr_out_interval=(low[0], high[0]),
        aupr_in=inside,
        aupr_in_interval=(low[1], high[1]),
        fpr95=fpr,
        fpr95_interval=(low[2], high[2]),
        rows_in=len(in_B),
        rows_out=len(out_B),
    )


def recommend(
    in_values: Mapping[str, ArrayLike], out_values: Mapping[str, ArrayLike], seed: int
) -> Recommendation:
    """Choose a score on half of the rows, and report all on the other half.

    Args:
        in_values: scores of in-distribution rows by name, each [B], the preferred first.
        out_values: the same scores of out-of-distribution rows.
        seed: of the split, and of the bootstrap.

    Raises:
        CalibrationFailed: names or numbers of rows that differ, no score, values not finite.
        TooFewRows: fewer than four rows of either.
    """
    if not in_values or set(in_values) != set(out_values):
        raise CalibrationFailed(
            "both kinds of rows should have the same scores; in distribution there are "
            f"{', '.join(in_values) or 'none'}, out of it {', '.join(out_values) or 'none'}",
            field="scores",
            expected=list(in_values),
            received=list(out_values),
        )
    inside = {name: checks.finite(name, values, "B") for name, values in in_values.items()}
    outside = {name: checks.finite(name, out_values[name], "B") for name in inside}
    generator = np.random.default_rng(seed)
    in_halves, out_halves = _halves(inside, generator), _halves(outside, generator)
    chosen_by = {
        name: _auroc(inside[name][in_halves[0]], outside[name][out_halves[0]])[0] for name in inside
    }
    return Recommendation(
        name=max(chosen_by, key=lambda name: chosen_by[name]),
        chosen_by=chosen_by,
        reported={
            name: detection(inside[name][in_halves[1]], outside[name][out_halves[1]], seed)
            for name in inside
        },
    )


def _both(in_B: ArrayLike, out_B: ArrayLike) -> tuple[FloatArray, FloatArray]:
    found = []
    for field, values_B in (("in_distribution", in_B), ("out_of_distribution", out_B)):
        scores_B = checks.finite(field, values_B, "B")
        checks.enough_rows(field, len(scores_B), 2, "a detection rate")
        found.append(scores_B)
    return found[0], found[1]


def _halves(
    values: Mapping[str, FloatArray], generator: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Rows of the choosing and of the reporting half, the same for every score."""
    first, *_ = values
    rows = len(values[first])
    for name, values_B in values.items():
        checks.same_shape(name, values_B, (rows,), first)
    checks.enough_rows(first, rows, 4, "a choice on one half that is reported on the other")
    order_B = generator.permutation(rows)
    return order_B[: rows // 2], order_B[rows // 2 :]


def _auroc(in_B: FloatArray, out_B: FloatArray) -> tuple[float, Interval]:
    """AUROC and its interval."""
    rows_in, rows_out = len(in_B), len(out_B)
    rank_B = scipy.stats.rankdata(np.concatenate([in_B, out_B]))
    # Of each row the share of the other kind that it is on the right side of.
    right_in_B = 1 - (rank_B[:rows_in] - scipy.stats.rankdata(in_B)) / rows_out
    right_out_B = (rank_B[rows_in:] - scipy.stats.rankdata(out_B)) / rows_in
    area = float(right_out_B.mean())
    variance = float(right_in_B.var(ddof=1) / rows_in + right_out_B.var(ddof=1) / rows_out)
    if variance <= 0 or not 0 < area < 1:
        return area, _newcombe(area, rows_in, rows_out)
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    half = z * math.sqrt(variance) / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half])).tolist()
    return area, (low, high)


def _newcombe(area: float, rows_in: int, rows_out: int) -> Interval:
    """The areas θ with |area − θ| ≤ z √V(θ), V of Hanley and McNeil with both numbers of rows
    replaced by their mean in its brackets."""
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    more = (rows_in + rows_out) / 2 - 1

    def excess(theta: float) -> float:
        brackets = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (area - theta) ** 2 - z**2 * theta * (1 - theta) * brackets / (rows_in * rows_out)

    tiny = 1e-12
    low = float(scipy.optimize.brentq(excess, tiny, area - tiny)) if area > 0 else 0.0
    high = float(scipy.optimize.brentq(excess, area + tiny, 1 - tiny)) if area < 1 else 1.0
    return low, high


def _counts(in_B: FloatArray, out_B: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows of both kinds at each of K distinct scores, the highest first."""
    distinct, place_B = np.unique(np.concatenate([in_B, out_B]), return_inverse=True)
    kinds = place_B[: len(in_B)], place_B[len(in_B) :]
    in_K, out_K = (np.bincount(kind, minlength=len(distinct))[::-1] for kind in kinds)
    return in_K, out_K


def _bootstrap(
    in_K: IntArray, out_K: IntArray, generator: np.random.Generator
) -> Iterator[FloatArray]:
    """`_curves` of rows drawn anew, in chunks."""
    rows_in, rows_out = int(in_K.sum()), int(out_K.sum())
    chunk = max(1, _CHUNK // len(in_K))
    for start in range(0, BOOTSTRAPS, chunk):
        repeats = min(chunk, BOOTSTRAPS - start)
        yield _curves(
            generator.multinomial(rows_in, in_K / rows_in, size=repeats),
            generator.multinomial(rows_out, out_K / rows_out, size=repeats),
        )


def _curves(in_RK: IntArray, out_RK: IntArray) -> FloatArray:
    """AUPR of both directions and FPR at 95 % TPR of each of R samples. [R, K] → [R, 3]."""
    false_RK, true_RK = in_RK.cumsum(axis=1), out_RK.cumsum(axis=1)
    # In whole numbers, for 95 of 100 to be enough.
    reached_RK = 100 * true_RK >= _TRUE_POSITIVES * true_RK[:, -1:]
    first_R = reached_RK.argmax(axis=1)[:, None]
    fpr_R = np.take_along_axis(false_RK, first_R, axis=1)[:, 0] / false_RK[:, -1]
    backwards = _average_precision(out_RK[:, ::-1], in_RK[:, ::-1])
    return np.stack([_average_precision(in_RK, out_RK), backwards, fpr_R], axis=1)


def _average_precision(negative_RK: IntArray, positive_RK: IntArray) -> FloatArray:
    """Σ_k (recall_k − recall_{k−1}) precision_k down the scores. [R, K] → [R]."""
    found_RK = positive_RK.cumsum(axis=1)
    flagged_RK = found_RK + negative_RK.cumsum(axis=1)
    precision_RK = found_RK / np.maximum(flagged_RK, 1)
    average_R: FloatArray = (positive_RK * precision_RK).sum(axis=1) / found_RK[:, -1]
    return average_R
