"""Conformal sets and intervals: against MAPIE and crepes, by simulation, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from crepes import ConformalClassifier as CrepesClassifier
from crepes import ConformalRegressor as CrepesRegressor
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin

from service.calibration import conformal
from service.calibration.checks import FloatArray, IntArray
from service.calibration.conformal import (
    ConformalClassifier,
    ConformalRegressor,
    both_labels,
    fit_classifier,
    fit_regressor,
    intervals,
    prediction_sets,
)
from service.calibration.order_statistics import rank
from service.errors import CalibrationFailed, TooFewRows

COVERAGE = 0.87
"""Times any number of rows here plus one it is no whole number: libraries differ only there."""


def drawn(seed: int, rows: int, classes: int = 4) -> tuple[FloatArray, IntArray]:
    """Probabilities and labels that follow other ones: a network that is not calibrated."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, classes))
    probs = np.exp(2 * logits)
    truth = np.exp(logits)
    truth /= truth.sum(axis=1, keepdims=True)
    labels = (generator.random(rows)[:, None] > truth.cumsum(axis=1)).sum(axis=1)
    return probs / probs.sum(axis=1, keepdims=True), np.minimum(labels, classes - 1)


class Probabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of scikit-learn whose inputs are its probabilities."""

    def __init__(self, classes: int = 4) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)
        self.fitted_ = True

    def fit(self, inputs: FloatArray, labels: IntArray) -> Probabilities:
        return self

    def predict_proba(self, inputs: FloatArray) -> FloatArray:
        return inputs

    def predict(self, inputs: FloatArray) -> IntArray:
        return np.asarray(np.argmax(inputs, axis=1), dtype=np.int64)


def mapie_sets(method: str, seed: int, **params: Any) -> FloatArray:
    reference = SplitConformalClassifier(
        Probabilities(), COVERAGE, method, prefit=True, random_state=seed
    )
    probs, labels = drawn(0, 120)
    reference.conformalize(probs, labels)
    _, sets = reference.predict_set(drawn(1, 300)[0], params)
    return np.asarray(sets)[:, :, 0]


def test_lac_is_that_of_mapie() -> None:
    fitted = fit_classifier(*drawn(0, 120), COVERAGE)
    np.testing.assert_array_equal(prediction_sets(drawn(1, 300)[0], fitted), mapie_sets("lac", 0))


def test_randomised_aps_is_that_of_mapie() -> None:
    """MAPIE begins its stream of uniforms anew at the prediction."""
    calibration, prediction = (np.random.RandomState(7).uniform(size=n) for n in (120, 300))
    fitted = fit_classifier(*drawn(0, 120), COVERAGE, method="aps", uniforms_B=calibration)
    sets = prediction_sets(drawn(1, 300)[0], fitted, prediction)
    np.testing.assert_array_equal(sets, mapie_sets("aps", 7, include_last_label="randomized"))


def mass_at_least_as_probable(probs: FloatArray) -> FloatArray:
    """The deterministic score, class by class as the paper words it.

    Rounded, for the sum over all classes to be the same in every row.
    """
    return np.stack([[row[row >= p].sum() for p in row] for row in probs]).round(12)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_sets_are_those_of_crepes(method: str, per_class: bool) -> None:
    (probs, labels), (others, _) = drawn(2, 203), drawn(3, 250)
    score = (lambda p: 1 - p) if method == "lac" else mass_at_least_as_probable
    reference = CrepesClassifier()
    bins = labels if per_class else None
    reference.fit(score(probs)[np.arange(len(probs)), labels], bins=bins)
    columns = []
    for label in range(4):
        others_bins = np.full(len(others), label) if per_class else None
        alphas = score(others)[:, [label]]
        inside = reference.predict_set(
            alphas, bins=others_bins, confidence=COVERAGE, smoothing=False
        )
        columns.append(np.asarray(inside)[:, 0])
    fitted = fit_classifier(probs, labels, COVERAGE, method=method, per_class=per_class)
    np.testing.assert_array_equal(prediction_sets(others, fitted), np.stack(columns, axis=1))


def test_scaled_intervals_are_those_of_crepes() -> None:
    generator = np.random.default_rng(4)
    mean, std, targets = generator.normal(size=(3, 150, 2))
    std = np.abs(std)
    fitted = fit_regressor(mean, std, targets, COVERAGE, floor=(0.1, 0.2))
    new_mean, new_std = generator.normal(size=(80, 2)), generator.random((80, 2))
    found = intervals(new_mean, new_std, fitted)
    for output, floor in enumerate((0.1, 0.2)):
        reference = CrepesRegressor()
        residuals = targets[:, output] - mean[:, output]
        reference.fit(residuals, sigmas=std[:, output] + floor)
        expected = reference.predict_int(
            new_mean[:, output], sigmas=new_std[:, output] + floor, confidence=COVERAGE
        )
        np.testing.assert_allclose(found[:, output], expected, rtol=1e-12)


def test_interval_coverage_follows_its_beta_distribution() -> None:
    """Normal residuals: given the quantile q the coverage is 2 Φ(q) − 1, nothing is estimated."""
    generator, rows, repeats = np.random.default_rng(5), 60, 500
    residuals = generator.normal(size=(repeats, rows, 1))
    zeros, ones = np.zeros((rows, 1)), np.ones((rows, 1))
    fits = [fit_regressor(zeros, ones, each, 0.9) for each in residuals]
    true = 2 * stats.norm.cdf([fitted.quantiles[0] for fitted in fits]) - 1
    k = rank(rows, 0.9)
    assert stats.kstest(true, stats.beta(k, rows + 1 - k).cdf).pvalue > 1e-6
    low, high = fits[0].intervals[0]
    inside = int(((true >= low) & (true <= high)).sum())
    least, most = stats.binom.ppf([1e-6, 1 - 1e-6], repeats, 0.95)
    assert least <= inside <= most


REPEATS, ROWS, TESTED = 300, 100, 100


def covered_counts(method: str, randomised: bool, per_class: bool) -> FloatArray:
    """How many of the tested rows of each repeat had their label in the set, [repeats]."""
    counts = []
    for repeat in range(REPEATS):
        probs, labels = drawn(100 + repeat, ROWS + TESTED)
        if per_class:  # of class 1 alone, and as many of it as without
            probs, labels = drawn(100 + repeat, 8 * (ROWS + TESTED))
            own = np.flatnonzero(labels == 1)[: ROWS + TESTED]
            rest = np.flatnonzero(labels != 1)[: 5 * ROWS]
            probs = np.concatenate([probs[own[:ROWS]], probs[rest], probs[own[ROWS:]]])
            labels = np.concatenate([labels[own[:ROWS]], labels[rest], labels[own[ROWS:]]])
        uniforms = np.random.default_rng(9000 + repeat).random(len(probs)) if randomised else None
        halves = [None, None] if uniforms is None else [uniforms[:-TESTED], uniforms[-TESTED:]]
        fitted = fit_classifier(
            probs[:-TESTED],
            labels[:-TESTED],
            0.9,
            method=method,
            uniforms_B=halves[0],
            per_class=per_class,
        )
        sets = prediction_sets(probs[-TESTED:], fitted, halves[1])
        counts.append(sets[np.arange(TESTED), labels[-TESTED:]].sum())
    return np.array(counts)


@pytest.mark.parametrize(
    ("method", "randomised", "per_class"),
    [("lac", False, False), ("lac", False, True), ("aps", True, False), ("aps", True, True)],
)
def test_coverage_over_many_splits(method: str, randomised: bool, per_class: bool) -> None:
    """Scores without ties: the rows covered are beta-binomial, whatever the network."""
    counts = covered_counts(method, randomised, per_class)
    k = rank(ROWS, 0.9)
    expected = stats.betabinom(TESTED, k, ROWS + 1 - k)
    assert abs(counts.mean() - expected.mean()) < 5 * expected.std() / np.sqrt(REPEATS)
    outside = expected.cdf(expected.ppf(0.025) - 1) + expected.sf(expected.ppf(0.975))
    seen = ((counts < expected.ppf(0.025)) | (counts > expected.ppf(0.975))).sum()
    assert stats.binom.ppf(1e-6, REPEATS, outside) <= seen
    assert seen <= stats.binom.ppf(1 - 1e-6, REPEATS, outside)


def test_deterministic_aps_covers_at_least_what_was_asked() -> None:
    counts = covered_counts("aps", randomised=False, per_class=False)
    k = rank(ROWS, 0.9)
    expected = stats.betabinom(TESTED, k, ROWS + 1 - k)
    assert counts.mean() > expected.mean() - 5 * expected.std() / np.sqrt(REPEATS)


@given(st.integers(0, 10**6), st.sampled_from(["lac", "aps"]), st.booleans())
@settings(max_examples=50, deadline=None)
def test_more_coverage_never_takes_a_class_away(seed: int, method: str, randomised: bool) -> None:
    (probs, labels), (others, _) = drawn(seed, 60), drawn(seed + 1, 20)
    generator = np.random.default_rng(seed)
    uniforms, later = generator.random(60), generator.random(20)

    def sets(coverage: float) -> FloatArray:
        chosen = uniforms if randomised and method == "aps" else None
        fitted = fit_classifier(probs, labels, coverage, method=method, uniforms_B=chosen)
        return prediction_sets(others, fitted, None if chosen is None else later).astype(float)

    assert (sets(0.6) <= sets(0.9)).all()


@given(st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_deterministic_aps_sets_hold_the_most_probable_classes(seed: int) -> None:
    fitted = fit_classifier(*drawn(seed, 60), 0.8, method="aps")
    others, _ = drawn(seed + 1, 20)
    sets = prediction_sets(others, fitted)
    least_inside = np.where(sets, others, 2).min(axis=1)
    most_outside = np.where(sets, -1, others).max(axis=1)
    assert (least_inside > most_outside).all()


def test_what_was_fitted_survives_json() -> None:
    probs, labels = drawn(6, 200)
    fitted = fit_classifier(probs, labels, 0.8, method="aps", per_class=True)
    read = ConformalClassifier(**json.loads(json.dumps(dataclasses.asdict(fitted))))
    np.testing.assert_array_equal(prediction_sets(probs, read), prediction_sets(probs, fitted))
    mean, std, targets = np.random.default_rng(7).random((3, 40, 2))
    regressor = fit_regressor(mean, std, targets, 0.8)
    back = ConformalRegressor(**json.loads(json.dumps(dataclasses.asdict(regressor))))
    np.testing.assert_array_equal(intervals(mean, std, back), intervals(mean, std, regressor))


def test_the_likeliest_class_is_kept_in_sets_that_would_be_empty() -> None:
    fitted = ConformalClassifier("lac", False, False, 0.5, (0.3,), (99,), ((0.4, 0.6),))
    probs = [[0.6, 0.3, 0.1], [0.2, 0.8, 0.0]]
    empty, full = [False, False, False], [False, True, False]
    assert prediction_sets(probs, fitted).tolist() == [empty, full]
    kept = prediction_sets(probs, fitted, keep_likeliest=True)
    assert kept.tolist() == [[True, False, False], full]


def test_rounding_of_the_last_cumulative_sum_does_not_decide() -> None:
    """Ten times 0.1 is below one; a label that needs the whole row is at a score of one."""
    probs = np.full((20, 10), 0.1)
    fitted = fit_classifier(probs, np.full(20, 9), 0.9, method="aps")
    assert fitted.quantiles == (1.0,)
    others, _ = drawn(8, 50, classes=10)
    assert prediction_sets(others, fitted).all()


def test_classes_of_a_binary_task() -> None:
    np.testing.assert_allclose(both_labels([[0.3], [1.0]]), [[0.7, 0.3], [0.0, 1.0]])
    with pytest.raises(CalibrationFailed, match=r"\[B, 1\]"):
        both_labels([[0.3, 0.7]])


def test_too_few_rows_say_how_many_are_needed() -> None:
    probs, labels = drawn(0, 98)
    with pytest.raises(TooFewRows, match="at least 99 rows; `probs` has 98"):
        fit_classifier(probs, labels, 0.99)
    with pytest.raises(TooFewRows, match="at least 19 rows; `mean` has 18"):
        fit_regressor(np.ones((18, 1)), np.ones((18, 1)), np.ones((18, 1)), 0.95)
    few = np.concatenate([np.zeros(80), np.full(9, 1), np.full(8, 2), [3]])
    with pytest.raises(TooFewRows, match=r"at least 9 rows of every class; .* 8 of class 2, 1 of"):
        fit_classifier(probs, few, 0.9, per_class=True)


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        ([[0.5, 0.5]] * 9, [2] * 9, "`labels` should hold whole numbers from 0 to 1; it holds 2"),
        ([[0.5, 0.5]] * 9, [0.5] * 9, "0.5 in row 0"),
        ([[0.5, 0.5]] * 9, [0] * 8, "a label for each of 9 rows; it holds 8 labels"),
        ([[0.5, 0.4]] * 9, [0] * 9, "rows that sum to 1; it holds a sum of 0.9 in row 0"),
        ([[1.5, -0.5]] * 9, [0] * 9, "numbers between 0 and 1; it holds 1.5"),
        ([[1.0]] * 9, [0] * 9, "two classes or more"),
    ],
)
def test_probabilities_and_labels_that_do_not_fit_are_refused(
    probs: object, labels: object, message: str
) -> None:
    with pytest.raises(CalibrationFailed, match=message):
        fit_classifier(probs, labels, 0.9)  # type: ignore[arg-type]


def test_what_does_not_go_together_is_refused() -> None:
    probs, labels = drawn(0, 120)
    uniforms = np.random.default_rng(0).random(120)
    with pytest.raises(CalibrationFailed, match="there are lac, aps"):
        fit_classifier(probs, labels, 0.9, method="raps")
    with pytest.raises(CalibrationFailed, match="lac takes no uniforms"):
        fit_classifier(probs, labels, 0.9, uniforms_B=uniforms)
    with pytest.raises(CalibrationFailed, match="fitted without uniforms"):
        prediction_sets(probs, fit_classifier(probs, labels, 0.9), uniforms)
    randomised = fit_classifier(probs, labels, 0.9, method="aps", uniforms_B=uniforms)
    with pytest.raises(CalibrationFailed, match="fitted with uniforms"):
        prediction_sets(probs, randomised)
    with pytest.raises(CalibrationFailed, match="`uniforms` should hold the shape"):
        prediction_sets(probs, randomised, uniforms[:5])
    per_class = fit_classifier(probs, labels, 0.8, per_class=True)
    with pytest.raises(CalibrationFailed, match="3 classes; the sets were fitted for 4"):
        prediction_sets(drawn(0, 5, classes=3)[0], per_class)


def test_scales_that_mean_nothing_are_refused() -> None:
    mean, std, targets = np.ones((3, 20, 2))
    std[3, 1] = 0.0
    with pytest.raises(CalibrationFailed, match=r"zero in row 3, output 1.* give a `floor`"):
        fit_regressor(mean, std, targets, 0.9)
    fitted = fit_regressor(mean, std, targets + 1, 0.9, floor=0.5)
    assert intervals(mean, std, fitted)[3, 1].tolist() == pytest.approx(
        [1 - 0.5 / 1.5, 1 + 0.5 / 1.5]
    )
    with pytest.raises(CalibrationFailed, match="below zero"):
        intervals(mean, -std, fitted)
    with pytest.raises(CalibrationFailed, match="1 outputs; the intervals were fitted for 2"):
        intervals(mean[:, :1], std[:, :1], fitted)
    with pytest.raises(CalibrationFailed, match="`targets` should hold the shape"):
        fit_regressor(mean, std, targets[:, :1], 0.9)


def test_the_methods_that_messages_list_are_all_there() -> None:
    for method in conformal.METHODS:
        assert fit_classifier(*drawn(0, 60), 0.9, method=method).method == method
