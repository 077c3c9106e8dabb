"""Calibration errors and proper scores: against other libraries, and their bias by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from statsmodels.stats.proportion import proportion_confint
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

from service.calibration import reliability as rel
from service.calibration.reliability import Bins, Reliability, calibration_error, reliability
from service.errors import CalibrationFailed, TooFewRows
from service.types import Task

ONE_OF, YES_NO = Task.CLASSIFICATION, Task.MULTILABEL


def classified(seed: int, rows: int = 500) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probs = generator.dirichlet(np.full(5, 0.4), size=rows)
    return probs, generator.integers(0, 5, size=rows)


def independent(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((200, 3)), generator.integers(0, 2, size=(200, 3))


@pytest.mark.parametrize("bins", [5, 15])
def test_equal_width_is_that_of_torchmetrics(bins: int) -> None:
    probs, labels = classified(0)
    diagram = reliability(*rel.top_label(probs, labels), Bins.EQUAL_WIDTH, bins)
    expected = multiclass_calibration_error(
        torch.from_numpy(probs), torch.from_numpy(labels), num_classes=5, n_bins=bins
    )
    assert calibration_error(diagram).expected == pytest.approx(expected.item(), rel=1e-6)


def test_independent_labels_are_pooled() -> None:
    probs, labels = independent(1)
    expected = binary_calibration_error(
        # torchmetrics takes the confidence of the label that is said, not that of a yes.
        torch.from_numpy(np.maximum(probs, 1 - probs)).ravel(),
        torch.from_numpy((probs >= 0.5) == labels).ravel().long(),
        n_bins=10,
    )
    said, right = np.maximum(probs, 1 - probs).ravel(), ((probs >= 0.5) == labels).ravel()
    diagram = reliability(said, right, Bins.EQUAL_WIDTH, 10)
    assert calibration_error(diagram).expected == pytest.approx(expected.item(), rel=1e-6)
    confidence, correct = rel.every_label(probs, labels)
    np.testing.assert_array_equal(confidence, probs.ravel())
    np.testing.assert_array_equal(correct, labels.ravel() == 1)


def test_equal_mass_bins_are_those_of_ranks() -> None:
    confidence = np.random.default_rng(2).random(100)
    correct = np.random.default_rng(3).random(100) < 0.5
    diagram = reliability(confidence, correct, Bins.EQUAL_MASS, 4)
    order = confidence.argsort().reshape(4, 25)
    assert diagram.counts == (25,) * 4
    assert diagram.confidence == pytest.approx(confidence[order].mean(axis=1))
    assert diagram.accuracy == pytest.approx(correct[order].mean(axis=1))


def test_equal_confidences_stay_together() -> None:
    diagram = reliability([0.5] * 7 + [0.9] * 3, [1] * 10, Bins.EQUAL_MASS, 5)
    assert diagram.counts == (7, 3)


def test_by_hand() -> None:
    diagram = reliability([0.15, 0.15, 0.95], [True, False, True], Bins.EQUAL_WIDTH, 10)
    assert diagram.counts == (2, 1)
    assert diagram.accuracy == (0.5, 1.0)
    error = calibration_error(diagram)
    assert error.expected == pytest.approx(2 / 3 * 0.35 + 1 / 3 * 0.05)
    assert error.squared == pytest.approx(2 / 3 * (0.35**2 - 0.25 / 1))
    folded = stats.foldnorm(c=0.35 / 0.5, scale=0.5).mean()
    assert error.debiased == pytest.approx(max(2 / 3 * (2 * 0.35 - folded), 0))


def test_the_folded_normal_is_that_of_scipy() -> None:
    means, stds = np.array([0.0, 0.1, 2.0]), np.array([0.3, 0.1, 0.5])
    expected = stats.foldnorm(c=means / stds, scale=stds).mean()
    np.testing.assert_allclose(rel._folded_normal_mean(means, stds), expected, rtol=1e-12)
    exact = rel._folded_normal_mean(np.array([0.0, 0.2]), np.zeros(2))
    assert exact.tolist() == [0.0, 0.2]


def test_accuracies_have_the_intervals_of_wilson() -> None:
    confidence = np.random.default_rng(4).random(60)
    correct = np.random.default_rng(5).random(60) < confidence
    diagram = reliability(confidence, correct, Bins.EQUAL_MASS, 3)
    for count, share, interval in zip(
        diagram.counts, diagram.accuracy, diagram.interval, strict=True
    ):
        expected = proportion_confint(round(count * share), count, alpha=0.05, method="wilson")
        assert interval == pytest.approx(expected, rel=1e-9)
    low, high = reliability([1.0], [True]).interval[0]
    assert 0 <= low < high <= 1


@pytest.mark.parametrize("scheme", list(Bins))
def test_debiased_errors_are_less_biased_where_calibration_is_perfect(scheme: Bins) -> None:
    """The true error is zero; the plain estimate sees the noise of every bin."""
    generator, repeats, rows = np.random.default_rng(6), 1000, 300
    errors = []
    for _ in range(repeats):
        # One confidence in each bin: the binned error is then exactly zero, too.
        confidence = (generator.integers(0, 10, size=rows) + 0.5) / 10
        correct = generator.random(rows) < confidence
        errors.append(calibration_error(reliability(confidence, correct, scheme, 10)))
    plain = np.array([error.expected for error in errors])
    debiased = np.array([error.debiased for error in errors])
    squared = np.array([error.squared for error in errors])
    assert abs(squared.mean()) < 5 * squared.std() / math.sqrt(repeats)
    gain = plain - debiased
    assert gain.mean() > 5 * gain.std() / math.sqrt(repeats)


def test_the_debiased_error_loses_what_the_docstring_says() -> None:
    """Many rows a bin, perfect calibration: a share of 2 − √2 of the plain error is left."""
    generator, repeats, rows = np.random.default_rng(10), 400, 40_000
    confidence = (np.arange(rows) % 20 + 0.5) / 20 * 0.5 + 0.25
    pairs = []
    for _ in range(repeats):
        diagram = reliability(confidence, generator.random(rows) < confidence, bins=40)
        pairs.append(calibration_error(diagram))
    plain = np.array([error.expected for error in pairs])
    debiased = np.array([error.debiased for error in pairs])
    rest = debiased - (2 - math.sqrt(2)) * plain
    assert abs(rest.mean()) < 5 * rest.std() / math.sqrt(repeats)


def test_the_squared_error_has_no_bias_where_calibration_is_poor() -> None:
    generator, repeats, rows = np.random.default_rng(7), 2000, 60
    seen = []
    for _ in range(repeats):
        right = generator.random(rows) < 0.6
        seen.append(calibration_error(reliability(np.full(rows, 0.8), right)).squared)
    assert abs(np.mean(seen) - 0.2**2) < 5 * np.std(seen) / math.sqrt(repeats)


def test_a_bin_of_one_row_says_nothing_of_calibration() -> None:
    one = Reliability((1, 2), (0.3, 0.6), (1.0, 0.5), ((0.0, 1.0),) * 2)
    error = calibration_error(one)
    assert error.expected == pytest.approx(1 / 3 * 0.7 + 2 / 3 * 0.1)
    assert error.squared == pytest.approx(2 / 3 * (0.01 - 0.25))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50),
    st.sampled_from(list(Bins)),
    st.integers(1, 20),
)
def test_bins_hold_every_row_once_in_order(
    rows: list[tuple[float, bool]], scheme: Bins, bins: int
) -> None:
    confidence, correct = zip(*rows, strict=True)
    diagram = reliability(confidence, correct, scheme, bins)
    assert sum(diagram.counts) == len(rows)
    assert 1 <= len(diagram.counts) <= bins
    total = sum(c * a for c, a in zip(diagram.counts, diagram.accuracy, strict=True))
    assert total == pytest.approx(sum(correct))
    assert list(diagram.confidence) == sorted(diagram.confidence)
    error = calibration_error(diagram)
    assert 0 <= error.debiased <= error.expected + 1e-12 <= 1 + 2e-12


def test_proper_scores_are_those_of_scikit_learn() -> None:
    probs, labels = classified(8)
    truth = np.eye(5)[labels]
    expected = sum(metrics.brier_score_loss(truth[:, c], probs[:, c]) for c in range(5))
    assert rel.brier_score(probs, labels, ONE_OF) == pytest.approx(expected)
    loss = metrics.log_loss(labels, probs, labels=range(5))
    assert rel.log_likelihood(probs, labels, ONE_OF) == pytest.approx(-loss)
    expected = metrics.accuracy_score(labels, probs.argmax(axis=1))
    assert rel.accuracy(probs, labels, ONE_OF) == pytest.approx(expected)


def test_proper_scores_of_independent_labels_are_those_of_scikit_learn() -> None:
    probs, labels = independent(9)
    briers = [metrics.brier_score_loss(labels[:, c], probs[:, c]) for c in range(3)]
    assert rel.brier_score(probs, labels, YES_NO) == pytest.approx(np.mean(briers))
    losses = [metrics.log_loss(labels[:, c], probs[:, c]) for c in range(3)]
    assert rel.log_likelihood(probs, labels, YES_NO) == pytest.approx(-np.sum(losses))
    hamming = metrics.hamming_loss(labels, probs >= 0.5)
    assert rel.accuracy(probs, labels, YES_NO) == pytest.approx(1 - hamming)
    single = rel.brier_score(probs[:, :1], labels[:, 0], Task.BINARY)
    assert single == pytest.approx(briers[0])


def test_a_certainty_that_was_wrong_is_very_unlikely_but_finite() -> None:
    assert -710 < rel.log_likelihood([[1.0, 0.0]], [1], ONE_OF) < -700
    assert -37 < rel.log_likelihood([[1.0]], [0], Task.BINARY) < -36


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(CalibrationFailed, match=r"`confidence` .* between 0 and 1; it holds 1.5"):
        reliability([1.5], [True])
    with pytest.raises(CalibrationFailed, match=r"labels of the shape \[1\]; it holds \[2\]"):
        reliability([0.5], [True, False])
    with pytest.raises(TooFewRows, match="`confidence` has 0"):
        reliability([], [])
    with pytest.raises(TooFewRows, match="`probs` has 0"):
        rel.accuracy(np.zeros((0, 2)), [], ONE_OF)
    with pytest.raises(CalibrationFailed, match="from 0 to 4; it holds 5 in row 0"):
        rel.brier_score(classified(0)[0][:1], [5], ONE_OF)
