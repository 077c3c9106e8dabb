"""Noise is the same however it is asked for, and what is kept of it stays within its budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from service.inference.masks import Streams, keep
from service.inference.noise import Layout, Noise, NoiseBank

CPU = torch.device("cpu")


def factors(noise: Noise, rate: float = 0.3, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of a site whose tensor is [5, L · B · 2, 3]."""
    return noise.factors(7, rate, (5, 2, 3), 1, dtype, CPU)


def test_factors_are_the_streams_bits_laid_out_as_the_tensor_is() -> None:
    noise = Noise([NoiseBank(11, 0)], range(2, 6), 3, [0, 1, 2])
    bits = Streams(11, range(2, 6), [0, 1, 2]).bits(7, 30, CPU)
    expected = keep(bits, 0.3).view(4, 3, 5, 2, 3).permute(2, 0, 1, 3, 4) / 0.7
    torch.testing.assert_close(factors(noise), expected)


@given(
    start=st.integers(0, 20),
    length=st.integers(1, 20),
    limit=st.sampled_from([0, 2000, 10**6]),
    before=st.integers(0, 40),
)
def test_any_range_of_passes_has_its_own_factors_kept_or_not(
    start: int, length: int, limit: int, before: int
) -> None:
    bank = NoiseBank(3, limit)
    if before:
        factors(Noise([bank], range(before), 2))
    part = factors(Noise([bank], range(start, start + length), 2))
    whole = factors(Noise([NoiseBank(3, 0)], range(start + length), 2))
    assert torch.equal(part, whole[:, start:])
    assert bank.bytes <= limit


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_masks_keep_all_bits_of_what_the_factors_keep(rate: float) -> None:
    noise = Noise([NoiseBank(seed, 10**6) for seed in (1, 2)], range(3, 6), 2)
    masks = noise.masks(7, rate, (5, 2, 3), 1, CPU)
    assert masks.dtype == torch.int16
    assert torch.equal(masks, -(factors(noise, rate) > 0).to(torch.int16))


def test_groups_have_the_factors_of_their_seeds() -> None:
    banks = [NoiseBank(seed, 10**6) for seed in (1, 2)]
    both = factors(Noise(banks, range(4), 2))
    alone = [factors(Noise([bank], range(4), 2)) for bank in banks]
    assert torch.equal(both, torch.cat(alone, dim=1))


def test_what_was_kept_is_not_made_again() -> None:
    bank, made = NoiseBank(0, 1000), []

    def make(passes: int) -> tuple[Tensor, ...]:
        made.append(passes)
        return (torch.zeros(passes, 10),)

    for passes in (5, 3, 5, 8, 8):
        assert bank.get("a", passes, 40, make) is not None
    assert made == [5, 8]


def test_the_least_recently_used_goes_first_and_what_never_fits_is_never_made() -> None:
    bank = NoiseBank(0, 1000)

    def make(passes: int) -> tuple[Tensor, ...]:
        return (torch.zeros(passes, 10),)

    for key in ("a", "b", "a", "c"):
        bank.get(key, 10, 40, make)
    assert list(bank._kept) == ["a", "c"]
    assert bank.bytes == 800
    assert bank.get("d", 26, 40, make) is None
    assert list(bank._kept) == ["a", "c"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.3, 0.5])
def test_the_scale_of_low_precision_is_right_on_average(rate: float, dtype: torch.dtype) -> None:
    """bfloat16 rounds 1 / 0.9 by 0.15 %. Its two neighbours in turn, at golden steps, are right up
    to a discrepancy of some ln n / n of their distance, 2⁻⁷ at most."""
    count = 10_000
    noise = Noise([NoiseBank(0, 0)], range(1), 1)
    drawn = noise.factors(0, rate, (1, count), 0, dtype, CPU).double().flatten()
    kept = drawn[drawn > 0]
    assert len(kept.unique()) <= 2
    # Which units are dropped is random: the mean of the kept varies by √(1/4 n) of the distance.
    assert abs(kept.mean() - 1 / (1 - rate)) < 2**-7 * 5 * (0.25 / len(kept)) ** 0.5


def test_a_rate_of_one_keeps_nothing() -> None:
    assert not factors(Noise([NoiseBank(0, 0)], range(3), 2), rate=1.0).any()


def test_a_deterministic_tensor_is_spread_over_the_lanes_of_its_group() -> None:
    rows = torch.arange(6.0).view(1, 6)  # two groups of three rows
    spread = Layout(2, 2, 3).spread(rows, 1)
    assert spread.shape == (1, 2, 2, 3)
    assert spread.flatten().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
