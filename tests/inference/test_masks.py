"""Random numbers are a pure function of (seed, site, pass, row), and are random."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from service.inference.masks import Streams, keep, member_seed, normal, uniform

CPU = torch.device("cpu")
KNOWN = [1243250029, -479947523, -341145111, -1252405847, -370914426]
Z = 5.0
"""Bound of single comparisons: exceeded by chance once in 1.7 million."""


def bits(
    seed: int = 0, site: int = 0, passes: range = range(1), rows: range | None = None, n: int = 64
) -> Tensor:
    return Streams(seed, passes, rows).bits(site, n, CPU)


def test_known_numbers_that_must_never_change() -> None:
    assert bits(7, 2, range(3, 4), n=5).flatten().tolist() == KNOWN


def test_members_have_seeds_of_their_own_that_must_never_change() -> None:
    assert [member_seed(7, member) for member in range(3)] == [
        7,
        4885070878633202215,
        -3691619256077285485,
    ]
    seeds = [-(2**63), -1, 0, 1, 2, 2**63 - 1]
    found = [member_seed(seed, member) for seed in seeds for member in range(50)]
    assert len(set(found)) == len(found)
    assert all(-(2**63) <= seed < 2**63 for seed in found)


def test_a_pass_is_the_same_in_any_chunk() -> None:
    whole = bits(passes=range(10))
    assert torch.equal(whole[4:7], bits(passes=range(4, 7)))
    assert torch.equal(whole, bits(passes=range(20))[:10])


def test_a_row_is_the_same_in_any_company() -> None:
    whole = bits(passes=range(3), rows=range(8))
    assert torch.equal(whole[:, 5:6], bits(passes=range(3), rows=range(5, 6)))


def test_fewer_numbers_are_the_first_of_more() -> None:
    assert torch.equal(bits(n=7), bits(n=64)[..., :7])


def test_shapes() -> None:
    assert bits(passes=range(3), n=5).shape == (3, 1, 5)
    assert bits(passes=range(3), rows=range(2), n=5).shape == (3, 2, 5)
    site_without_rows = Streams(0, range(3), range(2)).bits(0, 5, CPU, by_row=False)
    assert torch.equal(site_without_rows, bits(passes=range(3), n=5))


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_streams_of_other_keys_are_unrelated(seed: int) -> None:
    n = 20_000
    here = keep(bits(seed, 0, range(1), n=n), 0.5).double().flatten()
    others = [
        bits(seed ^ 1, 0, n=n),
        bits(seed, 1, n=n),
        bits(seed, 0, range(1, 2), n=n),
        bits(seed, 0, rows=range(1), n=n),
        bits(seed, 0, rows=range(1, 2), n=n),
    ]
    for other in others:
        there = keep(other, 0.5).double().flatten()
        # Agreement of fair coins: mean 1/2, standard error 1 / (2 √n).
        assert abs((here == there).double().mean().item() - 0.5) < Z / (2 * n**0.5)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_keep_has_its_rate_in_every_direction(rate: float) -> None:
    kept = keep(bits(passes=range(400), rows=range(5), n=500), rate).double()
    spread = (rate * (1 - rate)) ** 0.5
    for dims in [(0, 1), (1, 2), (0, 2), (0, 1, 2)]:
        means = kept.mean(dims)
        n = kept.numel() / means.numel()
        assert (means - (1 - rate)).abs().max() < (Z + 0.5) * spread / n**0.5


def test_keep_everything_and_nothing() -> None:
    assert keep(bits(n=1000), 0.0).all()
    assert not keep(bits(n=1000), 1.0).any()
    extremes = torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32)
    assert keep(extremes, 0.0).tolist() == [True, True]
    assert keep(extremes, 0.5).tolist() == [False, True]
    assert keep(extremes, 1.0).tolist() == [False, False]


def test_uniform_fills_its_interval_evenly() -> None:
    n = 200_000
    values = uniform(bits(n=n), torch.float32).double()
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, bins=100, min=0, max=1)
    chi_square = ((counts - n / 100) ** 2 / (n / 100)).sum().item()
    # 99 degrees of freedom: mean 99, standard deviation √198.
    assert abs(chi_square - 99) < Z * 198**0.5
    extremes = torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32)
    assert uniform(extremes, torch.float32).tolist() == [0.0, 1 - 2.0**-24]


def test_normal_has_the_moments_of_a_normal() -> None:
    n = 200_000
    values = normal(bits(n=n), torch.float64).flatten()
    assert values.isfinite().all()
    # Standard errors of the first four moments of N(0, 1): Var x^k = E x^2k − (E x^k)².
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        error = (variance / n) ** 0.5
        assert abs((values**power).mean().item() - moment) < Z * error
