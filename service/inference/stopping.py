"""When a row has had passes enough: adaptive sampling to a tolerance of the standard error.

A row stops at the first look at which an upper confidence bound of its standard error,

    s √(ν / χ²_ν(α_k)) / √n,    s the largest sample standard deviation of its outputs,

is at most the tolerance. The sample value s / √n itself would not do: sampling until it happens to
be small stops early exactly where it is too small (Anscombe, "Sequential estimation", JRSS B 1953;
Glynn and Whitt, "The asymptotic validity of sequential stopping rules", 1992). Three things make
the rule hold at few passes.

- χ²_ν(α) is the quantile of the chi-square distribution that s² ν / σ² follows: exactly for
  normal passes and ν = n − 1; otherwise ν = 2 n / (κ − (n − 3) / (n − 1)) gives it the variance
  that s² has at a kurtosis κ (Box, "Non-normality and tests on variances", Biometrika 1953). κ is
  not estimated, which few passes cannot: it is assumed to be at most `KURTOSIS`.
- Looks lie on a fixed geometric schedule, and the k-th may err with probability α_k =
  α / (k (k + 1)). These add up to α over any number of looks (Bonferroni), and no α_k depends on
  `max_passes`, so that raising it changes no row that stopped.
- A row whose passes were all but equal has shown nothing yet of how they differ. It goes on to
  `EQUAL_PASSES`, where one that differs in a share p of passes has been seen with probability
  1 − (1 − p)^n: 95 % for p = 3 / n (Hanley and Lippman-Hand, "If nothing goes wrong, is everything
  all right?", JAMA 1983).

What is promised: of rows whose passes have a kurtosis of at most 9 (uniform 1.8, normal 3,
exponential 9, yes or no with p between 0.1 and 0.9 at most 8.1) at least 95 % have a true standard
error within the tolerance when they stop; their number of passes is a function of the row, the seed
and the tolerance alone. The output with the largest true error decides, so many outputs cost no
certainty. What is not: passes that differ rarely *and* much. Of a jump in one pass of 30 (kurtosis
28), all passes being equal otherwise, 1.3 % of rows have seen none by the look at 128 where they
stop, and some that saw a single one underrate it; a jump behind an ordinary spread is beyond any
rule that does not know its size. Where such matters, ask for `passes` instead.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

CONFIDENCE = 0.95
KURTOSIS = 9.0
FIRST_LOOK = 16
DOUBLED_IN = 2
"""Looks in which passes double: a row runs at most 41 % more than its rule asks for."""

EQUAL_PASSES = 100
ALL_BUT_EQUAL = 1e-3
"""Passes count as equal while their standard deviation is below this share of the tolerance: the
same numbers come out of products of other sizes with other rounding, so zero is not to be had."""


def looks(max_passes: int) -> tuple[int, ...]:
    """Numbers of passes below `max_passes` after which a row may stop, ascending."""
    return tuple(itertools.takewhile(lambda passes: passes < max_passes, _schedule()))


def may_stop(std_BC: Tensor, passes: int, tolerance: float) -> Tensor:
    """Which rows need no more passes than these.

    Args:
        std_BC: sample standard deviation over the passes so far, [B, ...].
        passes: how many; one of `looks`.
        tolerance: of the standard error of the mean, in the unit of `std_BC`.

    Returns:
        [B] of booleans; never True where std / √passes is above the tolerance, or not a number.
    """
    largest_B = std_BC.flatten(1).amax(dim=1)
    enough_B: Tensor = largest_B * inflation(passes) / math.sqrt(passes) <= tolerance
    if passes < EQUAL_PASSES:
        enough_B = enough_B & (largest_B > ALL_BUT_EQUAL * tolerance)
    return enough_B


@functools.cache
def inflation(passes: int) -> float:
    """Upper confidence bound of the standard deviation after so many passes, as a multiple of s."""
    look = 1 + list(looks(passes + 1)).index(passes)
    level = (1 - CONFIDENCE) / (look * (look + 1))
    freedom = 2 * passes / (KURTOSIS - (passes - 3) / (passes - 1))
    return math.sqrt(freedom / chi_square_quantile(level, freedom))


def chi_square_quantile(level: float, freedom: float) -> float:
    """x with P(χ² ≤ x) = level, by bisection; level below one half."""

    def probability(x: float) -> float:
        half = torch.tensor([0.5 * freedom, 0.5 * x], dtype=torch.float64)
        return float(torch.special.gammainc(half[0], half[1]))

    # The median is below the mean, so the quantile lies between 0 and the degrees of freedom.
    low, high = 0.0, freedom
    while high - low > 1e-12 * freedom:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if probability(middle) < level else (low, middle)
    return low


def _schedule() -> Iterator[int]:
    return (math.ceil(FIRST_LOOK * 2 ** (step / DOUBLED_IN)) for step in itertools.count())
