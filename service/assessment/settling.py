"""How estimates settle with the number of passes, so that a user sees which T is enough.

What T' passes would have said is drawn with replacement from the T that were run (Efron 1979), some
`DRAWS` times; the spread over draws is the Monte Carlo noise of T' passes. A draw is a vector of
weights over the passes, so that a sample's mean and mean entropy are products with it.

Draws with replacement hold fewer distinct passes than T' new ones: at T' = T nothing is known of
more passes than T, and near it noise is slightly underrated (by a factor √(1 − 1/T)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from service.assessment.measured import Measured
from service.assessment.methods import class_truth, exclusive, exclusive_task, row_log_likelihood
from service.assessment.regression_methods import squared_errors
from service.calibration.checks import FloatArray, IntArray
from service.calibration.reliability import accuracy
from service.types import Task

DRAWS = 24
ROWS = 2000
"""Rows that are looked at, evenly spaced among the kept ones."""
WITHIN = 0.1
"""A measure has settled when its noise is at most this share of it."""
_STEPS = (2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


@dataclass(frozen=True, slots=True)
class Settling:
    """What each number of passes leaves open.

    Args:
        passes: T', ascending, the last the T that were run.
        rows: looked at.
        noise: by measure, at each T': root mean square over rows of the spread over draws, as a
            share of the measure's own root mean square; where most rows have next to none, those
            that have some count.
        enough: by measure, the fewest passes with noise of at most `WITHIN`; extrapolated with
            noise ∝ 1/√T' beyond T.
        quality: `accuracy` and `log_likelihood`, or `root_mean_squared_error`: mean over draws at
            each T'.
        quality_noise: spread of them over draws.
        judged_by: which of them tells when the predictions have settled.
        judged_error: its standard error from the number of rows alone.
        predictions_enough: the fewest passes at which what is lost of it, and its noise, are
            below that standard error; None where that is at no T' < T.
    """

    passes: tuple[int, ...]
    rows: int
    noise: Mapping[str, tuple[float, ...]]
    enough: Mapping[str, int]
    quality: Mapping[str, tuple[float, ...]]
    quality_noise: Mapping[str, tuple[float, ...]]
    judged_by: str
    judged_error: float
    predictions_enough: int | None


def settling(measured: Measured, targets: FloatArray | IntArray, seed: int) -> Settling:
    """Draw samples of fewer passes from those that were kept.

    Args:
        measured: on the rows.
        targets: as `data.Labelled` holds them.
        seed: of the draws.
    """
    places = _evenly(len(measured.kept_rows), ROWS)
    rows = measured.kept_rows[places]
    passes_TBC = measured.passes_TBC[:, places].astype(np.float64)
    truth = targets[rows]
    generator = np.random.default_rng(seed)
    steps = [step for step in _STEPS if step < measured.passes] + [measured.passes]
    noise: dict[str, list[float]] = {}
    quality: dict[str, list[float]] = {}
    quality_noise: dict[str, list[float]] = {}
    sampling = _Sampling(measured, passes_TBC, truth)
    for step in steps:
        chances = np.full(measured.passes, 1 / measured.passes)
        weights_RT = generator.multinomial(step, chances, size=DRAWS) / step
        values, qualities = sampling.of(weights_RT, step)
        for name, share in values.items():
            noise.setdefault(name, []).append(share)
        for name, (mean, spread) in qualities.items():
            quality.setdefault(name, []).append(mean)
            quality_noise.setdefault(name, []).append(spread)
    judged_by = "root_mean_squared_error" if measured.task.is_regression else "log_likelihood"
    error = sampling.standard_error()
    return Settling(
        passes=tuple(steps),
        rows=len(rows),
        noise={name: tuple(shares) for name, shares in noise.items()},
        enough={name: _enough(steps, shares) for name, shares in noise.items()},
        quality={name: tuple(each) for name, each in quality.items()},
        quality_noise={name: tuple(each) for name, each in quality_noise.items()},
        judged_by=judged_by,
        judged_error=error,
        predictions_enough=_settled(steps, quality[judged_by], quality_noise[judged_by], error),
    )


class _Sampling:
    """Estimates from weighted passes."""

    def __init__(
        self, measured: Measured, passes_TBC: FloatArray, truth: FloatArray | IntArray
    ) -> None:
        self._task = measured.task
        self._passes, self._rows, self._width = passes_TBC.shape
        # Centred: a variance is then no difference of large numbers.
        self._centre_BC = passes_TBC.mean(axis=0)
        self._centred = (passes_TBC - self._centre_BC).reshape(self._passes, -1)
        self._truth = truth
        if not self._task.is_regression:
            self._truth = class_truth(measured, truth)
            self._entropy_TB = _entropy(passes_TBC, self._task)

    def of(
        self, weights_RT: FloatArray, passes: int
    ) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Noise of measures, mean and noise of qualities, over draws."""
        shape = len(weights_RT), self._rows, self._width
        mean_RBC = self._centre_BC + (weights_RT @ self._centred).reshape(shape)
        squares = (weights_RT @ self._centred**2).reshape(shape)
        variance_RBC = np.maximum(squares - (mean_RBC - self._centre_BC) ** 2, 0)
        variance_RB = variance_RBC.mean(axis=-1) * passes / (passes - 1)
        if self._task.is_regression:
            measures = {"std": np.sqrt(variance_RB)}
            losses = [squared_errors(each, self._truth).mean() for each in mean_RBC]
            qualities = {"root_mean_squared_error": np.sqrt(losses)}
        else:
            # Of probabilities, which rounding takes out of their range where all but all agree.
            mean_RBC = np.clip(mean_RBC, 0.0, 1.0)
            whole_RB = _entropy(mean_RBC, self._task)
            information_RB = np.maximum(whole_RB - weights_RT @ self._entropy_TB, 0)
            measures = {
                "predictive_entropy": whole_RB,
                "mutual_information": information_RB,
                "variance": variance_RB,
            }
            qualities = self._qualities(mean_RBC)
        return (
            {name: _noise(values_RB) for name, values_RB in measures.items()},
            {name: (float(each.mean()), float(each.std())) for name, each in qualities.items()},
        )

    def standard_error(self) -> float:
        """Of the log-likelihood, or of the root mean squared error, with all passes."""
        if self._task.is_regression:
            squared_B = squared_errors(self._centre_BC, self._truth)
            # d √m = dm / (2 √m), the delta method.
            root = math.sqrt(squared_B.mean())
            return _error(squared_B) / (2 * root) if root > 0 else 0.0
        probs_BC = exclusive(self._centre_BC, self._task)
        return _error(row_log_likelihood(probs_BC, self._truth, exclusive_task(self._task)))

    def _qualities(self, mean_RBC: FloatArray) -> dict[str, FloatArray]:
        task = exclusive_task(self._task)
        probs = [exclusive(each, self._task) for each in mean_RBC]
        right = [accuracy(each, self._truth, task) for each in probs]
        logs = [row_log_likelihood(each, self._truth, task).mean() for each in probs]
        return {"log_likelihood": np.asarray(logs), "accuracy": np.asarray(right)}


def _entropy(probs: FloatArray, task: Task) -> FloatArray:
    """Of classes, or summed over independent labels, nats. [..., C] → [...]."""
    terms = special.entr(probs)
    if task is not Task.CLASSIFICATION:
        terms = terms + special.entr(1 - probs)
    entropy: FloatArray = terms.sum(axis=-1)
    return entropy


def _noise(values_RB: FloatArray) -> float:
    """Spread over draws as a share of the values, both as root mean squares over rows."""
    size = float((values_RB.mean(axis=0) ** 2).mean())
    spread = float(values_RB.var(axis=0, ddof=1).mean())
    return math.sqrt(spread / size) if size > 0 else 0.0


def _error(values_B: FloatArray) -> float:
    """Standard error of a mean."""
    return float(values_B.std(ddof=1)) / math.sqrt(len(values_B)) if len(values_B) > 1 else 0.0


def _enough(steps: Sequence[int], shares: Sequence[float]) -> int:
    for step, share in zip(steps, shares, strict=True):
        if share <= WITHIN:
            return step
    return math.ceil(steps[-1] * (shares[-1] / WITHIN) ** 2)


def _settled(
    steps: Sequence[int], quality: Sequence[float], noise: Sequence[float], error: float
) -> int | None:
    found = zip(steps[:-1], quality[:-1], noise[:-1], strict=True)
    open_ = ((step, max(abs(value - quality[-1]), spread)) for step, value, spread in found)
    return next((step for step, gap in open_ if gap <= error), None)


def _evenly(rows: int, most: int) -> IntArray:
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64))
