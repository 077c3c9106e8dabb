"""Detection: against scikit-learn and DeLong's own sums, intervals by simulation, honest choice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from service.calibration import detection as detecting
from service.calibration.detection import detection, recommend
from service.errors import CalibrationFailed, TooFewRows


def drawn(seed: int, rows: int = 200, gap: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores in and out of distribution, rounded so that some are equal."""
    generator = np.random.default_rng(seed)
    inside, outside = generator.normal(size=rows), generator.normal(size=rows // 2) + gap
    return inside.round(1), outside.round(1)


def references(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float, float, float]:
    values = np.concatenate([inside, outside])
    truth = np.arange(len(values)) >= len(inside)
    false, true, _ = metrics.roc_curve(truth, values, drop_intermediate=False)
    return (
        metrics.roc_auc_score(truth, values),
        metrics.average_precision_score(truth, values),
        metrics.average_precision_score(~truth, -values),
        false[true >= 0.95][0],
    )


@pytest.mark.parametrize("seed", range(4))
def test_rates_are_those_of_scikit_learn(seed: int) -> None:
    inside, outside = drawn(seed)
    found = detection(inside, outside)
    seen = (found.auroc, found.aupr_out, found.aupr_in, found.fpr95)
    assert seen == pytest.approx(references(inside, outside), rel=1e-12)
    assert (found.rows_in, found.rows_out) == (200, 100)


VALUES = st.lists(st.integers(0, 6), min_size=2, max_size=15)


@given(VALUES, VALUES)
@settings(max_examples=50, deadline=None)
def test_rates_are_those_of_scikit_learn_with_many_ties(a: list[int], b: list[int]) -> None:
    inside, outside = np.array(a, dtype=float), np.array(b, dtype=float)
    in_K, out_K = detecting._counts(inside, outside)
    [curves] = detecting._curves(in_K[None], out_K[None])
    area, (low, high) = detecting._auroc(inside, outside)
    assert [area, *curves] == pytest.approx(references(inside, outside), rel=1e-12)
    assert 0 <= low <= area + 1e-9
    assert area - 1e-9 <= high <= 1


def test_the_interval_of_the_area_is_that_of_delong() -> None:
    """By the definition: every pair compared, variances of each row's mean."""
    inside, outside = drawn(5)
    pairs = np.sign(outside[:, None] - inside[None]) / 2 + 0.5
    variance = pairs.mean(0).var(ddof=1) / 200 + pairs.mean(1).var(ddof=1) / 100
    area = pairs.mean()
    half = stats.norm.ppf(0.975) * math.sqrt(variance) / (area * (1 - area))
    middle = math.log(area / (1 - area))
    expected = [1 / (1 + math.exp(-(middle + sign * half))) for sign in (-1, 1)]
    assert detection(inside, outside).auroc_interval == pytest.approx(expected, rel=1e-9)


def test_the_true_area_is_in_its_interval_about_as_often_as_stated() -> None:
    generator, repeats = np.random.default_rng(6), 1000
    true = stats.norm.cdf(1.5 / math.sqrt(2))
    missed = 0
    for _ in range(repeats):
        inside, outside = generator.normal(size=150), generator.normal(size=150) + 1.5
        low, high = detecting._auroc(inside, outside)[1]
        missed += not low <= true <= high
    # An asymptotic interval: its 5 % are held to a fifth of themselves, the rest is the binomial.
    assert (
        stats.binom.ppf(1e-5, repeats, 0.04) <= missed <= stats.binom.ppf(1 - 1e-5, repeats, 0.06)
    )


def test_the_bootstrap_has_the_spread_of_the_rates() -> None:
    """The false-positive rate at a threshold of many rows: its interval holds the truth."""
    true = stats.norm.sf(2 + stats.norm.ppf(0.05))
    generator, repeats = np.random.default_rng(7), 40
    missed = 0
    for repeat in range(repeats):
        inside, outside = generator.normal(size=300), generator.normal(size=300) + 2
        low, high = detection(inside, outside, seed=repeat).fpr95_interval
        assert low < high
        missed += not low <= true <= high
    assert missed <= stats.binom.ppf(1 - 1e-5, repeats, 0.06)


def test_a_bootstrap_depends_on_its_seed_alone() -> None:
    inside, outside = drawn(8)
    assert detection(inside, outside, seed=1) == detection(inside, outside, seed=1)
    assert detection(inside, outside, seed=1) != detection(inside, outside, seed=2)


def test_chunks_of_the_bootstrap_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = drawn(9, rows=40)
    in_K, out_K = detecting._counts(inside, outside)
    monkeypatch.setattr(detecting, "_CHUNK", 7 * len(in_K))
    chunks = list(detecting._bootstrap(in_K, out_K, np.random.default_rng(0)))
    assert {len(chunk) for chunk in chunks[:-1]} == {7}
    assert sum(len(chunk) for chunk in chunks) == detecting.BOOTSTRAPS


@pytest.mark.parametrize("rows", [5, 50, 500])
def test_a_faultless_separation_is_not_certain(rows: int) -> None:
    """Newcombe's lower end: where (1 − θ)² = z² V(θ)."""
    inside, outside = np.arange(float(rows)), np.arange(float(rows)) + rows
    found = detection(inside, outside)
    assert (found.auroc, found.fpr95, found.aupr_out) == (1, 0, 1)
    low, high = found.auroc_interval
    assert high == 1
    z = stats.norm.ppf(0.975)
    brackets = 1 + (rows - 1) * ((1 - low) / (2 - low) + low / (1 + low))
    assert (1 - low) ** 2 == pytest.approx(z**2 * low * (1 - low) * brackets / rows**2)
    back = detection(outside, inside)
    assert back.auroc == 0
    assert back.auroc_interval == pytest.approx((0, 1 - low))


def test_scores_that_are_all_equal_say_nothing() -> None:
    found = detection(np.zeros(30), np.zeros(10))
    assert (found.auroc, found.aupr_out, found.aupr_in, found.fpr95) == (0.5, 0.25, 0.75, 1.0)
    low, high = found.auroc_interval
    assert low < 0.5 < high


def test_the_best_score_is_recommended_and_reported_on_other_rows() -> None:
    inside, outside = drawn(10, gap=3.0)
    poor_in, poor_out = drawn(11, gap=0.0)
    found = recommend(
        {"poor": poor_in, "good": inside, "same": inside},
        {"poor": poor_out, "good": outside, "same": outside},
        seed=0,
    )
    assert found.name == "good"
    assert list(found.reported) == ["poor", "good", "same"]
    assert (found.reported["good"].rows_in, found.reported["good"].rows_out) == (100, 50)


def test_what_is_reported_has_no_bias_from_the_choice() -> None:
    """Twenty scores that say nothing: the chosen one's area is ½ where it is reported."""
    repeats, scores = 60, 20
    chosen, reported = [], []
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        inside = {str(name): generator.random(40) for name in range(scores)}
        outside = {str(name): generator.random(40) for name in range(scores)}
        found = recommend(inside, outside, seed=repeat)
        chosen.append(found.chosen_by[found.name])
        reported.append(found.reported[found.name].auroc)
    # The variance of an area of 20 and 20 rows that says nothing, (m + n + 1) / 12 m n.
    error = math.sqrt(41 / (12 * 400) / repeats)
    assert abs(np.mean(reported) - 0.5) < 5 * error
    assert np.mean(chosen) > 0.5 + 5 * error


def test_the_choice_ignores_the_rows_it_reports_on() -> None:
    inside, outside = {"a": drawn(12)[0], "b": drawn(13)[0]}, {"a": drawn(12)[1], "b": drawn(13)[1]}
    before = recommend(inside, outside, seed=3)
    reporting = np.random.default_rng(3).permutation(200)[100:]
    changed = {name: values.copy() for name, values in inside.items()}
    changed["a"][reporting] = 100.0
    changed["b"][reporting] = -100.0
    after = recommend(changed, outside, seed=3)
    assert after.chosen_by == before.chosen_by
    assert (after.reported["a"].auroc, after.reported["b"].auroc) == (0, 1)


def test_what_cannot_be_used_is_refused() -> None:
    two = np.arange(2.0)
    with pytest.raises(TooFewRows, match="at least 2 rows; `out_of_distribution` has 1"):
        detection(two, two[:1])
    with pytest.raises(CalibrationFailed, match=r"`in_distribution` .* nan at \[0\]"):
        detection([np.nan, 1.0], two)
    with pytest.raises(TooFewRows, match="at least 4 rows; `a` has 2"):
        recommend({"a": two}, {"a": two}, seed=0)
    with pytest.raises(CalibrationFailed, match="in distribution there are a, out of it b"):
        recommend({"a": two}, {"b": two}, seed=0)
    with pytest.raises(CalibrationFailed, match="out of it none"):
        recommend({}, {}, seed=0)
    with pytest.raises(CalibrationFailed, match=r"`b` should hold the shape \[4\] of `a`"):
        recommend({"a": np.zeros(4), "b": two}, {"a": np.zeros(4), "b": two}, seed=0)
