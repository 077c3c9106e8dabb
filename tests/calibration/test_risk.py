"""Risk–coverage curves and deferral: against every order of ties, by hand and by bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.calibration.risk import deferrals, risk_coverage
from service.errors import CalibrationFailed, TooFewRows


def plain_area(losses: list[float]) -> float:
    """Mean over coverages of the mean loss of the first k."""
    return float(np.mean([np.mean(losses[: k + 1]) for k in range(len(losses))]))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=6),
)
def test_ties_count_as_the_mean_of_all_their_orders(rows: list[tuple[int, int]]) -> None:
    orders = [
        [float(loss) for _, loss in order]
        for order in itertools.permutations(rows)
        if [value for value, _ in order] == sorted(value for value, _ in rows)
    ]
    uncertainty, loss = np.array(rows, dtype=float).T
    curve = risk_coverage(uncertainty, loss)
    assert curve.area == pytest.approx(np.mean([plain_area(order) for order in orders]))
    best = plain_area(sorted(float(value) for value in loss))
    assert curve.excess_area == pytest.approx(curve.area - best)
    assert curve.excess_area >= -1e-12


def test_by_hand() -> None:
    curve = risk_coverage([0.9, 0.1, 0.5, 0.3], [1, 0, 1, 0])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert curve.excess_area == 0


def test_the_best_order_has_the_closed_form_of_the_paper() -> None:
    """For losses of 0 and 1 and a rate r: r + (1 − r) ln(1 − r), up to terms of 1 / n."""
    rows, rate = 20_000, 0.1
    loss = np.arange(rows) >= rows * (1 - rate)
    curve = risk_coverage(np.arange(rows, dtype=float), loss)
    expected = rate + (1 - rate) * np.log(1 - rate)
    # A sum of n risks, rising from 0 to r, is off its integral by r / n at the most.
    assert curve.area == pytest.approx(expected, abs=rate / rows)


def test_deferral_by_hand() -> None:
    uncertainty = np.arange(200.0)
    loss = np.zeros(200)
    loss[[199, 195, 150, 3]] = 1
    found = deferrals(uncertainty, loss)
    assert [each.rows for each in found] == [2, 10, 20, 40]
    assert [each.risk for each in found] == pytest.approx([3 / 198, 2 / 190, 2 / 180, 2 / 160])
    assert [each.avoided for each in found] == [0.25, 0.5, 0.5, 0.5]
    assert {each.risk_of_all for each in found} == {0.02}
    assert deferrals([0.0, 1.0], [0.0, 0.0], [0.5])[0].avoided == 0


def test_an_uncertainty_that_says_nothing_leaves_the_risk_as_it_is() -> None:
    loss = np.random.default_rng(0).random(50)
    for each in deferrals(np.ones(50), loss):
        assert each.risk == pytest.approx(loss.mean())


def test_shares_are_of_the_decimal_that_was_written() -> None:
    """100 · 0.29 is 28.999999999999996 in binary."""
    assert deferrals(np.arange(100.0), np.ones(100), [0.29])[0].rows == 29


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(CalibrationFailed, match=r"`loss` .* the shape \[2\] of `uncertainty`"):
        risk_coverage([0.0, 1.0], [1.0])
    with pytest.raises(CalibrationFailed, match="`shares` should hold a number above 0"):
        deferrals([0.0, 1.0], [0.0, 1.0], [1.0])
    with pytest.raises(TooFewRows, match="`uncertainty` has 0"):
        risk_coverage([], [])
