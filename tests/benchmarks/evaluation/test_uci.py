"""The formulas of the UCI protocol against SciPy and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.evaluation import uci
from benchmarks.evaluation.data import regression_set
from tests.benchmarks.evaluation import synthetic


def test_the_log_likelihood_is_that_of_the_mixture_over_passes() -> None:
    random = np.random.default_rng(0)
    passes_TB, y_B = random.normal(size=(50, 7)), random.normal(size=7)
    density_B = norm.pdf(y_B, loc=passes_TB, scale=0.4**-0.5).mean(axis=0)
    np.testing.assert_allclose(uci.log_likelihood(passes_TB, y_B, 0.4), np.log(density_B))


def test_the_log_likelihood_of_a_target_far_off_is_finite() -> None:
    found = uci.log_likelihood(np.zeros((10, 1)), np.array([1e4]), 1.0)
    np.testing.assert_allclose(found, norm.logpdf([1e4]))


def test_the_decay_is_the_references() -> None:
    assert uci.decay(0.05, 364, 0.15) == pytest.approx(1e-4 * 0.95 / (2 * 364 * 0.15))


def test_scaling_uses_the_training_rows_alone_and_leaves_what_does_not_vary() -> None:
    x = np.array([[1.0, 7.0], [3.0, 7.0]])
    scaling = uci.Scaling.of(x, np.array([10.0, 20.0]))
    np.testing.assert_allclose(scaling.x(x), [[-1, 0], [1, 0]])
    np.testing.assert_allclose(scaling.x(np.array([[5.0, 8.0]])), [[3, 1]])
    np.testing.assert_allclose(scaling.y(np.array([25.0])), [2])
    np.testing.assert_allclose(scaling.back(np.array([2.0])), [25])


def test_the_best_pair_is_each_splits_own(tmp_path: Path) -> None:
    synthetic.write(tmp_path)
    data = regression_set(tmp_path, "yacht")
    likelihood_RSP = np.full((2, synthetic.SPLITS, 2), -3.0)
    likelihood_RSP[1, 0, 0] = -1
    likelihood_RSP[0, 1, 1] = -2
    assert uci.best(likelihood_RSP, data) == [(0.1, 0.5), (0.01, 1.0)]
