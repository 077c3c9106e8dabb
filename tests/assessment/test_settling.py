"""How estimates settle: against the closed form of normal passes."""

from __future__ import annotations

import numpy as np
import pytest

from service.assessment.settling import WITHIN, settling
from service.types import Task
from tests.assessment.synthetic import classifier, from_passes, regressor


def test_the_noise_of_a_standard_deviation_is_that_of_normal_passes() -> None:
    """std(s) / σ = 1 / √(2 (T' − 1)) nearly, so that 10 % take 51 passes."""
    generator = np.random.default_rng(0)
    passes_TB1 = generator.normal(size=(400, 600, 1))
    measured = from_passes(Task.REGRESSION, passes_TB1, np.zeros((600, 1)))
    found = settling(measured, generator.normal(size=(600, 1)), seed=0)
    shares = dict(zip(found.passes, found.noise["std"], strict=True))
    for passes in (20, 50, 100):
        # The spread of 24 draws is off by 1/√46, over 600 rows all but nothing.
        assert shares[passes] == pytest.approx(1 / np.sqrt(2 * (passes - 1)), rel=0.06)
    assert shares[50] > WITHIN > shares[70]
    assert found.enough["std"] == 70


def test_beyond_what_was_run_the_noise_falls_with_the_root() -> None:
    generator = np.random.default_rng(0)
    passes_TB1 = generator.normal(size=(20, 600, 1))
    measured = from_passes(Task.REGRESSION, passes_TB1, np.zeros((600, 1)))
    found = settling(measured, generator.normal(size=(600, 1)), seed=0)
    share = found.noise["std"][-1]
    assert share > WITHIN
    assert found.enough["std"] == np.ceil(20 * (share / WITHIN) ** 2)


def test_quality_ends_at_that_of_all_passes() -> None:
    measured, labels_B = classifier(rows=500, passes=60)
    found = settling(measured, labels_B, seed=0)
    assert found.passes[0] == 2
    assert found.passes[-1] == 60
    likelihood = found.quality["log_likelihood"]
    # More passes are better for a mean of noisy probabilities, by Jensen's inequality.
    assert likelihood[0] < likelihood[3] < likelihood[-1]
    own = measured.mean_BC[np.arange(500), labels_B]
    assert found.judged_error == pytest.approx(np.log(own).std(ddof=1) / np.sqrt(500), rel=1e-4)
    enough = found.predictions_enough
    assert enough is not None
    place = found.passes.index(enough)
    gaps = [
        max(abs(value - likelihood[-1]), noise)
        for value, noise in zip(likelihood, found.quality_noise["log_likelihood"], strict=True)
    ]
    assert gaps[place] <= found.judged_error
    assert all(gap > found.judged_error for gap in gaps[:place])


def test_two_passes_leave_everything_open() -> None:
    measured, targets_BC = regressor(passes=2)
    found = settling(measured, targets_BC, seed=0)
    assert found.passes == (2,)
    assert found.predictions_enough is None
    assert found.enough["std"] > 2


@pytest.mark.parametrize("task", [Task.BINARY, Task.MULTILABEL])
def test_independent_labels_settle_too(task: Task) -> None:
    generator = np.random.default_rng(0)
    probs_TBC = generator.uniform(0.1, 0.9, (30, 200, 1 if task is Task.BINARY else 3))
    truth_BC = (generator.random(probs_TBC.shape[1:]) < 0.5).astype(np.float64)
    found = settling(from_passes(task, probs_TBC, probs_TBC[0]), truth_BC, seed=0)
    assert found.noise["predictive_entropy"][-1] < found.noise["predictive_entropy"][0]
    assert set(found.quality) == {"log_likelihood", "accuracy"}


def test_what_is_all_but_impossible_stays_a_probability() -> None:
    """Draws without the one pass that sees a chance leave rounding of it, on either side of 0."""
    tiny_TB = np.zeros((50, 300))
    tiny_TB[7] = 1e-20
    probs_TBC = np.stack([1 - tiny_TB, tiny_TB, np.zeros_like(tiny_TB)], axis=-1)
    measured = from_passes(Task.CLASSIFICATION, probs_TBC, probs_TBC[0])
    found = settling(measured, np.zeros(300, dtype=np.int64), seed=0)
    assert set(found.quality["accuracy"]) == {1.0}
    assert np.isfinite(found.noise["predictive_entropy"]).all()
