"""How good a regression's predictive distribution is: errors, likelihood, coverage, calibration.

The predictive distribution of an output is the mixture over passes of N(mean_t, noise variance),
not the Gaussian of the same moments (Gal and Ghahramani, "Dropout as a Bayesian approximation",
ICML 2016, eq. 8 of its appendix). Outputs are taken by themselves.

Noise variances may be given for all, each output, row or pass: whatever broadcasts to [T, B, C].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from service.calibration import checks
from service.calibration.checks import FloatArray
from service.errors import CalibrationFailed

LEVELS = tuple(step / 20 for step in range(1, 20))
"""Of the predictive quantiles in a calibration curve."""

_HALF_LOG_2_PI = 0.5 * float(np.log(2 * np.pi))


@dataclass(frozen=True, slots=True)
class CalibrationCurve:
    """How often targets are below predictive quantiles.

    Args:
        levels: of the quantiles.
        observed: share of targets at or below the quantile of each level.
        error: Σ (level − observed)² (Kuleshov et al. 2018, eq. 9, with equal weights).
    """

    levels: tuple[float, ...]
    observed: tuple[float, ...]
    error: float


def root_mean_squared_error(mean_BC: ArrayLike, targets_BC: ArrayLike) -> FloatArray:
    """√ mean over rows of (mean − y)², in the target's units. [B, C] → [C].

    Raises:
        CalibrationFailed: shapes that differ, or numbers that are not finite.
        TooFewRows: no rows.
    """
    mean_BC, targets_BC = _pair("mean", mean_BC, targets_BC, "BC")
    error_C: FloatArray = np.sqrt(((mean_BC - targets_BC) ** 2).mean(axis=0))
    return error_C


def log_density(
    means_TBC: ArrayLike, targets_BC: ArrayLike, noise_variance: ArrayLike
) -> FloatArray:
    """ln 1/T Σ_t N(y; mean_t, noise variance), nats. [T, B, C] → [B, C].

    Raises:
        CalibrationFailed: shapes that differ, numbers that are not finite, a variance that is not
            positive.
        TooFewRows: no rows.
    """
    means_TBC, targets_BC = _pair("means", means_TBC, targets_BC, "TBC")
    variance = _variance(noise_variance, means_TBC.shape)
    squared_TBC = (targets_BC - means_TBC) ** 2
    logs_TBC = -0.5 * (squared_TBC / variance + np.log(variance)) - _HALF_LOG_2_PI
    density_BC: FloatArray = special.logsumexp(logs_TBC, axis=0) - np.log(len(means_TBC))
    return density_BC


def predictive_cdf(
    means_TBC: ArrayLike, targets_BC: ArrayLike, noise_variance: ArrayLike
) -> FloatArray:
    """1/T Σ_t Φ((y − mean_t) / σ): where targets stand in their distribution. [T, B, C] → [B, C].

    Uniform between 0 and 1 if the predictive distribution is right (Dawid 1984).

    Raises:
        CalibrationFailed: as for `log_density`.
        TooFewRows: no rows.
    """
    means_TBC, targets_BC = _pair("means", means_TBC, targets_BC, "TBC")
    variance = _variance(noise_variance, means_TBC.shape)
    below_BC: FloatArray = special.ndtr((targets_BC - means_TBC) / np.sqrt(variance)).mean(axis=0)
    return below_BC


def calibration_curve(cdf_B: ArrayLike, levels: ArrayLike = LEVELS) -> CalibrationCurve:
    """The share of targets below each predictive quantile.

    Kuleshov, Fenner and Ermon, "Accurate uncertainties for deep learning using calibrated
    regression" (ICML 2018), section 3.5.

    Args:
        cdf_B: of one output, by `predictive_cdf` [B].
        levels: between 0 and 1.

    Raises:
        CalibrationFailed: numbers that are not between 0 and 1.
        TooFewRows: no rows.
    """
    cdf_B = checks.shares("cdf", cdf_B, "B")
    checks.enough_rows("cdf", len(cdf_B), 1, "a calibration curve")
    levels_K = checks.shares("levels", levels, "K")
    observed_K = np.searchsorted(np.sort(cdf_B), levels_K, side="right") / len(cdf_B)
    return CalibrationCurve(
        levels=tuple(levels_K.tolist()),
        observed=tuple(observed_K.tolist()),
        error=float(((levels_K - observed_K) ** 2).sum()),
    )


def interval_coverage(intervals_BC2: ArrayLike, targets_BC: ArrayLike) -> FloatArray:
    """Share of intervals that hold their target, ends included. [B, C, 2] → [C].

    Raises:
        CalibrationFailed: shapes that do not fit, or numbers that are not finite.
        TooFewRows: no rows.
    """
    low_BC, high_BC = _ends(intervals_BC2)
    targets_BC = checks.finite("targets", targets_BC, "BC")
    checks.same_shape("targets", targets_BC, low_BC.shape, "intervals")
    coverage_C: FloatArray = ((low_BC <= targets_BC) & (targets_BC <= high_BC)).mean(axis=0)
    return coverage_C


def interval_width(intervals_BC2: ArrayLike) -> FloatArray:
    """Mean width, in the target's units: sharpness, the smaller the better. [B, C, 2] → [C].

    Raises:
        CalibrationFailed: shapes that do not fit, or numbers that are not finite.
        TooFewRows: no rows.
    """
    low_BC, high_BC = _ends(intervals_BC2)
    width_C: FloatArray = (high_BC - low_BC).mean(axis=0)
    return width_C


def _pair(
    field: str, predicted: ArrayLike, targets_BC: ArrayLike, axes: str
) -> tuple[FloatArray, FloatArray]:
    predicted = checks.finite(field, predicted, axes)
    targets_BC = checks.finite("targets", targets_BC, "BC")
    checks.same_shape("targets", targets_BC, predicted.shape[-2:], field)
    checks.enough_rows(field, len(targets_BC), 1, "a mean over rows")
    return predicted, targets_BC


def _variance(noise_variance: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    variance = np.asarray(noise_variance, dtype=np.float64)
    try:
        np.broadcast_to(variance, shape)
    except ValueError:
        checks.same_shape("noise_variance", variance, shape, "means")
    if not ((variance > 0) & np.isfinite(variance)).all():
        raise CalibrationFailed(
            "`noise_variance` should hold positive numbers; without noise a target has no "
            "likelihood",
            field="noise_variance",
        )
    return variance


def _ends(intervals_BC2: ArrayLike) -> tuple[FloatArray, FloatArray]:
    ends = checks.finite("intervals", intervals_BC2, "BC2")
    if ends.shape[2] != 2:
        raise CalibrationFailed(
            f"`intervals` should hold low and high [B, C, 2]; it has the shape {list(ends.shape)}",
            field="intervals",
        )
    checks.enough_rows("intervals", len(ends), 1, "a mean over rows")
    return ends[..., 0], ends[..., 1]
