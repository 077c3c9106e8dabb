"""Methods that predict values: closed forms where passes are many or all the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from service.assessment.measured import Contender
from service.assessment.regression_methods import regression_methods, squared_errors
from service.errors import CalibrationFailed
from tests.assessment.synthetic import regressor


def test_passes_that_agree_have_the_likelihood_of_a_gaussian() -> None:
    measured, targets_BC = regressor(rows=100)
    same = np.repeat(measured.mean_BC[None], 4, axis=0)
    agreeing = dataclasses.replace(measured, passes_TBC=same.astype(np.float32))
    plain, mc, _ = regression_methods(agreeing, targets_BC, given_noise=[0.49], seed=0)
    expected = stats.norm.logpdf(targets_BC, measured.mean_BC, 0.7).mean()
    assert plain.log_likelihood == pytest.approx(expected)
    # Kept passes are float32.
    assert mc.log_likelihood == pytest.approx(expected, rel=1e-5)
    assert mc.noise_std == pytest.approx((0.7,))
    assert mc.root_mean_squared_error == pytest.approx(
        (np.sqrt(np.mean((measured.mean_BC - targets_BC) ** 2)),)
    )


def test_the_right_distribution_covers_and_the_spread_alone_does_not() -> None:
    measured, targets_BC = regressor(rows=4000, noise=1.0)
    _, mc, alone = regression_methods(measured, targets_BC, given_noise=None, seed=0)
    assert mc.noise_std is not None
    # The mean over passes is off by 1/√30 of the spread more, which the noise takes up.
    assert mc.noise_std[0] == pytest.approx(1.0, rel=0.05)
    for each in mc.coverage:
        # Three standard errors of a share of 4000 rows, and what a noise fitted so leaves.
        assert each.observed == pytest.approx(each.level, abs=0.024 + 0.01)
    assert alone.coverage[-1].observed < 0.8
    assert alone.log_likelihood is None
    assert alone.curve.error > 5 * mc.curve.error


def test_noise_is_never_fitted_on_the_row_it_judges() -> None:
    """One row that is far off is unlikely under the other half's noise, whatever its own half."""
    measured, targets_BC = regressor(rows=40, noise=0.1)
    targets_BC[7] += 1000
    plain, _, _ = regression_methods(measured, targets_BC, given_noise=None, seed=0)
    assert plain.log_likelihood is not None
    # Fitted on that row too, the noise would be 1000/√20, and no row's density below −16 or so.
    assert plain.log_likelihood < -1000


def test_only_the_kept_rows_are_judged() -> None:
    measured, targets_BC = regressor(rows=50)
    kept = np.arange(0, 50, 2)
    fewer = dataclasses.replace(measured, passes_TBC=measured.passes_TBC[:, kept], kept_rows=kept)
    plain, _, _ = regression_methods(fewer, targets_BC, given_noise=[1.0], seed=0)
    assert plain.rows == 25
    expected = np.sqrt(np.mean((measured.deterministic_BC[kept] - targets_BC[kept]) ** 2))
    assert plain.root_mean_squared_error == pytest.approx((expected,))


def test_a_contender_is_judged_on_the_same_rows_with_its_own_noise() -> None:
    measured, targets_BC = regressor(rows=200, noise=0.5)
    off_BC = targets_BC + np.where(np.arange(200) % 2, 0.1, -0.1)[:, None]
    exact = dataclasses.replace(
        measured,
        mean_BC=off_BC,
        passes_TBC=np.repeat(off_BC[None], 30, axis=0).astype(np.float32),
    )
    oracle = Contender("version_2", "Oracle", exact, None)
    _, mc, further, _ = regression_methods(
        measured, targets_BC, given_noise=[4.0], contenders=[oracle], seed=0
    )
    assert (further.name, further.title) == ("version_2", "Oracle")
    assert further.root_mean_squared_error == pytest.approx((0.1,))
    assert further.noise_std == pytest.approx((0.1,), rel=1e-3)
    assert mc.noise_std == pytest.approx((2.0,))
    assert further.over_mc_dropout is not None
    assert further.over_mc_dropout.told_apart
    assert further.over_mc_dropout.mean > 0


def test_a_network_that_predicts_its_noise_is_judged_by_it() -> None:
    measured, targets_BC = regressor(rows=60)
    std_BC = np.random.default_rng(5).uniform(0.5, 2, (60, 1))
    own = dataclasses.replace(measured, deterministic_std_BC=std_BC, aleatoric_std_BC=std_BC)
    plain, mc, _ = regression_methods(own, targets_BC, given_noise=None, seed=0)
    expected = stats.norm.logpdf(targets_BC, measured.deterministic_BC, std_BC).mean()
    assert plain.log_likelihood == pytest.approx(expected)
    assert mc.noise_std is None


def test_errors_of_several_outputs_have_no_unit() -> None:
    mean_BC = np.array([[1.0, 100.0], [2.0, 300.0]])
    targets_BC = np.array([[0.0, 100.0], [2.0, 500.0]])
    # Variances 1 and 40 000.
    assert squared_errors(mean_BC, targets_BC).tolist() == [0.5, 0.5]
    assert squared_errors(mean_BC[:, :1], targets_BC[:, :1]).tolist() == [1.0, 0.0]
    with pytest.raises(CalibrationFailed, match="one and the same value in every row of output 1"):
        squared_errors(mean_BC, np.array([[0.0, 1.0], [2.0, 1.0]]))
