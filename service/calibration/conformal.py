"""Split conformal prediction: sets and intervals that hold the truth at a chosen rate.

A score says how badly a label or a target fits a prediction. With q the ⌈(n + 1) coverage⌉-th
smallest score of n held-out rows, all labels that score at most q hold the next row's true one with
probability at least `coverage`, whatever the network, where rows are exchangeable (Vovk, Gammerman
and Shafer 2005, proposition 2.3; Papadopoulos et al., "Inductive confidence machines", 2002). Given
the calibration rows the coverage is random; `interval` bounds it (`order_statistics`).

- lac: 1 − p_y, the smallest sets on average (Sadinle, Lei and Wasserman, "Least ambiguous
  set-valued classifiers", JASA 2019). A set may be empty.
- aps: the probability of all classes at least as probable as y, so that sets grow with doubt
  (Romano, Sesia and Candès, "Classification with valid and adaptive coverage", NeurIPS 2020). With
  uniforms u it is lessened by u p_y, their randomised score (eq. 7), whose sets are no larger than
  needed; without, sets are larger and need no randomness.
- regression: |y − mean| / scale of each output by itself, scale = std + floor (Lei et al.,
  "Distribution-free predictive inference for regression", JASA 2018, section 5.2). The coverage is
  that of each output, not of all outputs of a row at once.

Mondrian: a quantile for each class from the rows of that class, so that coverage holds in each
(Vovk et al. 2005, section 4.5).

Everything fitted is a few numbers: `dataclasses.asdict` of it can be written as JSON, and the class
called with what was read gives it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.calibration import checks
from service.calibration.checks import BoolArray, FloatArray
from service.calibration.order_statistics import OrderStatistic, order_statistic, rows_needed
from service.errors import CalibrationFailed, TooFewRows

METHODS = ("lac", "aps")


@dataclass(frozen=True, slots=True)
class ConformalClassifier:
    """What prediction sets are made from.

    Args:
        method: `lac` or `aps`.
        randomised: whether aps takes uniforms.
        per_class: whether there is a quantile for each class.
        coverage: as asked for.
        quantiles: of the scores, one, or one for each class.
        rows: behind each quantile.
        intervals: 95 % interval of the true coverage of each quantile.
    """

    method: str
    randomised: bool
    per_class: bool
    coverage: float
    quantiles: Sequence[float]
    rows: Sequence[int]
    intervals: Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class ConformalRegressor:
    """What prediction intervals are made from.

    Args:
        coverage: of each output by itself, as asked for.
        quantiles: of |y − mean| / scale, for each output.
        floor: what is added to the standard deviation of each output.
        rows: the calibration rows.
        intervals: 95 % interval of the true coverage of each output.
    """

    coverage: float
    quantiles: Sequence[float]
    floor: Sequence[float]
    rows: int
    intervals: Sequence[Sequence[float]]


def fit_classifier(
    probs_BC: ArrayLike,
    labels_B: ArrayLike,
    coverage: float,
    *,
    method: str = "lac",
    uniforms_B: ArrayLike | None = None,
    per_class: bool = False,
) -> ConformalClassifier:
    """Fit prediction sets on held-out rows.

    Args:
        probs_BC: probabilities over exclusive classes [B, C]; `both_labels` makes them of a binary
            task's.
        labels_B: true classes [B], 0 to C − 1.
        coverage: the share of sets that should hold the truth, above 0, below 1.
        method: `lac` or `aps`.
        uniforms_B: for the randomised aps, independent of all else, between 0 and 1.
        per_class: have the coverage in every class.

    Raises:
        CalibrationFailed: numbers, labels or a method that cannot be used.
        TooFewRows: a quantile would be infinite: it takes coverage / (1 − coverage) rows, of every
            class where `per_class`.
    """
    probs_BC = checks.probabilities("probs", probs_BC)
    rows, classes = probs_BC.shape
    labels_B = checks.class_labels("labels", labels_B, rows, classes)
    coverage = checks.rate("coverage", coverage)
    scores_BC = _scores(probs_BC, method, uniforms_B)
    scores_B = scores_BC[np.arange(rows), labels_B]
    if per_class:
        _enough_of_each_class(np.bincount(labels_B, minlength=classes), coverage)
        groups = [scores_B[labels_B == label] for label in range(classes)]
    else:
        groups = [scores_B]
    found = [
        order_statistic("probs", group_B, coverage, f"a coverage of {coverage:g}")
        for group_B in groups
    ]
    return ConformalClassifier(
        method=method,
        randomised=uniforms_B is not None,
        per_class=per_class,
        coverage=coverage,
        quantiles=_values(found),
        rows=tuple(each.rows for each in found),
        intervals=tuple(each.interval for each in found),
    )


def prediction_sets(
    probs_BC: ArrayLike,
    fitted: ConformalClassifier,
    uniforms_B: ArrayLike | None = None,
    *,
    keep_likeliest: bool = False,
) -> BoolArray:
    """Which classes are in the set of each row.

    Args:
        probs_BC: probabilities [B, C].
        fitted: by `fit_classifier`.
        uniforms_B: [B] where the fit took them.
        keep_likeliest: put the most probable class into sets that would be empty; coverage only
            grows by it.

    Returns:
        [B, C] bool.

    Raises:
        CalibrationFailed: numbers that cannot be used, uniforms where the fit had none or the other
            way round, or another number of classes than that of quantiles.
    """
    probs_BC = checks.probabilities("probs", probs_BC)
    if (uniforms_B is not None) != fitted.randomised:
        raise CalibrationFailed(
            f"the sets were fitted {'with' if fitted.randomised else 'without'} uniforms, and are "
            f"asked for {'without' if fitted.randomised else 'with'}",
            field="uniforms",
        )
    rows, classes = probs_BC.shape
    if fitted.per_class and classes != len(fitted.quantiles):
        raise CalibrationFailed(
            f"`probs` has {classes} classes; the sets were fitted for {len(fitted.quantiles)}",
            field="probs",
            expected=len(fitted.quantiles),
            received=classes,
        )
    scores_BC = _scores(probs_BC, fitted.method, uniforms_B)
    sets_BC = scores_BC <= np.asarray(fitted.quantiles)
    if keep_likeliest:
        empty_B = ~sets_BC.any(axis=1)
        sets_BC[np.arange(rows)[empty_B], probs_BC[empty_B].argmax(axis=1)] = True
    return sets_BC


def fit_regressor(
    mean_BC: ArrayLike,
    std_BC: ArrayLike,
    targets_BC: ArrayLike,
    coverage: float,
    *,
    floor: float | Sequence[float] = 0.0,
) -> ConformalRegressor:
    """Fit prediction intervals on held-out rows.

    Args:
        mean_BC: predictive means [B, C], in the target's units.
        std_BC: predictive standard deviations [B, C]; ones for intervals of one width.
        targets_BC: true values [B, C].
        coverage: the share of intervals of each output that should hold the truth.
        floor: added to the standard deviations, one or [C]: keeps a row whose passes agree from an
            interval of no width.

    Raises:
        CalibrationFailed: numbers that cannot be used, or a scale that is not positive.
        TooFewRows: fewer than coverage / (1 − coverage) rows.
    """
    mean_BC = checks.finite("mean", mean_BC, "BC")
    outputs = mean_BC.shape[1]
    targets_BC = checks.finite("targets", targets_BC, "BC")
    checks.same_shape("targets", targets_BC, mean_BC.shape, "mean")
    coverage = checks.rate("coverage", coverage)
    floor_C = np.broadcast_to(np.asarray(floor, dtype=np.float64), (outputs,))
    scale_BC = _scale(std_BC, mean_BC, floor_C)
    if (scale_BC <= 0).any():
        row, output = (int(place) for place in np.argwhere(scale_BC <= 0)[0])
        raise CalibrationFailed(
            f"`std` is zero in row {row}, output {output}; a residual scaled by it means nothing: "
            "give a `floor` above zero",
            field="std",
        )
    scores_BC = np.abs(targets_BC - mean_BC) / scale_BC
    found = [
        order_statistic("mean", scores_B, coverage, f"a coverage of {coverage:g}")
        for scores_B in scores_BC.T
    ]
    return ConformalRegressor(
        coverage=coverage,
        quantiles=_values(found),
        floor=tuple(float(value) for value in floor_C),
        rows=len(mean_BC),
        intervals=tuple(each.interval for each in found),
    )


def intervals(mean_BC: ArrayLike, std_BC: ArrayLike, fitted: ConformalRegressor) -> FloatArray:
    """mean ± quantile · (std + floor) of each output. [B, C] twice → [B, C, 2], low and high.

    Raises:
        CalibrationFailed: numbers that cannot be used, or another number of outputs.
    """
    mean_BC = checks.finite("mean", mean_BC, "BC")
    outputs = mean_BC.shape[1]
    if outputs != len(fitted.quantiles):
        raise CalibrationFailed(
            f"`mean` has {outputs} outputs; the intervals were fitted for {len(fitted.quantiles)}",
            field="mean",
            expected=len(fitted.quantiles),
            received=outputs,
        )
    half_BC = _scale(std_BC, mean_BC, np.asarray(fitted.floor)) * np.asarray(fitted.quantiles)
    return np.stack([mean_BC - half_BC, mean_BC + half_BC], axis=-1)


def both_labels(probs_B1: ArrayLike) -> FloatArray:
    """The probabilities of both labels of a binary task, from those of the second. [B, 1] → [B, 2].

    Raises:
        CalibrationFailed: another shape, or numbers that are no probabilities.
    """
    yes_B1 = checks.shares("probs", probs_B1, "BC")
    if yes_B1.shape[1] != 1:
        raise CalibrationFailed(
            f"`probs` of a binary task should have the shape [B, 1], not {list(yes_B1.shape)}",
            field="probs",
        )
    return np.concatenate([1 - yes_B1, yes_B1], axis=1)


def _scores(probs_BC: FloatArray, method: str, uniforms_B: ArrayLike | None) -> FloatArray:
    """How badly each class fits, [B, C]."""
    if method not in METHODS:
        raise CalibrationFailed(
            f"no conformal method {method!r}; there are {', '.join(METHODS)}",
            field="method",
            expected=list(METHODS),
            received=method,
        )
    if method == "aps":
        return _adaptive_scores(probs_BC, uniforms_B)
    if uniforms_B is not None:
        raise CalibrationFailed("lac takes no uniforms", field="uniforms")
    return 1 - probs_BC


def _adaptive_scores(probs_BC: FloatArray, uniforms_B: ArrayLike | None) -> FloatArray:
    """Probability of every class at least as probable, less u p where there are uniforms."""
    # Stable: classes of equal probability keep their order, at the fit and ever after.
    order_BC = np.argsort(-probs_BC, axis=1, kind="stable")
    total_BC = np.cumsum(np.take_along_axis(probs_BC, order_BC, axis=1), axis=1)
    # The least probable class completes the row; rounding must not have it differ between rows.
    total_BC = np.minimum(total_BC, 1.0)
    total_BC[:, -1] = 1.0
    scores_BC = np.empty_like(total_BC)
    np.put_along_axis(scores_BC, order_BC, total_BC, axis=1)
    if uniforms_B is None:
        return scores_BC
    chosen_B = checks.shares("uniforms", uniforms_B, "B")
    checks.same_shape("uniforms", chosen_B, probs_BC.shape[:1], "probs")
    return scores_BC - chosen_B[:, None] * probs_BC


def _scale(std_BC: ArrayLike, mean_BC: FloatArray, floor_C: FloatArray) -> FloatArray:
    spread_BC = checks.finite("std", std_BC, "BC")
    checks.same_shape("std", spread_BC, mean_BC.shape, "mean")
    if (spread_BC < 0).any() or not (floor_C >= 0).all():
        raise CalibrationFailed("`std` and `floor` should not be below zero", field="std")
    return spread_BC + floor_C


def _values(found: Sequence[OrderStatistic]) -> tuple[float, ...]:
    return tuple(each.value for each in found)


def _enough_of_each_class(counts_C: np.ndarray, coverage: float) -> None:
    needed = rows_needed(coverage)
    short = {label: int(count) for label, count in enumerate(counts_C) if count < needed}
    if short:
        listed = ", ".join(f"{count} of class {label}" for label, count in short.items())
        raise TooFewRows(
            f"a coverage of {coverage:g} per class needs at least {needed} rows of every class; "
            f"`labels` has {listed}",
            field="labels",
            expected=needed,
            received=min(short.values()),
        )
