"""Temperature scaling: against logistic regression, known temperatures, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.linear_model import LogisticRegression
from statsmodels.discrete.conditional_models import ConditionalLogit

from service.calibration import temperature
from service.calibration.temperature import Outcome, fit, fit_passes, logits_of, scale_mean
from service.errors import CalibrationFailed, TooFewRows
from service.types import Task

ONE_OF, YES_NO = Task.CLASSIFICATION, Task.MULTILABEL


def classified(seed: int, rows: int, true: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / true)."""
    generator = np.random.default_rng(seed)
    logits = 3 * generator.normal(size=(rows, 4))
    probs = special.softmax(logits / true, axis=1)
    return logits, (generator.random(rows)[:, None] > probs.cumsum(axis=1)).sum(axis=1)


def information(logits: np.ndarray, true: float) -> float:
    """Fisher information of ln T in one row: the variance of z / T under softmax(z / T)."""
    scaled = logits / true
    probs = special.softmax(scaled, axis=1)
    return float(((probs * scaled**2).sum(1) - (probs * scaled).sum(1) ** 2).mean())


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_found_within_its_standard_error(true: float) -> None:
    rows = 4000
    logits, labels = classified(0, rows, true)
    found = fit(logits, labels, ONE_OF)
    error = 1 / math.sqrt(rows * information(logits, true))
    assert found.outcome is Outcome.FITTED
    assert abs(math.log(found.value / true)) < 5 * error
    assert found.log_likelihood_after >= found.log_likelihood_before


def test_the_inverse_temperature_is_the_coefficient_of_a_conditional_logit() -> None:
    """statsmodels' conditional logit with the logits as its one regressor."""
    logits, labels = classified(1, 300, 2.0)
    chosen = np.eye(4)[labels].ravel()
    groups = np.repeat(np.arange(300), 4)
    reference = ConditionalLogit(chosen, logits.reshape(-1, 1), groups=groups).fit(disp=False)
    assert 1 / fit(logits, labels, ONE_OF).value == pytest.approx(reference.params[0], rel=1e-5)


def test_the_inverse_temperature_of_independent_labels_is_that_of_a_logistic_regression() -> None:
    generator = np.random.default_rng(2)
    logits = 2 * generator.normal(size=(200, 3))
    labels = (generator.random((200, 3)) < special.expit(logits / 3)).astype(int)
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    reference.fit(logits.reshape(-1, 1), labels.ravel())
    found = fit(logits, labels, YES_NO)
    assert 1 / found.value == pytest.approx(reference.coef_[0, 0], rel=1e-5)
    single = fit(logits[:, :1], labels[:, 0], Task.BINARY)
    reference.fit(logits[:, :1], labels[:, 0])
    assert 1 / single.value == pytest.approx(reference.coef_[0, 0], rel=1e-5)


@given(st.integers(0, 10**6), st.floats(0.2, 5.0))
@settings(max_examples=30, deadline=None)
def test_no_other_temperature_is_likelier(seed: int, other: float) -> None:
    logits, labels = classified(seed, 60, 2.0)
    found = fit(logits, labels, ONE_OF)
    rows = np.arange(60)
    elsewhere = special.log_softmax(logits / (found.value * other), axis=1)[rows, labels].mean()
    assert elsewhere <= found.log_likelihood_after + 1e-12


def test_scaling_the_logits_scales_the_temperature() -> None:
    logits, labels = classified(3, 200, 1.5)
    found = fit(logits, labels, ONE_OF).value
    assert fit(4 * logits + 7, labels, ONE_OF).value == pytest.approx(4 * found, rel=1e-9)


def test_the_mean_is_scaled_through_its_logarithm() -> None:
    probs = special.softmax(np.random.default_rng(4).normal(size=(20, 5)), axis=1)
    squared = probs**2 / (probs**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scale_mean(probs, 0.5, ONE_OF), squared, rtol=1e-12)
    np.testing.assert_allclose(scale_mean(probs, 1.0, ONE_OF), probs, rtol=1e-12)
    odds = (probs / (1 - probs)) ** 2
    np.testing.assert_allclose(scale_mean(probs, 0.5, YES_NO), odds / (1 + odds), rtol=1e-12)


def test_certainty_stays_finite() -> None:
    certain = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
    for task in (ONE_OF, YES_NO):
        assert np.isfinite(logits_of(certain, task)).all()
    found = fit(logits_of(certain, ONE_OF), [0, 1, 1, 1], ONE_OF)
    assert np.isfinite([found.value, found.log_likelihood_after]).all()


def test_separable_data_keep_their_probabilities_and_say_so() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = fit(logits, [0, 1, 1], ONE_OF)
    assert (found.outcome, found.value) == (Outcome.SEPARABLE, 1.0)
    assert found.log_likelihood_before == found.log_likelihood_after
    assert fit([[3.0], [-1.0]], [1, 0], Task.BINARY).outcome is Outcome.SEPARABLE
    assert fit_passes([logits, logits], [0, 1, 1], ONE_OF).outcome is Outcome.SEPARABLE


def test_logits_that_are_worth_nothing_end_at_the_bound() -> None:
    logits, labels = classified(5, 300, 1.0)
    against = fit(-logits, labels, ONE_OF)
    assert (against.outcome, against.value) == (Outcome.BOUNDED, temperature.HIGHEST)
    assert fit(np.zeros((10, 3)), np.zeros(10), ONE_OF).outcome is Outcome.BOUNDED
    timid = fit(logits / 1000, labels, ONE_OF)
    assert (timid.outcome, timid.value) == (Outcome.BOUNDED, temperature.LOWEST)


def test_passes_that_agree_are_scaled_as_their_mean() -> None:
    logits, labels = classified(6, 300, 2.0)
    alone = fit(logits, labels, ONE_OF)
    together = fit_passes(np.stack([logits] * 3), labels, ONE_OF)
    assert together.outcome is Outcome.FITTED
    assert together.value == pytest.approx(alone.value, rel=1e-4)
    assert together.log_likelihood_after == pytest.approx(alone.log_likelihood_after, rel=1e-7)
    np.testing.assert_allclose(
        temperature.scale_passes(np.stack([logits] * 3), 2.0, ONE_OF),
        special.softmax(logits / 2, axis=1),
    )


def test_passes_are_scaled_where_no_other_temperature_is_likelier() -> None:
    generator = np.random.default_rng(7)
    logits, labels = classified(8, 300, 3.0)
    passes = logits + 3 * generator.normal(size=(10, 300, 4))
    found = fit_passes(passes, labels, ONE_OF)
    for other in np.geomspace(0.02, 50, 200):
        probs = temperature.scale_passes(passes, other, ONE_OF)
        mean = np.log(probs[np.arange(300), labels]).mean()
        assert mean <= found.log_likelihood_after + 1e-9


def test_pooling_calibrated_passes_is_underconfident_and_pooling_then_calibrating_is_not() -> None:
    """Rahaman and Thiery's point: each pass is calibrated, their mean is not sure enough."""
    generator = np.random.default_rng(9)
    evidence = generator.normal(size=(20_000, 8)) + 0.5
    passes = np.stack([np.zeros_like(evidence), evidence], axis=-1).transpose(1, 0, 2)
    # Labels 1 with N(½, 1) and 0 with N(−½, 1): each pass's evidence is its own log odds.
    labels = np.repeat([0, 1], 10_000)
    passes[:, labels == 0, 1] -= 1.0
    error = 1 / math.sqrt(20_000 * information(passes[0], 1.0))
    assert abs(math.log(fit(passes[0], labels, ONE_OF).value)) < 5 * error
    mean = logits_of(special.softmax(passes, axis=-1).mean(axis=0), ONE_OF)
    sharper = fit(mean, labels, ONE_OF).value
    error = 1 / math.sqrt(20_000 * information(mean, sharper))
    assert math.log(sharper) < -5 * error


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(CalibrationFailed, match="whole numbers from 0 to 1; it holds 2 in row 1"):
        fit([[0.0, 1.0]] * 2, [0, 2], ONE_OF)
    with pytest.raises(CalibrationFailed, match=r"zeros and ones; it holds 2 at \[1, 0\]"):
        fit([[0.0], [1.0]], [0, 2], Task.BINARY)
    with pytest.raises(CalibrationFailed, match=r"labels of the shape \[2, 3\]; it holds \[2, 2\]"):
        fit(np.zeros((2, 3)), np.zeros((2, 2)), YES_NO)
    with pytest.raises(CalibrationFailed, match=r"finite numbers; it holds inf at \[0, 1\]"):
        fit([[0.0, np.inf]], [0], ONE_OF)
    with pytest.raises(CalibrationFailed, match=r"numbers \[T, B, C\]"):
        fit_passes([[0.0, 1.0]], [0], ONE_OF)
    with pytest.raises(CalibrationFailed, match="regression has no temperature"):
        fit([[0.0]], [0], Task.REGRESSION)
    with pytest.raises(TooFewRows, match="at least 1 rows; `logits` has 0"):
        fit(np.zeros((0, 2)), [], ONE_OF)
