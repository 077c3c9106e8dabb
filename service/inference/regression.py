"""Aleatoric and epistemic parts of a regression's predictive distribution.

The predictive distribution of an output is a mixture over passes of N(mean_t, σ_t²); it is reported
by the Gaussian of the same mean and variance (Lakshminarayanan et al. 2017, section 2.4). Its
variance splits into 1/T Σ_t σ_t² (aleatoric) and the variance of mean_t (epistemic): Kendall and
Gal, "What uncertainties do we need" (2017), eq. 9.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LOG_2_PI_E = math.log(2 * math.pi * math.e)


def gaussian_entropy(variance_C: Tensor) -> Tensor:
    """Σ_c ½ ln(2πe σ_c²): differential entropy of independent Gaussians. [..., C] → [...], nats.

    Minus infinity where a variance is zero.
    """
    return 0.5 * (_LOG_2_PI_E + torch.log(variance_C)).sum(dim=-1)


def epistemic_variance(means_TBC: Tensor) -> Tensor:
    """Sample variance over passes of the predicted means, with T − 1. [T, B, C] → [B, C]."""
    return means_TBC.var(dim=0, correction=1)


def aleatoric_variance(log_variances_TBC: Tensor) -> Tensor:
    """1/T Σ_t exp(s_t), s the predicted log variances. [T, B, C] → [B, C]."""
    return log_variances_TBC.exp().mean(dim=0)


def predictive_entropy(means_TBC: Tensor, log_variances_TBC: Tensor | None = None) -> Tensor:
    """Entropy of the moment-matched Gaussian. [T, B, C] → [B], nats.

    Without a predicted noise the epistemic variance is the whole.
    """
    total_BC = epistemic_variance(means_TBC)
    if log_variances_TBC is not None:
        total_BC = total_BC + aleatoric_variance(log_variances_TBC)
    return gaussian_entropy(total_BC)


def mixture_entropy(means_MBC: Tensor, log_variances_MBC: Tensor) -> Tensor:
    """Entropy of the Gaussian with the mean and variance of a mixture of just these M Gaussians.

    Its variance is 1/M Σ_m (σ_m² + μ_m²) − μ²: the spread of the means with M, not M − 1, the
    components being all there are. Of one component its own entropy. [M, B, C] → [B], nats.
    """
    spread_BC = means_MBC.var(dim=0, correction=0)
    noise_BC = log_variances_MBC.logsumexp(dim=0) - math.log(len(log_variances_MBC))
    return expected_entropy(torch.logaddexp(spread_BC.log(), noise_BC)[None])


def expected_entropy(log_variances_TBC: Tensor) -> Tensor:
    """1/T Σ_t H[N(mean_t, σ_t²)]: the aleatoric part. [T, B, C] → [B], nats."""
    per_pass_TB = 0.5 * (_LOG_2_PI_E + log_variances_TBC).sum(dim=-1)
    return per_pass_TB.mean(dim=0)


def mutual_information(means_TBC: Tensor, log_variances_TBC: Tensor) -> Tensor:
    """Entropy of the moment-matched Gaussian − expected entropy: the epistemic part. → [B], ≥ 0.

    The Gaussian has the largest entropy of its variance, so this bounds the mixture's mutual
    information from above (Depeweg et al. 2018, section 3, for the decomposition).
    """
    whole = predictive_entropy(means_TBC, log_variances_TBC)
    return (whole - expected_entropy(log_variances_TBC)).clamp_min(0.0)
