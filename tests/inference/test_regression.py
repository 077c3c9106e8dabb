"""The parts of a regression's doubt against closed forms."""

from __future__ import annotations

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference import regression

MEANS = torch.tensor([[[1.0, 0.0]], [[3.0, 4.0]]], dtype=torch.float64)
LOG_VARIANCES = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]], dtype=torch.float64).log()
LOG_VARIANCES[:, :, 1] = math.log(2.0)


def gaussian(variance: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * variance)


def test_the_entropy_of_a_gaussian() -> None:
    variances = torch.tensor([[1.0, 4.0]], dtype=torch.float64)
    expected = gaussian(1.0) + gaussian(4.0)
    assert regression.gaussian_entropy(variances).item() == pytest.approx(expected)
    assert gaussian(1.0) == pytest.approx(1.4189385332046727)


def test_no_variance_at_all_is_minus_infinity() -> None:
    assert regression.predictive_entropy(torch.ones(3, 1, 1)).item() == -math.inf


def test_parts_of_the_variance_by_hand() -> None:
    assert regression.epistemic_variance(MEANS)[0].tolist() == pytest.approx([2.0, 8.0])
    assert regression.aleatoric_variance(LOG_VARIANCES)[0].tolist() == pytest.approx([2.0, 2.0])


def test_entropies_by_hand() -> None:
    assert regression.predictive_entropy(MEANS).item() == pytest.approx(gaussian(2) + gaussian(8))
    whole = gaussian(2 + 2) + gaussian(8 + 2)
    assert regression.predictive_entropy(MEANS, LOG_VARIANCES).item() == pytest.approx(whole)
    aleatoric = (gaussian(1) + gaussian(3)) / 2 + gaussian(2)
    assert regression.expected_entropy(LOG_VARIANCES).item() == pytest.approx(aleatoric)
    information = regression.mutual_information(MEANS, LOG_VARIANCES).item()
    assert information == pytest.approx(whole - aleatoric)


def test_the_variance_of_a_mixture_by_hand() -> None:
    means_MBC = torch.tensor([[[0.0]], [[2.0]], [[4.0]]], dtype=torch.float64)
    noise_MBC = torch.tensor([[[1.0]], [[2.0]], [[6.0]]], dtype=torch.float64)
    expected = 0.5 * math.log(2 * math.pi * math.e * (9 / 3 + 8 / 3))
    assert regression.mixture_entropy(means_MBC, noise_MBC.log()).item() == pytest.approx(expected)


def test_a_mixture_of_one_has_its_own_entropy_even_where_its_variance_has_no_number() -> None:
    noise_MBC = torch.tensor([[[-2000.0, 0.3], [3.0, 5.0]]], dtype=torch.float64)
    got = regression.mixture_entropy(torch.randn(1, 2, 2, dtype=torch.float64), noise_MBC)
    assert torch.equal(got, regression.expected_entropy(noise_MBC))


def test_passes_that_agree_tell_nothing_about_the_model() -> None:
    agreed = MEANS[:1].expand(5, 1, 2)
    noise = LOG_VARIANCES[:1].expand(5, 1, 2)
    assert regression.mutual_information(agreed, noise).item() == pytest.approx(0.0, abs=1e-15)


def test_rounding_never_takes_mutual_information_below_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 500, 3, generator=generator, dtype=torch.float64).expand(7, -1, -1)
    means = torch.zeros_like(noise)
    raw = regression.predictive_entropy(means, noise) - regression.expected_entropy(noise)
    assert (raw < 0).any()
    assert (regression.mutual_information(means, noise) >= 0).all()


@given(
    arrays.arrays(np.float64, (2, 4, 1, 2), elements=st.floats(-20, 20)),
)
@settings(max_examples=100, deadline=None)
def test_mutual_information_is_never_negative(values: np.ndarray) -> None:
    means, noise = torch.from_numpy(values)
    assert regression.mutual_information(means, noise).item() >= 0
    whole = regression.predictive_entropy(means, noise)
    assert (whole + 1e-9 >= regression.expected_entropy(noise)).all()
