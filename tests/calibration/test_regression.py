"""A regression's predictive distribution: against scipy, by simulation, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import root_mean_squared_error

from service.calibration import regression
from service.errors import CalibrationFailed, TooFewRows

RNG = np.random.default_rng(0)
MEANS, TARGETS = RNG.normal(size=(6, 40, 2)), RNG.normal(size=(40, 2))
VARIANCES = np.array([0.5, 2.0])


def test_errors_of_each_output_are_those_of_scikit_learn() -> None:
    expected = root_mean_squared_error(TARGETS, MEANS[0], multioutput="raw_values")
    np.testing.assert_allclose(regression.root_mean_squared_error(MEANS[0], TARGETS), expected)


def test_density_and_distribution_are_those_of_the_mixture() -> None:
    passes = stats.norm(MEANS, np.sqrt(VARIANCES))
    np.testing.assert_allclose(
        regression.log_density(MEANS, TARGETS, VARIANCES),
        np.log(passes.pdf(TARGETS).mean(axis=0)),
        rtol=1e-10,
    )
    np.testing.assert_allclose(
        regression.predictive_cdf(MEANS, TARGETS, VARIANCES),
        passes.cdf(TARGETS).mean(axis=0),
        rtol=1e-10,
    )


def test_noise_may_differ_between_passes() -> None:
    variances = np.exp(RNG.normal(size=MEANS.shape))
    expected = np.log(stats.norm(MEANS, np.sqrt(variances)).pdf(TARGETS).mean(axis=0))
    found = regression.log_density(MEANS, TARGETS, variances)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_target_far_away_keeps_a_finite_likelihood() -> None:
    far = regression.log_density(np.zeros((2, 1, 1)), [[1e3]], 1.0)[0, 0]
    assert far == pytest.approx(-0.5e6 - 0.5 * math.log(2 * math.pi))


def test_the_calibration_curve_of_the_right_distribution_is_the_diagonal() -> None:
    """Targets drawn from the mixture itself: shares are binomial."""
    generator, rows = np.random.default_rng(1), 5000
    means = generator.normal(size=(5, rows, 1))
    chosen = means[generator.integers(0, 5, size=rows), np.arange(rows)]
    targets = chosen + math.sqrt(0.3) * generator.normal(size=(rows, 1))
    cdf = regression.predictive_cdf(means, targets, 0.3)[:, 0]
    curve = regression.calibration_curve(cdf)
    for level, observed in zip(curve.levels, curve.observed, strict=True):
        low, high = stats.binom.ppf([1e-7, 1 - 1e-7], rows, level) / rows
        assert low <= observed <= high
    # Σ of the binomial variances, and twenty times that as a bound of Markov's at 5 %.
    levels = np.array(curve.levels)
    assert curve.error < 20 * (levels * (1 - levels)).sum() / rows
    narrow = regression.predictive_cdf(means, targets, 0.003)[:, 0]
    assert regression.calibration_curve(narrow).error > 20 * curve.error


def test_the_calibration_curve_by_hand() -> None:
    curve = regression.calibration_curve([0.1, 0.5, 0.5, 0.8], [0.0, 0.5, 1.0])
    assert curve.observed == (0.0, 0.75, 1.0)
    assert curve.error == pytest.approx(0.0625)


def test_coverage_and_width_of_intervals() -> None:
    intervals = np.array([[[0.0, 1.0], [0.0, 4.0]], [[0.0, 3.0], [2.0, 4.0]]])
    targets = [[1.0, 5.0], [-1.0, 3.0]]
    assert regression.interval_coverage(intervals, targets).tolist() == [0.5, 0.5]
    assert regression.interval_width(intervals).tolist() == [2.0, 3.0]


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(CalibrationFailed, match="positive numbers"):
        regression.log_density(MEANS, TARGETS, [1.0, 0.0])
    with pytest.raises(CalibrationFailed, match=r"`noise_variance` .* \[6, 40, 2\] of `means`"):
        regression.log_density(MEANS, TARGETS, np.ones(3))
    with pytest.raises(CalibrationFailed, match=r"`targets` .* the shape \[40, 2\] of `means`"):
        regression.predictive_cdf(MEANS, TARGETS[:3], 1.0)
    with pytest.raises(CalibrationFailed, match="low and high"):
        regression.interval_width(np.zeros((2, 2, 3)))
    with pytest.raises(TooFewRows, match="`mean` has 0"):
        regression.root_mean_squared_error(np.zeros((0, 1)), np.zeros((0, 1)))
