"""The rule that ends adaptive sampling: its bound, its schedule and its refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from service.inference import stopping
from service.inference.stopping import chi_square_quantile, inflation, looks, may_stop

TOLERANCE = 0.01


def rows(*std: float) -> torch.Tensor:
    return torch.tensor(std, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("freedom", [1.0, 3.93, 25.0, 1000.0])
@pytest.mark.parametrize("level", [0.25, 0.025, 1e-6])
def test_the_chi_square_quantile(level: float, freedom: float) -> None:
    expected = stats.chi2.ppf(level, freedom)
    assert chi_square_quantile(level, freedom) == pytest.approx(expected, rel=1e-6)


def test_looks_lie_on_one_geometric_schedule_whatever_the_most_passes() -> None:
    assert looks(16) == ()
    assert looks(100) == (16, 23, 32, 46, 64, 91)
    assert looks(1000)[: len(looks(100))] == looks(100)
    steps = np.array(looks(10**6))
    assert (steps[1:] / steps[:-1] < math.sqrt(2) + 1 / steps[:-1]).all()


def test_the_bound_tightens_with_passes_and_is_never_below_the_sample() -> None:
    bounds = [inflation(passes) for passes in looks(10**6)]
    assert bounds == sorted(bounds, reverse=True)
    assert 1 < bounds[-1] < 1.02


def test_levels_of_all_looks_together_stay_within_what_is_promised() -> None:
    """Σ 1 / (k (k + 1)) telescopes to 1 − 1 / (K + 1)."""
    levels = []
    for passes in looks(10**6):
        freedom = 2 * passes / (stopping.KURTOSIS - (passes - 3) / (passes - 1))
        levels.append(stats.chi2.cdf(freedom / inflation(passes) ** 2, freedom))
    count = len(levels)
    assert sum(levels) == pytest.approx(0.05 * (1 - 1 / (count + 1)), rel=1e-6)


def test_a_row_stops_where_the_bound_meets_the_tolerance() -> None:
    passes = looks(1000)[8]
    limit = TOLERANCE * math.sqrt(passes) / inflation(passes)
    stopped = may_stop(rows(0.99 * limit, 1.01 * limit), passes, TOLERANCE)
    assert stopped.tolist() == [True, False]


def test_the_largest_output_decides() -> None:
    small, large = 0.02, 10.0
    std = torch.tensor([[small, small], [small, large]]).double()
    assert may_stop(std, 91, TOLERANCE).tolist() == [True, False]
    assert may_stop(std[:, :, None], 91, TOLERANCE).tolist() == [True, False]


def test_passes_that_were_all_but_equal_go_on_to_a_hundred() -> None:
    equal = rows(0.0, 1e-7, 1e-4)
    for passes in looks(100):
        assert may_stop(equal, passes, TOLERANCE).tolist() == [False, False, True]
    assert may_stop(equal, 128, TOLERANCE).all()


def test_what_is_not_a_number_never_stops() -> None:
    assert not may_stop(rows(math.nan, math.inf), looks(1000)[-1], TOLERANCE).any()
