"""What `tolerance` promises holds, by simulation of rows whose passes have a known distribution.

For each distribution and a range of tolerances 2,000 rows draw passes until the rule stops them.
The share of rows that kept the promise is compared with the promised one, less z = 4 standard
errors of a share of so many rows; 60 comparisons, each exceeded by chance with probability 3e-5
if the share were exactly what is promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from service.inference.stopping import CONFIDENCE, looks, may_stop

ROWS = 2000
MOST = 1500
Z = 4.0

Array = NDArray[np.floating[Any]]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

DISTRIBUTIONS: dict[str, tuple[Draw, float, float]] = {
    "normal": (lambda g, shape: g.standard_normal(shape), 0.0, 1.0),
    "uniform": (lambda g, shape: g.random(shape), 0.5, math.sqrt(1 / 12)),
    "coin": (lambda g, shape: (g.random(shape) < 0.5) * 1.0, 0.5, 0.5),
    "one in ten": (lambda g, shape: (g.random(shape) < 0.1) * 1.0, 0.1, 0.3),
    "exponential": (lambda g, shape: g.standard_exponential(shape), 1.0, 1.0),
    "log-normal": (
        lambda g, shape: g.lognormal(0.0, 0.5, shape),
        math.exp(0.125),
        math.sqrt(math.expm1(0.25) * math.exp(0.25)),
    ),
}
"""Draws of passes, their mean and standard deviation; kurtosis 3, 1.8, 1, 8.1, 9 and 8.9."""

NEEDED = (17, 40, 90, 200, 450)
"""Passes at which the true standard error meets the tolerance."""


def stopped_at(passes_BT: Array, tolerance: float) -> NDArray[np.int64]:
    """Passes after which each row stops; its last where it never does."""
    passes_B = np.full(len(passes_BT), passes_BT.shape[1])
    for look in reversed(looks(passes_BT.shape[1])):
        std_B = torch.from_numpy(passes_BT[:, :look].std(axis=1, ddof=1))
        passes_B[may_stop(std_B[:, None], look, tolerance).numpy()] = look
    return passes_B


def least_share(promised: float, rows: int = ROWS) -> float:
    return promised - Z * math.sqrt(promised * (1 - promised) / rows)


@pytest.mark.parametrize("needed", NEEDED)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_true_standard_error_is_within_the_tolerance(name: str, needed: int) -> None:
    draw, _, std = DISTRIBUTIONS[name]
    passes_BT = draw(np.random.default_rng(0), (ROWS, MOST))
    tolerance = std / math.sqrt(needed)
    passes_B = stopped_at(passes_BT, tolerance)
    assert (std / np.sqrt(passes_B) <= tolerance).mean() >= least_share(CONFIDENCE)


@pytest.mark.parametrize("needed", NEEDED)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_mean_is_within_twice_the_tolerance(name: str, needed: int) -> None:
    """The standard error is above the tolerance with probability 1 − CONFIDENCE at most; where it
    is not, a normal mean is off by more than two of them with probability 2 Φ(−2) = 4.6 %. The
    first-order terms of a skewed mean's two tails cancel (Edgeworth)."""
    draw, mean, std = DISTRIBUTIONS[name]
    passes_BT = draw(np.random.default_rng(1), (ROWS, MOST))
    tolerance = std / math.sqrt(needed)
    passes_B = stopped_at(passes_BT, tolerance)
    means = np.array([row[:n].mean() for row, n in zip(passes_BT, passes_B, strict=True)])
    promised = CONFIDENCE - math.erfc(2 / math.sqrt(2))
    assert (np.abs(means - mean) <= 2 * tolerance).mean() >= least_share(promised)


def test_the_sample_alone_would_break_the_promise() -> None:
    """Stopping where s / √n itself is small enough is what the bound is there to prevent."""
    passes_BT = np.random.default_rng(0).standard_normal((ROWS, MOST))
    tolerance = 1 / math.sqrt(40)
    broken = np.zeros(ROWS, dtype=np.bool_)
    for look in (n for n in looks(MOST) if n < 40):
        broken |= passes_BT[:, :look].std(axis=1, ddof=1) / math.sqrt(look) <= tolerance
    at_last_look = stats.chi2.cdf(31 * 32 / 40, 31)
    assert broken.mean() >= least_share(at_last_look) > 2 * (1 - CONFIDENCE)
    kept = math.sqrt(40) / np.sqrt(stopped_at(passes_BT, tolerance)) <= 1
    assert kept.mean() >= least_share(CONFIDENCE)


def test_of_a_jump_in_one_pass_of_thirty_nearly_every_row_sees_one() -> None:
    """Rows miss it with probability (29 / 30)^128 = 1.3 % at the first look past a hundred."""
    passes_BT = (np.random.default_rng(0).random((ROWS, MOST)) < 1 / 30) * 1.0
    tolerance = math.sqrt(29) / 30 / math.sqrt(400)
    passes_B = stopped_at(passes_BT, tolerance)
    seen = np.array([row[:n].any() for row, n in zip(passes_BT, passes_B, strict=True)])
    missed = (29 / 30) ** 128
    assert (passes_B[~seen] == 128).all()
    assert (~seen).mean() == pytest.approx(missed, abs=Z * math.sqrt(missed * (1 - missed) / ROWS))
