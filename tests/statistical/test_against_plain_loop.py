"""Means and variances agree with plain train-mode passes, for every kind of dropout.

Both sides are Monte Carlo estimates, so their difference is compared with its own standard error:
for means from the sample variances, for variances from the fourth moments (the variance of a sample
variance is (μ₄ − σ⁴) / T). The largest of all comparisons has to stay below z = 5: about 600
two-sided normal comparisons exceed that with probability 600 · 5.7e-7 < 0.04 %. What is off by more
exceeds it, which the last tests show.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.inference import masks as masks_module
from service.inference.sampler import Sampler, build_sampler
from service.types import Masks, SamplePlan
from tests.networks import NETWORKS, build, example

PASSES = 2000
ROWS = 3
Z = 5.0


def sampler_of(name: str, network: nn.Module) -> Sampler:
    return build_sampler(
        network, example(name), device=torch.device("cpu"), memory_bytes=64 * 2**20
    )


def sampled(sampler: Sampler, inputs: Tensor, masks: Masks, passes: int = PASSES) -> Tensor:
    chunks = sampler.sample(inputs, SamplePlan(passes, seed=3, masks=masks))
    return torch.cat([outputs for _, outputs in chunks], dim=1)


def plain(network: nn.Module, sampler: Sampler, inputs: Tensor, passes: int = PASSES) -> Tensor:
    """What a careful user's loop gives: exactly the modules that drop in train mode."""
    network.eval()
    for module in sampler.dropping.modules:
        module.training = True
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(4)
        outputs = torch.stack([network(inputs.clone()) for _ in range(passes)])
    network.eval()
    return outputs


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


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_plain_loop(name: str, masks: Masks) -> None:
    network = build(name)
    sampler = sampler_of(name, network)
    inputs = example(name)(ROWS)
    assert largest_z(sampled(sampler, inputs, masks), plain(network, sampler, inputs)) < Z


@pytest.mark.parametrize("name", ["mlp", "encoder", "lstm", "alpha", "spatial_2d"])
def test_a_mask_that_is_off_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(name)
    sampler = sampler_of(name, network)
    inputs = example(name)(ROWS)
    expected = plain(network, sampler, inputs)
    monkeypatch.setattr("service.inference.draws.keep", lambda bits, rate: bits == bits)
    monkeypatch.setattr("service.inference.operators.keep", lambda bits, rate: bits == bits)
    assert largest_z(sampled(sampler, inputs, Masks.SHARED), expected) > Z


@pytest.mark.parametrize("name", ["mlp", "lstm", "alpha"])
def test_a_rate_that_is_off_by_a_tenth_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(name)
    sampler = sampler_of(name, network)
    inputs = example(name)(ROWS)
    passes = 20_000  # the variance moves by about a tenth, some six standard errors here
    expected = plain(network, sampler, inputs, passes)

    def off(bits: Tensor, rate: float) -> Tensor:
        return masks_module.keep(bits, rate * 0.9)

    monkeypatch.setattr("service.inference.draws.keep", off)
    monkeypatch.setattr("service.inference.operators.keep", off)
    assert largest_z(sampled(sampler, inputs, Masks.SHARED, passes), expected) > Z


def test_a_mask_shared_over_time_that_should_not_be_is_noticed() -> None:
    own, shared = nn.Dropout(0.4), nn.Dropout1d(0.4)
    inputs = torch.ones(ROWS, 8, 5)
    head = nn.Flatten()

    def summed(drop: nn.Module) -> Tensor:
        network = nn.Sequential(drop, head, _Sum())
        sampler = build_sampler(
            network,
            lambda rows: torch.ones(rows, 8, 5),
            device=torch.device("cpu"),
            memory_bytes=64 * 2**20,
        )
        return sampled(sampler, inputs, Masks.INDEPENDENT)

    assert largest_z(summed(own), summed(shared)) > Z


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True)
