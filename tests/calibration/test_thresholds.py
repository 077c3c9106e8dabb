"""Thresholds: their order statistic, what they promise on new data, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from service.calibration.order_statistics import order_statistic, rank, rows_needed
from service.calibration.thresholds import fit_threshold, flagged
from service.errors import CalibrationFailed, TooFewRows


def test_the_threshold_is_the_order_statistic() -> None:
    values = np.random.default_rng(0).permutation(99.0 + np.arange(1, 100))
    threshold = fit_threshold(values, 0.05)
    assert threshold.value == 99.0 + 95
    assert threshold.attained_rate == pytest.approx(4 / 99)
    assert threshold.rows == 99
    assert flagged(values, threshold).sum() == 4
    assert not flagged(np.array([threshold.value]), threshold).any()


@pytest.mark.parametrize("rate", [0.05, 0.07, 0.1, 0.3, 1 / 3])
def test_the_rank_matches_an_inverted_quantile_of_numpy(rate: float) -> None:
    """The k-th of n is the inverse of the empirical distribution function at k / n."""
    values = np.random.default_rng(1).normal(size=150)
    k = rank(150, 1 - rate)
    expected = np.quantile(values, (k - 0.5) / 150, method="inverted_cdf")
    assert fit_threshold(values, rate).value == expected


def test_ranks_are_of_the_decimal_that_was_written() -> None:
    """1000 · 0.93 is 930.0000000000001 in binary."""
    assert rank(999, 0.93) == 930
    assert rank(99, 0.9) == 90
    assert rows_needed(0.9) == 9


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.07, 0.3, 0.7])
def test_the_rows_needed_are_the_fewest_that_will_do(rate: float) -> None:
    needed = rows_needed(1 - rate)
    fit_threshold(np.arange(float(needed)), rate)
    with pytest.raises(TooFewRows, match=rf"at least {needed} rows; `variance` has {needed - 1}$"):
        fit_threshold(np.arange(float(needed - 1)), rate, field="variance")


def test_a_rate_of_one_in_a_hundred_takes_ninety_nine_rows() -> None:
    with pytest.raises(TooFewRows) as caught:
        fit_threshold(np.arange(20.0), 0.01)
    assert (caught.value.expected, caught.value.received) == (99, 20)


@pytest.mark.parametrize(
    ("values", "rate", "message"),
    [
        ([0.0, np.nan], 0.5, r"`values` should hold finite numbers; it holds nan at \[1\]"),
        ([[0.0, 1.0]], 0.5, r"`values` should hold numbers \[B\]; it holds the shape \[1, 2\]"),
        (["a"], 0.5, "values that are none"),
        ([0.0, 1.0], 1.0, "`false_positive_rate` should hold a number above 0 and below 1"),
        ([0.0, 1.0], np.nan, "`false_positive_rate`"),
    ],
)
def test_what_cannot_be_used_is_refused(values: object, rate: float, message: str) -> None:
    with pytest.raises(CalibrationFailed, match=message):
        fit_threshold(values, rate)  # type: ignore[arg-type]


@given(
    st.lists(st.integers(0, 5), min_size=20, max_size=60),
    st.sampled_from([0.05, 0.1, 0.25, 0.5]),
)
def test_no_sample_flags_more_of_itself_than_was_asked(values: list[int], rate: float) -> None:
    threshold = fit_threshold([float(value) for value in values], rate)
    assert threshold.attained_rate <= rate
    assert 0 <= threshold.interval[0] <= threshold.attained_rate <= threshold.interval[1] <= 1


def _misses(draw: np.ndarray, rate: float, above: np.ndarray) -> tuple[int, int, float]:
    """How often the true rate is below and above the interval, and its mean. `above[v]`: P(> v)."""
    thresholds = [fit_threshold(values, rate) for values in draw]
    true = np.array([above[int(threshold.value)] for threshold in thresholds])
    low, high = np.array([threshold.interval for threshold in thresholds]).T
    return int((true < low).sum()), int((true > high).sum()), float(true.mean())


def test_the_true_rate_is_in_its_interval_as_often_as_stated() -> None:
    """Uniform scores: the true rate of a threshold v is 1 − v, so nothing is estimated."""
    repeats, rows, rate = 2000, 200, 0.05
    draws = np.random.default_rng(2).random((repeats, rows))
    thresholds = [fit_threshold(values, rate) for values in draws]
    true = np.array([1 - threshold.value for threshold in thresholds])
    low, high = np.array([threshold.interval for threshold in thresholds]).T
    # Each side misses with probability 2.5 %; the bounds leave out 1e-6 of the binomial.
    least, most = stats.binom.ppf([1e-6, 1 - 1e-6], repeats, 0.025)
    assert least <= (true < low).sum() <= most
    assert least <= (true > high).sum() <= most
    k = rank(rows, 1 - rate)
    beta = stats.beta(rows + 1 - k, k)
    assert abs(true.mean() - beta.mean()) < 5 * beta.std() / np.sqrt(repeats)
    assert stats.kstest(true, beta.cdf).pvalue > 1e-6


@pytest.mark.parametrize("levels", [2, 5, 20, 100])
def test_the_interval_holds_with_ties(levels: int) -> None:
    """Scores of few distinct values, as a variation ratio has them: v with P(> v) known."""
    repeats, rows, rate = 2000, 200, 0.1
    weights = np.random.default_rng(levels).dirichlet(np.ones(levels))
    weights = np.sort(weights)[::-1]
    draws = np.random.default_rng(3).choice(levels, size=(repeats, rows), p=weights).astype(float)
    above = np.maximum(1 - np.cumsum(weights), 0)
    below_interval, above_interval, mean = _misses(draws, rate, above)
    most = stats.binom.ppf(1 - 1e-6, repeats, 0.025)
    assert below_interval <= most
    assert above_interval <= most
    assert mean <= rate


def test_an_interval_without_regard_to_ties_would_not_hold() -> None:
    """A tenth of the values are 1, the others 0: what Beta(n + 1 − k, k) says is never true."""
    rows, rate = 200, 0.3
    values = (np.arange(rows) % 10 == 0).astype(float)
    k = rank(rows, 1 - rate)
    naive = stats.beta.ppf(0.025, rows + 1 - k, k)
    threshold = fit_threshold(values, rate)
    assert naive > 0.1
    assert threshold.interval[0] < 0.1 < threshold.interval[1]
    assert threshold.attained_rate == pytest.approx(0.1)


def test_the_interval_with_ties_is_that_of_clopper_and_pearson_below() -> None:
    values = np.repeat([0.0, 1.0, 2.0], [70, 25, 5])
    found = order_statistic("values", values, 0.9)
    assert found.value == 1.0
    low, _ = proportion_confint(5, 100, alpha=0.05, method="beta")
    assert 1 - found.interval[1] == pytest.approx(low, rel=1e-9)


def test_equal_values_flag_nothing() -> None:
    threshold = fit_threshold(np.zeros(50), 0.1)
    assert (threshold.attained_rate, threshold.interval[0]) == (0.0, 0.0)
