"""The noise variance of a homoscedastic regression: closed form, maximum, simulation, refusals."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.calibration import regression
from service.calibration.noise import NoiseVariance, fit_noise_variance
from service.errors import CalibrationFailed, TooFewRows


def test_passes_that_agree_leave_the_mean_squared_residual() -> None:
    """With one distinct pass the maximum has a closed form, 1/B Σ (y − mean)²."""
    generator = np.random.default_rng(0)
    mean, targets = generator.normal(size=(2, 50, 3))
    found = fit_noise_variance(np.stack([mean] * 4), targets)
    expected = ((targets - mean) ** 2).mean(axis=0)
    assert found.variance == pytest.approx(expected, rel=1e-9)
    assert found.aleatoric_std == pytest.approx(np.sqrt(expected), rel=1e-9)
    assert found.log_likelihood == pytest.approx(-0.5 * np.log(2 * math.pi * math.e * expected))


@given(st.integers(0, 10**6), st.floats(0.01, 3.0), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_no_other_variance_is_likelier(seed: int, spread: float, passes: int) -> None:
    generator = np.random.default_rng(seed)
    targets = generator.normal(size=(30, 1))
    means = spread * generator.normal(size=(passes, 30, 1))
    found = fit_noise_variance(means, targets)
    at = regression.log_density(means, targets, found.variance).mean()
    assert at == pytest.approx(found.log_likelihood[0], rel=1e-9, abs=1e-9)
    for other in np.geomspace(1e-4, 1e2, 60):
        assert regression.log_density(means, targets, other).mean() <= at + 1e-7


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_known_noise_is_found_within_its_standard_error(scale: float) -> None:
    """Targets of one pass, known to the fit as the mean of all, plus noise of a known variance."""
    generator, rows = np.random.default_rng(1), 4000
    means = generator.normal(size=(10, rows, 1)) * 0.01
    targets = means[0] + 0.7 * generator.normal(size=(rows, 1))
    found = fit_noise_variance(means * scale, targets * scale)
    # The spread of passes, 1e-4, is below a thousandth of the noise; the rest is ln χ²_n / n.
    assert abs(math.log(found.variance[0] / (0.49 * scale**2))) < 5 * math.sqrt(2 / rows) + 1e-3


def test_outputs_have_noise_of_their_own() -> None:
    generator = np.random.default_rng(2)
    means, targets = generator.normal(size=(5, 60, 2)), generator.normal(size=(60, 2))
    both = fit_noise_variance(means, targets * [1, 5])
    alone = fit_noise_variance(means[..., 1:], targets[:, 1:] * 5)
    assert both.variance[1] == alone.variance[0]
    read = NoiseVariance(**json.loads(json.dumps(dataclasses.asdict(both))))
    assert read.aleatoric_std == both.aleatoric_std


def test_one_pass_that_meets_every_target_ends_at_the_floor() -> None:
    means = np.stack([np.zeros((10, 1)), np.ones((10, 1))])
    assert fit_noise_variance(means, np.zeros((10, 1))).variance[0] < 1e-11


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(CalibrationFailed, match="meets every target exactly"):
        fit_noise_variance(np.zeros((3, 4, 1)), np.zeros((4, 1)))
    with pytest.raises(TooFewRows, match="at least 2 rows; `means` has 1"):
        fit_noise_variance(np.zeros((3, 1, 1)), np.ones((1, 1)))
    with pytest.raises(CalibrationFailed, match=r"`targets` .* the shape \[4, 1\] of `means`"):
        fit_noise_variance(np.zeros((3, 4, 1)), np.zeros((4, 2)))
    with pytest.raises(CalibrationFailed, match=r"`means` .* nan at \[0, 0, 0\]"):
        fit_noise_variance(np.full((3, 4, 1), np.nan), np.zeros((4, 1)))
