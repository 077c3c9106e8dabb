"""Temperature scaling: one number that makes probabilities as sure as they are right.

Logits are divided by T, fitted by the likelihood of held-out labels (Guo et al., "On calibration of
modern neural networks", ICML 2017). Scaling the mean over passes, softmax(ln p̄ / T), is the
default: a mean of calibrated predictions is underconfident, so calibrating each pass and then
averaging undoes itself, and what should be right is what is reported (Rahaman and Thiery,
"Uncertainty quantification and deep ensembles", NeurIPS 2021, section 4, "pool then calibrate").
`fit_passes` scales the passes instead, for comparison.

With β = 1 / T the negative log-likelihood of softmax(β z) is convex, ln Σ exp(β z) less a linear
term, so its slope E_p[z] − z_y rises with β and has one root, found on the scale of ln β. It has
none where every true label has the largest logit (separable: the more sure the better, without end)
and where logits are worth no more than none (β = 0 is best).

Exclusive classes have logits [B, C] and labels [B]; independent labels, one logit each, have
labels [B, C] of zeros and ones, and one temperature for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy import special

from service.calibration import checks
from service.calibration.checks import FloatArray
from service.errors import CalibrationFailed
from service.types import Task

LOWEST = 1e-2
HIGHEST = 1e2
"""Temperatures beyond are not told apart: probabilities are all but zero and one, or all equal."""

_GRID = 33
_TINY = float(np.finfo(np.float64).tiny)
_EPSILON = float(np.finfo(np.float64).eps)


class Outcome(StrEnum):
    """How a fit ended.

    fitted: the likelihood has its maximum within the bounds.
    separable: every true label has the largest logit; no temperature is best, 1 is kept.
    bounded: the maximum is beyond `LOWEST` or `HIGHEST`, which is taken. At `HIGHEST` the logits
        are worth little more than none.
    """

    FITTED = "fitted"
    SEPARABLE = "separable"
    BOUNDED = "bounded"


@dataclass(frozen=True, slots=True)
class Temperature:
    """A fitted temperature.

    Args:
        value: T; above 1 the model was too sure.
        outcome: how the fit ended.
        rows: the calibration rows.
        log_likelihood_before: mean over rows, nats, at T = 1.
        log_likelihood_after: the same at `value`, on the rows it was fitted on.
    """

    value: float
    outcome: Outcome
    rows: int
    log_likelihood_before: float
    log_likelihood_after: float


def logits_of(probs_BC: ArrayLike, task: Task) -> FloatArray:
    """ln p of exclusive classes, ln p / (1 − p) of independent labels. [B, C] → [B, C].

    Probabilities of zero, and of one for independent labels, count as the next that float64 has.

    Raises:
        CalibrationFailed: numbers that are no probabilities.
    """
    _classifies(task)
    if task is Task.CLASSIFICATION:
        probs_BC = checks.probabilities("probs", probs_BC)
        return np.log(np.maximum(probs_BC, _TINY))
    probs_BC = checks.shares("probs", probs_BC, "BC")
    logits_BC: FloatArray = special.logit(np.clip(probs_BC, _TINY, 1 - _EPSILON))
    return logits_BC


def fit(logits_BC: ArrayLike, labels: ArrayLike, task: Task) -> Temperature:
    """Fit the temperature of logits: a deterministic pass's, or `logits_of` a mean.

    Args:
        logits_BC: of held-out rows [B, C].
        labels: true classes [B]; of independent labels zeros and ones [B, C].
        task: `classification`, `binary` or `multilabel`.

    Raises:
        CalibrationFailed: numbers or labels that cannot be used, or a task without classes.
        TooFewRows: no rows.
    """
    logits_BC, truth_BC = _checked(logits_BC, labels, task, "BC")

    def slope(log_beta: float) -> float:
        probs_BC = _probs(logits_BC * math.exp(log_beta), task)
        return float(((probs_BC - truth_BC) * logits_BC).sum(axis=1).mean())

    if _separable(logits_BC, truth_BC, task):
        value, outcome = 1.0, Outcome.SEPARABLE
    elif slope(-math.log(HIGHEST)) >= 0:
        value, outcome = HIGHEST, Outcome.BOUNDED
    elif slope(-math.log(LOWEST)) <= 0:
        value, outcome = LOWEST, Outcome.BOUNDED
    else:
        log_beta = scipy.optimize.brentq(slope, -math.log(HIGHEST), -math.log(LOWEST), xtol=1e-12)
        value, outcome = math.exp(-log_beta), Outcome.FITTED
    return Temperature(
        value=value,
        outcome=outcome,
        rows=len(logits_BC),
        log_likelihood_before=_log_likelihood(logits_BC, truth_BC, task),
        log_likelihood_after=_log_likelihood(logits_BC / value, truth_BC, task),
    )


def fit_passes(logits_TBC: ArrayLike, labels: ArrayLike, task: Task) -> Temperature:
    """Fit the temperature of every pass, so that the mean of their probabilities fits best.

    The likelihood of a mean is not concave: the best of a grid on ln T is refined.

    Args:
        logits_TBC: of held-out rows [T, B, C].
        labels: as in `fit`.
        task: as in `fit`.

    Raises:
        CalibrationFailed: as in `fit`.
        TooFewRows: no rows.
    """
    logits_TBC, truth_BC = _checked(logits_TBC, labels, task, "TBC")

    def loss(log_temperature: float) -> float:
        mean_BC = _probs(logits_TBC / math.exp(log_temperature), task).mean(axis=0)
        return -_log_likelihood(logits_of(mean_BC, task), truth_BC, task)

    if all(_separable(each_BC, truth_BC, task) for each_BC in logits_TBC):
        value, outcome = 1.0, Outcome.SEPARABLE
    else:
        grid = np.linspace(math.log(LOWEST), math.log(HIGHEST), _GRID)
        best = int(np.argmin([loss(each) for each in grid]))
        around = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
        found = scipy.optimize.minimize_scalar(loss, bounds=around, method="bounded")
        value = math.exp(float(found.x))
        inside = 0 < best < _GRID - 1
        outcome = Outcome.FITTED if inside else Outcome.BOUNDED
    return Temperature(value, outcome, len(truth_BC), -loss(0.0), -loss(math.log(value)))


def scale_logits(logits_BC: ArrayLike, temperature: float, task: Task) -> FloatArray:
    """Probabilities of logits over T. [..., C] → [..., C]."""
    _classifies(task)
    return _probs(np.asarray(logits_BC, dtype=np.float64) / temperature, task)


def scale_mean(probs_BC: ArrayLike, temperature: float, task: Task) -> FloatArray:
    """The mean's probabilities, calibrated. [B, C] → [B, C].

    Raises:
        CalibrationFailed: numbers that are no probabilities.
    """
    return scale_logits(logits_of(probs_BC, task), temperature, task)


def scale_passes(logits_TBC: ArrayLike, temperature: float, task: Task) -> FloatArray:
    """Mean over passes of their scaled probabilities. [T, B, C] → [B, C]."""
    mean_BC: FloatArray = scale_logits(logits_TBC, temperature, task).mean(axis=0)
    return mean_BC


def _checked(
    logits: ArrayLike, labels: ArrayLike, task: Task, axes: str
) -> tuple[FloatArray, FloatArray]:
    """Logits, and the truth as probabilities [B, C]."""
    _classifies(task)
    array = checks.finite("logits", logits, axes)
    rows, classes = array.shape[-2:]
    checks.enough_rows("logits", rows, 1, "a temperature")
    if task is not Task.CLASSIFICATION:
        return array, checks.binary_labels("labels", labels, (rows, classes))
    labels_B = checks.class_labels("labels", labels, rows, classes)
    return array, np.eye(classes)[labels_B]


def _classifies(task: Task) -> None:
    if task.is_regression:
        raise CalibrationFailed(f"{task.value} has no temperature", field="task", received=task)


def _probs(logits: FloatArray, task: Task) -> FloatArray:
    probs: FloatArray = (
        special.softmax(logits, axis=-1) if task is Task.CLASSIFICATION else special.expit(logits)
    )
    return probs


def _log_likelihood(logits_BC: FloatArray, truth_BC: FloatArray, task: Task) -> float:
    """Mean over rows of ln p(labels), of independent labels their sum."""
    if task is Task.CLASSIFICATION:
        logs_BC = special.log_softmax(logits_BC, axis=1)
        return float((truth_BC * logs_BC).sum(axis=1).mean())
    signed_BC = np.where(truth_BC > 0, logits_BC, -logits_BC)
    return float(special.log_expit(signed_BC).sum(axis=1).mean())


def _separable(logits_BC: FloatArray, truth_BC: FloatArray, task: Task) -> bool:
    """Whether surer is always better: no logit speaks against the truth, and some for it."""
    if task is not Task.CLASSIFICATION:
        margins = np.where(truth_BC > 0, logits_BC, -logits_BC)
        return bool((margins >= 0).all() and (margins > 0).any())
    own_B = (truth_BC * logits_BC).sum(axis=1)
    others_BC = np.where(truth_BC > 0, -np.inf, logits_BC)
    margins = own_B - others_BC.max(axis=1)
    return bool((margins >= 0).all() and (own_B[:, None] > logits_BC).any())
