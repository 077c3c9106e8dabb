"""What each method's probabilities of held-out rows are worth: no dropout, passes, temperature.

A temperature that is not given is cross-fitted: that of each random half of the rows scales the
other half, so that no row is judged by a number that it helped to choose, and every method is
judged on the same rows (Chernozhukov et al., "Double/debiased machine learning", 2018, call it
cross-fitting).

A binary task counts as one of two exclusive classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from service.assessment.measured import Contender, Measured
from service.calibration import reliability, temperature
from service.calibration.checks import FloatArray, IntArray
from service.calibration.conformal import both_labels
from service.calibration.order_statistics import CONFIDENCE
from service.calibration.reliability import Bins, CalibrationError, Reliability
from service.types import Task

DETERMINISTIC = "deterministic"
MC_DROPOUT = "mc_dropout"
WITH_TEMPERATURE = "_temperature"

TITLES = {DETERMINISTIC: "Deterministic", MC_DROPOUT: "MC dropout"}


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean over rows of what one method has more than another, rows being paired.

    Args:
        mean: above zero where the method is better.
        interval: of 95 %, by the central limit theorem.
    """

    mean: float
    interval: tuple[float, float]

    @property
    def told_apart(self) -> bool:
        """Whether zero is outside of the interval."""
        return not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True, slots=True)
class ClassMethod:
    """One method of predicting classes.

    Args:
        name: of the method in the report's JSON.
        title: for people.
        temperatures: none, the one that was given, or those of both halves.
        accuracy: share of rows, of independent labels of labels, that are right.
        brier: mean squared error of the probabilities, of exclusive classes summed over them.
        log_likelihood: mean over rows, nats.
        gain: in log-likelihood over the deterministic pass, nats a row.
        over_mc_dropout: the same over MC dropout as it is, without a temperature.
        calibration: error of the confidences, for each kind of bins.
        diagrams: behind them.
    """

    name: str
    title: str
    temperatures: tuple[float, ...]
    accuracy: float
    brier: float
    log_likelihood: float
    gain: Difference
    over_mc_dropout: Difference
    calibration: Mapping[str, CalibrationError]
    diagrams: Mapping[str, Reliability]


def class_methods(
    measured: Measured,
    targets: NDArray[np.float64] | IntArray,
    *,
    given_temperature: float | None,
    contenders: Sequence[Contender],
    seed: int,
) -> tuple[ClassMethod, ...]:
    """Every method with and without a temperature.

    Args:
        measured: on the rows.
        targets: as `data.Labelled` holds them.
        given_temperature: of the mean over passes, fitted on other rows; None: cross-fitted.
        contenders: further methods; their mean over passes is taken.
        seed: of the halves.

    Raises:
        CalibrationFailed: targets that do not fit the outputs.
    """
    task, truth = exclusive_task(measured.task), class_truth(measured, targets)
    sources: list[tuple[str, str, FloatArray, float | None]] = [
        (DETERMINISTIC, TITLES[DETERMINISTIC], measured.deterministic_BC, None),
        (MC_DROPOUT, TITLES[MC_DROPOUT], measured.mean_BC, given_temperature),
        *((each.name, each.title, each.measured.mean_BC, None) for each in contenders),
    ]
    plain_B, passes_B = (
        row_log_likelihood(exclusive(probs_BC, measured.task), truth, task)
        for probs_BC in (measured.deterministic_BC, measured.mean_BC)
    )
    found = []
    for name, title, source_BC, given in sources:
        probs_BC = exclusive(source_BC, measured.task)
        found.append(_class_method(name, title, (), probs_BC, truth, task, plain_B, passes_B))
        scaled_BC, fitted = _scaled(probs_BC, truth, task, given, seed)
        name, title = f"{name}{WITH_TEMPERATURE}", f"{title} + temperature"
        found.append(_class_method(name, title, fitted, scaled_BC, truth, task, plain_B, passes_B))
    return tuple(found)


def exclusive_task(task: Task) -> Task:
    """The task that a binary one is judged as."""
    return Task.CLASSIFICATION if task is Task.BINARY else task


def exclusive(probs_BC: FloatArray, task: Task) -> FloatArray:
    """Probabilities over classes; those of a binary task [B, 1] → [B, 2]."""
    return both_labels(probs_BC) if task is Task.BINARY else probs_BC


def class_truth(measured: Measured, targets: FloatArray | IntArray) -> FloatArray | IntArray:
    """Classes [B], or of independent labels zeros and ones [B, C]."""
    return targets[:, 0].astype(np.int64) if measured.task is Task.BINARY else targets


def class_errors(probs_BC: FloatArray, truth: FloatArray | IntArray, task: Task) -> FloatArray:
    """1 for each row that is wrong; of independent labels the share of them that is. → [B]."""
    if task is Task.CLASSIFICATION:
        right_B = reliability.top_label(probs_BC, truth)[1]
        return (~right_B).astype(np.float64)
    wrong_B: FloatArray = ((probs_BC >= 0.5) != (truth > 0)).mean(axis=1)
    return wrong_B


def row_log_likelihood(
    probs_BC: FloatArray, truth: FloatArray | IntArray, task: Task
) -> FloatArray:
    """ln p of each row's truth, of independent labels their sum, nats. [B, C] → [B].

    Zero counts as in `reliability.log_likelihood`, whose summands these are.
    """
    limits = np.finfo(np.float64)
    if task is Task.CLASSIFICATION:
        own_B = probs_BC[np.arange(len(probs_BC)), truth.astype(np.int64)]
        logs_B: FloatArray = np.log(np.maximum(own_B, limits.tiny))
        return logs_B
    clipped_BC = np.clip(probs_BC, limits.tiny, 1 - limits.eps)
    logs_BC = special.xlogy(truth, clipped_BC) + special.xlog1py(1 - truth, -clipped_BC)
    sum_B: FloatArray = logs_BC.sum(axis=1)
    return sum_B


def difference(more_B: FloatArray, less_B: FloatArray) -> Difference:
    """The mean of more − less with its interval; of a single row a point."""
    gap_B = more_B - less_B
    mean = float(gap_B.mean())
    spread = float(gap_B.std(ddof=1)) if len(gap_B) > 1 else 0.0
    half = float(special.ndtri((1 + CONFIDENCE) / 2)) * spread / math.sqrt(len(gap_B))
    return Difference(mean, (mean - half, mean + half))


def halves(rows: int, seed: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Random halves, each with the other: the rows to fit on and the rows to judge."""
    order_B = np.random.default_rng(seed).permutation(rows)
    first, second = order_B[: rows // 2], order_B[rows // 2 :]
    yield first, second
    yield second, first


def _class_method(
    name: str,
    title: str,
    temperatures: tuple[float, ...],
    probs_BC: FloatArray,
    truth: FloatArray | IntArray,
    task: Task,
    plain_B: FloatArray,
    passes_B: FloatArray,
) -> ClassMethod:
    judged = reliability.top_label if task is Task.CLASSIFICATION else reliability.every_label
    confidence, correct = judged(probs_BC, truth)
    diagrams = {bins.value: reliability.reliability(confidence, correct, bins) for bins in Bins}
    logs_B = row_log_likelihood(probs_BC, truth, task)
    return ClassMethod(
        name=name,
        title=title,
        temperatures=temperatures,
        accuracy=reliability.accuracy(probs_BC, truth, task),
        brier=reliability.brier_score(probs_BC, truth, task),
        log_likelihood=float(logs_B.mean()),
        gain=difference(logs_B, plain_B),
        over_mc_dropout=difference(logs_B, passes_B),
        calibration={
            bins: reliability.calibration_error(diagram) for bins, diagram in diagrams.items()
        },
        diagrams=diagrams,
    )


def _scaled(
    probs_BC: FloatArray,
    truth: FloatArray | IntArray,
    task: Task,
    given: float | None,
    seed: int,
) -> tuple[FloatArray, tuple[float, ...]]:
    """Scaled probabilities, and the temperatures that did it."""
    if given is not None:
        return temperature.scale_mean(probs_BC, given, task), (given,)
    logits_BC = temperature.logits_of(probs_BC, task)
    scaled_BC, fitted = np.empty_like(probs_BC), []
    for fit, judge in halves(len(probs_BC), seed):
        found = temperature.fit(logits_BC[fit], truth[fit], task).value
        scaled_BC[judge] = temperature.scale_logits(logits_BC[judge], found, task)
        fitted.append(found)
    return scaled_BC, tuple(fitted)
