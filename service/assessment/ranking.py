"""What the order that a measure puts rows in is worth: deferral, and telling strangers apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from service.assessment.measured import MEASURE_TITLES, Contender, Measured
from service.calibration.checks import FloatArray
from service.calibration.detection import Detection, Recommendation, detection, recommend
from service.calibration.risk import Deferral, deferrals, risk_coverage
from service.calibration.scores import SCORES, available

POINTS = 200
"""Of a curve in the report: enough to draw it."""

HISTOGRAM_BINS = 30
_SKEWED = 20.0
"""A measure whose 99th percentile is so many times its median is shown on a logarithmic axis."""
_DECADES = 6


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows deferred in the order of one score, the most uncertain first.

    Args:
        name: of the score.
        title: for people.
        coverage: shares kept, at most `POINTS`.
        risk: mean loss of the rows kept.
        area: AURC.
        excess_area: AURC less that of the best order.
        deferrals: what deferring some shares leaves.
    """

    name: str
    title: str
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float
    excess_area: float
    deferrals: tuple[Deferral, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How a measure is distributed.

    Args:
        name: of the measure.
        logarithmic: whether bins are of one width in its logarithm; the first then also holds what
            is below it.
        edges: one more than there are counts.
        inside: rows of the held-out data in each bin.
        outside: rows out of distribution; None without any.
    """

    name: str
    logarithmic: bool
    edges: tuple[float, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Separation:
    """How one score tells out-of-distribution rows, on all rows.

    Args:
        name: of the score, or of the contender whose headline score it is.
        title: for people.
        false_positive_rate: of the ROC curve, at most `POINTS`.
        true_positive_rate: of the ROC curve.
        rates: AUROC and others with their intervals.
    """

    name: str
    title: str
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    rates: Detection


@dataclass(frozen=True, slots=True)
class OutOfDistribution:
    """Scores against rows of another kind.

    Args:
        separations: of every score, nothing having been chosen, then of contenders.
        recommendation: a score of the version's own, chosen on half of the rows and reported on
            the other.
    """

    separations: tuple[Separation, ...]
    recommendation: Recommendation


def ranking(name: str, title: str, uncertainty_B: FloatArray, loss_B: FloatArray) -> Ranking:
    """Deferral in the order of an uncertainty.

    Raises:
        CalibrationFailed: as `risk_coverage`.
    """
    curve = risk_coverage(uncertainty_B, loss_B)
    shown = _some(len(curve.risk))
    return Ranking(
        name=name,
        title=title,
        coverage=tuple(curve.coverage[shown].tolist()),
        risk=tuple(curve.risk[shown].tolist()),
        area=curve.area,
        excess_area=curve.excess_area,
        deferrals=deferrals(uncertainty_B, loss_B),
    )


def histogram(name: str, inside_B: FloatArray, outside_B: FloatArray | None) -> Histogram:
    """The distribution of a measure in and out of distribution, over the same bins."""
    values_B = inside_B if outside_B is None else np.concatenate([inside_B, outside_B])
    low, high = float(values_B.min()), float(values_B.max())
    middle, most = np.quantile(values_B, [0.5, 0.99])
    logarithmic = low >= 0 and high > 0 and bool(most > _SKEWED * middle)
    if logarithmic:
        lowest = max(low, high * 10.0**-_DECADES)
        edges = np.geomspace(lowest, high, HISTOGRAM_BINS + 1) if lowest < high else None
    else:
        edges = np.linspace(low, high, HISTOGRAM_BINS + 1) if low < high else None
    if edges is None:
        edges = np.array([low - 0.5, low + 0.5])
        logarithmic = False
    # The ends exactly, whatever rounding made of them.
    edges[-1] = max(edges[-1], high)
    return Histogram(
        name=name,
        logarithmic=logarithmic,
        edges=tuple(edges.tolist()),
        inside=_counts(inside_B, edges),
        outside=None if outside_B is None else _counts(outside_B, edges),
    )


def out_of_distribution(
    inside: Measured,
    outside: Measured,
    contenders: Sequence[Contender],
    headline: str,
    seed: int,
) -> OutOfDistribution:
    """Every score that the task has, in the order of `SCORES`, and `headline` of contenders.

    Raises:
        TooFewRows: fewer than four rows of either.
    """
    names = available(inside.fields)
    in_values = _scores(inside, names)
    out_values = _scores(outside, names)
    chosen = recommend(in_values, out_values, seed)
    separations = [
        _separation(name, MEASURE_TITLES[name], in_values[name], out_values[name], seed)
        for name in names
    ]
    separations += [
        _separation(
            each.name,
            f"{each.title}: {MEASURE_TITLES[headline]}",
            SCORES[headline](each.measured.fields),
            SCORES[headline](each.strangers.fields),
            seed,
        )
        for each in contenders
        if each.strangers is not None
    ]
    return OutOfDistribution(tuple(separations), chosen)


def _separation(
    name: str, title: str, in_B: FloatArray, out_B: FloatArray, seed: int
) -> Separation:
    false_K, true_K = roc(in_B, out_B)
    shown = _some(len(false_K))
    return Separation(
        name=name,
        title=title,
        false_positive_rate=tuple(false_K[shown].tolist()),
        true_positive_rate=tuple(true_K[shown].tolist()),
        rates=detection(in_B, out_B, seed),
    )


def roc(in_B: FloatArray, out_B: FloatArray) -> tuple[FloatArray, FloatArray]:
    """False- and true-positive rate of every threshold, from none flagged to all. → [K], [K]."""
    thresholds = np.unique(np.concatenate([in_B, out_B]))
    rates = [
        1 - np.searchsorted(np.sort(values), thresholds, side="left")[::-1] / len(values)
        for values in (in_B, out_B)
    ]
    false_K, true_K = (np.concatenate([[0.0], rate]) for rate in rates)
    return false_K, true_K


def _scores(measured: Measured, names: tuple[str, ...]) -> Mapping[str, FloatArray]:
    return {name: SCORES[name](measured.fields) for name in names}


def _counts(values_B: FloatArray, edges: FloatArray) -> tuple[int, ...]:
    counts, _ = np.histogram(np.maximum(values_B, edges[0]), edges)
    return tuple(counts.tolist())


def _some(points: int) -> FloatArray:
    """At most `POINTS` places of a curve, both ends among them."""
    return np.unique(np.linspace(0, points - 1, min(points, POINTS)).round().astype(np.int64))
