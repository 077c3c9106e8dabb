"""Measures of classification against closed forms, bounds and hand-made cases."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from service.inference import measures
from service.inference.sampler import build_sampler
from service.types import Masks
from tests.sampling import outputs_of

LN2 = math.log(2)


def passes(*rows: list[float]) -> Tensor:
    """Samples [T, 1, C] of one row."""
    return torch.tensor(rows, dtype=torch.float64)[:, None]


def entropy(*probabilities: float) -> float:
    return -sum(p * math.log(p) for p in probabilities if p > 0)


CERTAIN = passes([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
TORN = passes([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
VAGUE = passes([0.5, 0.5, 0.0], [0.5, 0.5, 0.0])
MIXED = passes([0.9, 0.1, 0.0], [0.5, 0.3, 0.2])


@pytest.mark.parametrize(
    ("samples", "predictive", "expected"),
    [
        (CERTAIN, 0.0, 0.0),
        (TORN, LN2, 0.0),
        (VAGUE, LN2, LN2),
        (MIXED, entropy(0.7, 0.2, 0.1), (entropy(0.9, 0.1) + entropy(0.5, 0.3, 0.2)) / 2),
    ],
)
def test_entropies_of_two_point_distributions(
    samples: Tensor, predictive: float, expected: float
) -> None:
    assert measures.predictive_entropy(samples).item() == pytest.approx(predictive, abs=1e-15)
    assert measures.expected_entropy(samples).item() == pytest.approx(expected, abs=1e-15)
    information = measures.mutual_information(samples).item()
    assert information == pytest.approx(predictive - expected, abs=1e-15)


def test_bernoulli_entropies_add_up_over_labels() -> None:
    samples = passes([1.0, 0.5], [0.0, 0.5])
    assert measures.bernoulli_predictive_entropy(samples).item() == pytest.approx(2 * LN2)
    assert measures.bernoulli_expected_entropy(samples).item() == pytest.approx(LN2)
    assert measures.bernoulli_mutual_information(samples).item() == pytest.approx(LN2)
    single = passes([0.2], [0.6])
    whole = entropy(0.4, 0.6)
    parts = (entropy(0.2, 0.8) + entropy(0.6, 0.4)) / 2
    assert measures.bernoulli_predictive_entropy(single).item() == pytest.approx(whole)
    assert measures.bernoulli_expected_entropy(single).item() == pytest.approx(parts)
    assert measures.bernoulli_mutual_information(single).item() == pytest.approx(whole - parts)


def test_variation_ratio_counts_votes_and_is_not_one_minus_the_largest_mean() -> None:
    samples = passes([0.6, 0.4, 0.0], [0.6, 0.0, 0.4], [0.0, 0.1, 0.9], [0.7, 0.2, 0.1])
    assert measures.variation_ratio(samples).item() == pytest.approx(1 / 4)
    assert 1 - samples.mean(0).max().item() == pytest.approx(0.525)


def test_bernoulli_variation_ratio_is_the_minority_share_of_each_label() -> None:
    samples = passes([0.9, 0.1], [0.8, 0.5], [0.4, 0.2], [0.6, 0.1])
    # First label: one no of four; second: one yes of four (one half counts as yes).
    assert measures.bernoulli_variation_ratio(samples).item() == pytest.approx((1 / 4 + 1 / 4) / 2)


def test_rounding_never_takes_mutual_information_below_zero() -> None:
    """Passes that agree have none; unrounded differences fall on both sides of zero."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 500, 5, generator=generator, dtype=torch.float64)
    agreed = logits.softmax(-1).expand(7, -1, -1)
    raw = measures.predictive_entropy(agreed) - measures.expected_entropy(agreed)
    assert (raw < 0).any()
    assert (measures.mutual_information(agreed) >= 0).all()
    whole = measures.bernoulli_predictive_entropy(agreed)
    assert (whole - measures.bernoulli_expected_entropy(agreed) < 0).any()
    assert (measures.bernoulli_mutual_information(agreed) >= 0).all()


def test_moments_by_hand() -> None:
    samples = passes([1.0, 0.0], [3.0, 0.0], [5.0, 6.0])
    torch.testing.assert_close(measures.mean(samples)[0], torch.tensor([3.0, 2.0]).double())
    torch.testing.assert_close(measures.std(samples)[0], torch.tensor([2.0, 12**0.5]).double())
    torch.testing.assert_close(
        measures.standard_error(samples)[0], torch.tensor([2 / 3**0.5, 2.0]).double()
    )
    assert measures.variance(samples).item() == pytest.approx((4 + 12) / 2)


@st.composite
def samples_of(draw: st.DrawFn) -> Tensor:
    shape = (draw(st.integers(2, 6)), draw(st.integers(1, 3)), draw(st.integers(2, 5)))
    numbers = st.floats(-40, 40, allow_nan=False)
    logits = draw(arrays.arrays(np.float64, shape, elements=numbers))
    return torch.from_numpy(logits).softmax(-1)


ROUNDING = 1e-12


@given(samples_of())
@settings(max_examples=200, deadline=None)
def test_bounds(samples: Tensor) -> None:
    classes = samples.shape[-1]
    whole = measures.predictive_entropy(samples)
    information = measures.mutual_information(samples)
    assert (information >= 0).all()
    assert (information <= whole + ROUNDING).all()
    assert (whole <= math.log(classes) + ROUNDING).all()
    assert (measures.expected_entropy(samples) >= 0).all()
    ratio = measures.variation_ratio(samples)
    assert ((ratio >= 0) & (ratio <= 1 - 1 / classes + ROUNDING)).all()
    bernoulli = measures.bernoulli_mutual_information(samples)
    whole = measures.bernoulli_predictive_entropy(samples)
    assert ((bernoulli >= 0) & (bernoulli <= whole + ROUNDING)).all()
    assert (whole <= classes * LN2 + ROUNDING).all()


@given(samples_of())
@settings(max_examples=100, deadline=None)
def test_the_order_of_passes_and_the_company_of_rows_do_not_matter(samples: Tensor) -> None:
    for measure in (*measures.MEASURES.values(), *measures.BERNOULLI_MEASURES.values()):
        values = measure(samples)
        torch.testing.assert_close(measure(samples.flip(0)), values, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(measure(samples[:, :1]), values[:1], rtol=0, atol=ROUNDING)


def test_both_tables_hold_the_same_names() -> None:
    assert set(measures.MEASURES) == set(measures.BERNOULLI_MEASURES)


@pytest.mark.parametrize("masks", list(Masks))
def test_a_masked_linear_layer_has_its_known_mean_and_variance(masks: Masks) -> None:
    """y = Σ w_i x_i m_i / (1 − p): mean Σ w_i x_i, variance p / (1 − p) Σ (w_i x_i)²."""
    rate, count = 0.3, 40_000
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(rate), nn.Linear(8, 2, bias=False)).eval()
    inputs = torch.randn(3, 8)
    sampler = build_sampler(
        network,
        lambda rows: torch.randn(rows, 8),
        device=torch.device("cpu"),
        memory_bytes=64 * 2**20,
    )
    outputs = outputs_of(sampler, inputs, count, masks, seed=1).double()
    [weight] = network.parameters()
    terms = (weight.detach()[None] * inputs[:, None]).double()
    variance = rate / (1 - rate) * (terms**2).sum(-1)
    # Fourth central moment of a sum of independent two-point terms, for the error of a variance.
    fourth = (terms / (1 - rate)) ** 4 * rate * (1 - rate) * (1 - 3 * rate * (1 - rate))
    second = (terms / (1 - rate)) ** 2 * rate * (1 - rate)
    mu4 = fourth.sum(-1) + 3 * (second.sum(-1) ** 2 - (second**2).sum(-1))
    z = 5  # 24 comparisons: exceeded by chance with probability 24 · 5.7e-7
    deviation = (measures.mean(outputs) - terms.sum(-1)).abs()
    assert (deviation < z * (variance / count).sqrt()).all()
    deviation = (measures.std(outputs) ** 2 - variance).abs()
    assert (deviation < z * ((mu4 - variance**2) / count).sqrt()).all()
