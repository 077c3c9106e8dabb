"""Means and variances agree with plain train-mode passes, for every kind of dropout.

Each kind is compared on three random networks, in both mask modes, over 4,000 passes; packed
sequences, of which each row is a call of its own, on one. Both sides are Monte Carlo estimates, so
every difference is divided by its own standard error, in two ways:

- each output by itself: for means from the sample variances, for variances from the fourth moments
  (the variance of a sample variance is (μ₄ − σ⁴) / T). Some 3,000 comparisons in all; z = 6 is
  exceeded by chance in one of them with probability 3,000 · 2e-9.
- the spread as a whole, the mean over outputs of (y − ȳ)² relative to the plain variance: its error
  comes from blocks of passes, and the n cases of a kind, six or two, are combined (Stouffer:
  Σz / √n). Some 30 comparisons; z = 5 is exceeded with probability 30 · 6e-7. This one notices a
  rate that is a tenth off, which the last tests show.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn

from service.inference.sampler import Sampler, build_sampler
from service.inference.sites import inspect
from service.types import Masks
from tests.networks import NETWORKS, build, example
from tests.sampling import outputs_of

PASSES = 4000
BLOCKS = 40
SEEDS = (0, 1, 2)
ROWS = 3
PASSES_AT_ONCE = 200
ONE_FOR_ALL_ROWS = ("drop_connect", "embedding")
"""Kinds of which every row of a forward call gets the same mask."""
ROW_BY_ROW = ("lstm_packed",)
Z_SINGLE = 6.0
Z_WHOLE = 5.0


def sampler_of(name: str, network: nn.Module) -> Sampler:
    return build_sampler(
        network, example(name), device=torch.device("cpu"), memory_bytes=64 * 2**20
    )


def sampled(sampler: Sampler, inputs: Tensor, masks: Masks, passes: int = PASSES) -> Tensor:
    return outputs_of(sampler, inputs, passes, masks, seed=3)


def plain(
    network: nn.Module,
    modules: Iterable[nn.Module],
    inputs: Tensor,
    at_once: int,
    passes: int = PASSES,
) -> Tensor:
    """What a careful user's loop gives: exactly the modules that drop in train mode.

    Where rows drop each by itself, a forward call makes several passes: the rows over and over.
    """
    network.eval()
    for module in modules:
        module.training = True
    repeated = inputs.repeat(at_once, *[1] * (inputs.dim() - 1))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(4)
        outputs = torch.cat([network(repeated.clone()) for _ in range(passes // at_once)])
    network.eval()
    return outputs.view(passes, len(inputs), *outputs.shape[1:])


def largest_z(a_TBC: Tensor, b_TBC: Tensor) -> float:
    """Largest deviation of means and of variances, in standard errors."""

    def of_variance(values: Tensor) -> Tensor:
        centred = values - values.mean(0)
        return ((centred**4).mean(0) - centred.var(0) ** 2).clamp_min(0) / len(values)

    a, b = a_TBC.double(), b_TBC.double()
    tiny = 1e-12
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt() + tiny
    means = ((a.mean(0) - b.mean(0)) / error).abs().max()
    error = (of_variance(a) + of_variance(b)).sqrt() + tiny
    variances = ((a.var(0) - b.var(0)) / error).abs().max()
    return float(torch.maximum(means, variances))


def whole_z(a_TBC: Tensor, b_TBC: Tensor) -> float:
    """Deviation of the spread as a whole, in standard errors."""
    a, b = a_TBC.double(), b_TBC.double()
    scale = b.var(0).clamp_min(1e-24)

    def blocks(values: Tensor) -> Tensor:
        relative = ((values - values.mean(0)) ** 2 / scale).flatten(1).mean(1)
        return relative.view(BLOCKS, -1).mean(1)

    first, second = blocks(a), blocks(b)
    error = ((first.var() + second.var()) / BLOCKS).sqrt() + 1e-12
    return float((first.mean() - second.mean()) / error)


@functools.cache
def plain_passes(name: str, seed: int) -> Tensor:
    """Of a network with random weights."""
    network = build(name, seed)
    at_once = 1 if name in ONE_FOR_ALL_ROWS else PASSES_AT_ONCE
    droppers = inspect(network, example(name)).modules
    return plain(network, droppers, example(name)(ROWS), at_once)


def deviation(
    name: str, seeds: Sequence[int] = SEEDS, rate_factor: float = 1.0
) -> tuple[float, float]:
    """Largest single z, and the combined z of the whole, over random networks and mask modes.

    `rate_factor` changes every rate of the sampled network, not of the plain one.
    """
    single, whole = [], []
    for seed in seeds:
        network = build(name, seed)
        inputs = example(name)(ROWS)
        expected = plain_passes(name, seed)
        for module in inspect(network, example(name)).modules:
            for attribute in ("p", "dropout"):
                if isinstance(rate := getattr(module, attribute, None), float):
                    setattr(module, attribute, rate * rate_factor)
        sampler = sampler_of(name, network)
        for masks in Masks:
            got = sampled(sampler, inputs, masks)
            single.append(largest_z(got, expected))
            whole.append(whole_z(got, expected))
    return max(single), abs(sum(whole)) / len(whole) ** 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_plain_loop(name: str) -> None:
    single, whole = deviation(name, seeds=[0] if name in ROW_BY_ROW else SEEDS)
    assert single < Z_SINGLE
    assert whole < Z_WHOLE


@pytest.mark.parametrize("name", ["mlp", "encoder", "lstm", "alpha", "spatial_2d", "functional"])
def test_a_mask_that_is_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("draws", "operators", "noise"):
        monkeypatch.setattr(f"service.inference.{module}.keep", lambda bits, rate: bits == bits)
    single, _ = deviation(name, seeds=[0])
    assert single > Z_SINGLE


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        *(("mlp", 0.9), ("mlp", 1.1), ("encoder", 0.9)),
        *(("lstm", 1.1), ("alpha", 0.9), ("spatial_2d", 1.1)),
    ],
)
def test_a_rate_that_is_off_by_a_tenth_is_noticed(name: str, factor: float) -> None:
    assert deviation(name, rate_factor=factor)[1] > Z_WHOLE


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True)


def test_a_mask_shared_over_time_that_should_not_be_is_noticed() -> None:
    def summed(drop: nn.Module) -> Tensor:
        sampler = build_sampler(
            nn.Sequential(drop, nn.Flatten(), _Sum()),
            lambda rows: torch.ones(rows, 8, 5),
            device=torch.device("cpu"),
            memory_bytes=64 * 2**20,
        )
        return sampled(sampler, torch.ones(ROWS, 8, 5), Masks.INDEPENDENT)

    own, shared = summed(nn.Dropout(0.4)), summed(nn.Dropout1d(0.4))
    assert largest_z(own, shared) > Z_SINGLE
