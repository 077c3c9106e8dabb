"""The noise of a regression whose network does not predict it, from held-out data.

Gal and Ghahramani, "Dropout as a Bayesian approximation" (ICML 2016), choose the precision τ that
makes held-out targets likeliest under the mixture over passes,

    1/B Σ_b ln 1/T Σ_t N(y_b; mean_tb, 1/τ)

(eq. 8 of the appendix, without their constants); the noise variance 1/τ is the aleatoric part of
every row. Each output has its own.

The likelihood need not be concave in ln 1/τ, but where it is largest is known to within bounds: its
slope is zero where 1/τ = 1/B Σ_b Σ_t w_tb (y_b − mean_tb)² with weights w that sum to one over
passes, hence between the means over rows of the smallest and of the largest squared residual. The
best of a grid between these is refined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike
from scipy import special

from service.calibration import checks
from service.calibration.checks import FloatArray
from service.errors import CalibrationFailed

_GRID = 65
_FLOOR = 1e-12
"""Of the largest squared residual: a smaller noise variance is not looked for."""


@dataclass(frozen=True, slots=True)
class NoiseVariance:
    """Homoscedastic noise, of each output.

    Args:
        variance: 1/τ, in squared units of the target.
        log_likelihood: mean over rows at that variance, nats.
        rows: the calibration rows.
    """

    variance: tuple[float, ...]
    log_likelihood: tuple[float, ...]
    rows: int

    @property
    def aleatoric_std(self) -> tuple[float, ...]:
        """√(1/τ) of each output, in the target's units."""
        return tuple(math.sqrt(value) for value in self.variance)


def fit_noise_variance(means_TBC: ArrayLike, targets_BC: ArrayLike) -> NoiseVariance:
    """The noise variance of each output under which held-out targets are likeliest.

    Args:
        means_TBC: outputs of every pass on held-out rows [T, B, C].
        targets_BC: true values [B, C].

    Raises:
        CalibrationFailed: shapes that do not fit, numbers that are not finite, or passes that all
            meet every target exactly.
        TooFewRows: fewer than two rows.
    """
    means_TBC = checks.finite("means", means_TBC, "TBC")
    targets_BC = checks.finite("targets", targets_BC, "BC")
    checks.same_shape("targets", targets_BC, means_TBC.shape[1:], "means")
    checks.enough_rows("means", len(targets_BC), 2, "a noise variance")
    found = [_fit((targets_BC - means_TBC)[..., c] ** 2) for c in range(targets_BC.shape[1])]
    return NoiseVariance(
        variance=tuple(variance for variance, _ in found),
        log_likelihood=tuple(likelihood for _, likelihood in found),
        rows=len(targets_BC),
    )


def _fit(squared_TB: FloatArray) -> tuple[float, float]:
    """The likeliest variance of one output, and its mean log-likelihood."""
    largest = float(squared_TB.max(axis=0).mean())
    if largest == 0:
        raise CalibrationFailed(
            "every pass meets every target exactly, so there is no noise to fit: are these the "
            "rows it was trained on?",
            field="targets",
        )
    smallest = max(float(squared_TB.min(axis=0).mean()), _FLOOR * largest)

    def loss(log_variance: float) -> float:
        logs_TB = -0.5 * (squared_TB * math.exp(-log_variance) + log_variance)
        mean = float(special.logsumexp(logs_TB, axis=0).mean())
        return 0.5 * math.log(2 * math.pi) + math.log(len(squared_TB)) - mean

    grid = np.linspace(math.log(smallest), math.log(largest), _GRID)
    best = int(np.argmin([loss(each) for each in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    candidates = [float(grid[best])]
    if around[0] < around[1]:
        found = scipy.optimize.minimize_scalar(
            loss, bounds=around, method="bounded", options={"xatol": 1e-9}
        )
        candidates.append(float(found.x))
    likeliest = min(candidates, key=loss)
    return math.exp(likeliest), -loss(likeliest)
