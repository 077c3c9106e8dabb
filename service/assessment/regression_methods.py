"""What each method's predictive distribution of a regression is worth on held-out rows.

A network that does not predict its noise needs a noise variance: it is given, or cross-fitted as in
`methods`. The distribution of MC dropout is then the mixture over passes with that noise; the
spread of the passes alone, which many read as an interval, is reported to show what it misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.assessment.measured import Contender, Measured
from service.assessment.methods import (
    DETERMINISTIC,
    MC_DROPOUT,
    TITLES,
    Difference,
    difference,
    halves,
)
from service.calibration import checks, regression
from service.calibration.checks import FloatArray, IntArray
from service.calibration.noise import fit_noise_variance
from service.calibration.regression import CalibrationCurve
from service.errors import CalibrationFailed

SPREAD_ALONE = "spread_alone"
LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Of central intervals."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many targets the central interval of a level holds."""

    level: float
    observed: float


@dataclass(frozen=True, slots=True)
class RegressionMethod:
    """One method of predicting values.

    Args:
        name: of the method in the report's JSON.
        title: for people.
        rows: that it was judged on.
        root_mean_squared_error: of each output [C], in the target's units.
        log_likelihood: mean over rows, summed over outputs, nats. None without noise.
        gain: in it over the deterministic pass.
        over_mc_dropout: the same over MC dropout.
        noise_std: of each output [C]: given, or the mean of both halves; None where the network
            predicts it for each row.
        curve: targets below predictive quantiles, all outputs together.
        coverage: of central intervals, all outputs together.
    """

    name: str
    title: str
    rows: int
    root_mean_squared_error: tuple[float, ...]
    log_likelihood: float | None
    gain: Difference | None
    over_mc_dropout: Difference | None
    noise_std: tuple[float, ...] | None
    curve: CalibrationCurve
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Distribution:
    """A mixture over passes [T, B, C] with a noise variance [B, C]."""

    means_TBC: FloatArray
    noise_BC: FloatArray

    def log_density(self, truth_BC: FloatArray) -> FloatArray:
        """Of each row, summed over outputs, nats. → [B]."""
        density_BC = regression.log_density(self.means_TBC, truth_BC, self.noise_BC)
        total_B: FloatArray = density_BC.sum(axis=1)
        return total_B


def regression_methods(
    measured: Measured,
    targets_BC: FloatArray,
    *,
    given_noise: Sequence[float] | None,
    contenders: Sequence[Contender] = (),
    seed: int,
) -> tuple[RegressionMethod, ...]:
    """The deterministic pass, MC dropout, contenders, and the spread of MC dropout's passes alone.

    All are judged on the kept rows.

    Args:
        measured: on the rows.
        targets_BC: true values.
        given_noise: noise variance of each output, fitted on other rows; None: cross-fitted, or
            the network's own.
        contenders: further methods; their noise is their own or cross-fitted.
        seed: of the halves.

    Raises:
        CalibrationFailed: targets that do not fit the outputs.
        TooFewRows: fewer than four rows.
    """
    kept = measured.kept_rows
    truth_BC = targets_BC[kept]
    checks.enough_rows("y", len(truth_BC), 4, "a noise variance that is fitted on one half")

    def distribution(
        means_TBC: FloatArray, own_BC: FloatArray | None, given: Sequence[float] | None = None
    ) -> _Distribution:
        own_BC = None if own_BC is None else own_BC[kept] ** 2
        return _Distribution(means_TBC, _noise(means_TBC, truth_BC, own_BC, given, seed))

    def of_passes(each: Measured, given: Sequence[float] | None = None) -> _Distribution:
        return distribution(each.passes_TBC.astype(np.float64), each.aleatoric_std_BC, given)

    plain = distribution(
        measured.deterministic_BC[None, kept], measured.deterministic_std_BC, given_noise
    )
    passes = of_passes(measured, given_noise)
    plain_B, passes_B = plain.log_density(truth_BC), passes.log_density(truth_BC)
    found = []
    for name, title, mean_BC, predicted, own_noise in (
        (DETERMINISTIC, TITLES[DETERMINISTIC], measured.deterministic_BC, plain, measured),
        (MC_DROPOUT, TITLES[MC_DROPOUT], measured.mean_BC, passes, measured),
        *(
            (each.name, each.title, each.measured.mean_BC, of_passes(each.measured), each.measured)
            for each in contenders
        ),
    ):
        density_B = predicted.log_density(truth_BC)
        cdf_BC = regression.predictive_cdf(predicted.means_TBC, truth_BC, predicted.noise_BC)
        predicts_noise = own_noise.aleatoric_std_BC is not None
        found.append(
            RegressionMethod(
                name=name,
                title=title,
                rows=len(kept),
                root_mean_squared_error=_rmse(mean_BC[kept], truth_BC),
                log_likelihood=float(density_B.mean()),
                gain=difference(density_B, plain_B),
                over_mc_dropout=difference(density_B, passes_B),
                noise_std=None if predicts_noise else _root_mean(predicted.noise_BC),
                curve=regression.calibration_curve(cdf_BC.ravel()),
                coverage=_coverage(cdf_BC),
            )
        )
    alone_BC = _spread_alone(measured, truth_BC)
    found.append(
        RegressionMethod(
            name=SPREAD_ALONE,
            title="MC dropout, spread of passes alone",
            rows=len(kept),
            root_mean_squared_error=_rmse(measured.mean_BC[kept], truth_BC),
            log_likelihood=None,
            gain=None,
            over_mc_dropout=None,
            noise_std=None,
            curve=regression.calibration_curve(alone_BC.ravel()),
            coverage=_coverage(alone_BC),
        )
    )
    return tuple(found)


def squared_errors(mean_BC: FloatArray, targets_BC: FloatArray | IntArray) -> FloatArray:
    """Mean over outputs of the squared error. [B, C] → [B], in squared units of a single output.

    Several outputs may have several units: each is then divided by its targets' variance.
    """
    squared_BC = (mean_BC - targets_BC) ** 2
    if squared_BC.shape[1] > 1:
        variance_C = targets_BC.var(axis=0)
        if (variance_C == 0).any():
            output = int((variance_C == 0).argmax())
            raise CalibrationFailed(
                f"`y` has one and the same value in every row of output {output}; errors of "
                "several outputs are compared in units of their targets' spread",
                field="y",
            )
        squared_BC = squared_BC / variance_C
    mean_B: FloatArray = squared_BC.mean(axis=1)
    return mean_B


def _noise(
    means_TBC: FloatArray,
    truth_BC: FloatArray,
    own_BC: FloatArray | None,
    given: Sequence[float] | None,
    seed: int,
) -> FloatArray:
    """The noise variance that each row is judged with, [B, C]."""
    if given is not None:
        return np.broadcast_to(np.asarray(given, dtype=np.float64), truth_BC.shape)
    if own_BC is not None:
        return own_BC
    variance_BC = np.empty_like(truth_BC)
    for fit, judge in halves(len(truth_BC), seed):
        variance_BC[judge] = fit_noise_variance(means_TBC[:, fit], truth_BC[fit]).variance
    return variance_BC


def _spread_alone(measured: Measured, truth_BC: FloatArray) -> FloatArray:
    """Where targets stand in N(mean, std²) of the passes. → [B, C]."""
    std_BC = measured.std_BC[measured.kept_rows]
    mean_BC = measured.mean_BC[measured.kept_rows]
    # Passes that all agree: a target is below, above, or met.
    floored_BC = np.maximum(std_BC, np.finfo(np.float64).tiny ** 0.5)
    return regression.predictive_cdf(mean_BC[None], truth_BC, floored_BC**2)


def _coverage(cdf_BC: FloatArray) -> tuple[Coverage, ...]:
    inside = np.abs(2 * cdf_BC - 1)
    return tuple(Coverage(level, float((inside <= level).mean())) for level in LEVELS)


def _rmse(mean_BC: FloatArray, truth_BC: FloatArray) -> tuple[float, ...]:
    return tuple(regression.root_mean_squared_error(mean_BC, truth_BC).tolist())


def _root_mean(variance_BC: ArrayLike) -> tuple[float, ...]:
    return tuple(np.sqrt(np.asarray(variance_BC).mean(axis=0)).tolist())
