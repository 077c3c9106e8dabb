"""Measures of uncertainty from the samples of a classifier.

`MEASURES` maps each name to a function from probs_TBC [T, B, C] (float64) to value_B [B]; to add a
measure is to add one function, one entry and one closed-form test. Entropies are in nats.

For exclusive classes the C probabilities of a row sum to 1. For binary and multilabel tasks they
are C independent Bernoulli probabilities; `BERNOULLI_MEASURES` holds the same measures for them,
with entropies summed over the labels (the entropy of independent variables adds up).

Notation: p_t is the probability vector of pass t, p̄ = 1/T Σ_t p_t, H the Shannon entropy.
Sources: Gal, "Uncertainty in Deep Learning" (2016), section 3.3; Houlsby et al., "Bayesian active
learning for classification and preference learning" (2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from service.types import Task

Measure = Callable[[Tensor], Tensor]


def categorical_entropy(probs_C: Tensor) -> Tensor:
    """H[p] = −Σ_c p_c ln p_c, with 0 ln 0 = 0. [..., C] → [...], nats."""
    entropy: Tensor = torch.special.entr(probs_C).sum(dim=-1)
    return entropy


def bernoulli_entropy(probs_C: Tensor) -> Tensor:
    """Σ_c H[Bernoulli(p_c)] over independent labels. [..., C] → [...], nats."""
    terms_C: Tensor = torch.special.entr(probs_C) + torch.special.entr(1 - probs_C)
    return terms_C.sum(dim=-1)


def categorical_divergence(probs_C: Tensor, mean_C: Tensor) -> Tensor:
    """Σ_c p ln(p / q) − p + q, KL(p ‖ q) where both sum to one. [..., C] → [...], nats.

    Written so that a p close to q loses no digits to the ratio p / q ≈ 1. q may be zero only where
    p is, as a mean of several p is.
    """
    limits = torch.finfo(probs_C.dtype)
    difference_C = probs_C - mean_C
    # Bounded so that a p of zero gives zero, not zero times infinity.
    relative_C = (difference_C / mean_C.clamp_min(limits.tiny)).clamp_min_(limits.eps - 1)
    return torch.log1p(relative_C).mul_(probs_C).sub_(difference_C).sum(dim=-1)


def bernoulli_divergence(probs_C: Tensor, mean_C: Tensor) -> Tensor:
    """Σ_c KL(Bernoulli(p_c) ‖ Bernoulli(q_c)) over independent labels. [..., C] → [...], nats."""
    yes = categorical_divergence(probs_C, mean_C)
    return yes + categorical_divergence(1 - probs_C, 1 - mean_C)


def entropy_of(task: Task) -> Callable[[Tensor], Tensor]:
    """The entropy of one prediction of a classification, binary or multilabel task."""
    return categorical_entropy if task is Task.CLASSIFICATION else bernoulli_entropy


def divergence_of(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """The divergence that goes with `entropy_of`: mean H[p] = H[p̄] − mean divergence from p̄."""
    return categorical_divergence if task is Task.CLASSIFICATION else bernoulli_divergence


def mean(values_TBC: Tensor) -> Tensor:
    """Mean over passes. [T, B, C] → [B, C]."""
    return values_TBC.mean(dim=0)


def std(values_TBC: Tensor) -> Tensor:
    """Sample standard deviation over passes, with T − 1. [T, B, C] → [B, C]."""
    return values_TBC.std(dim=0, correction=1)


def standard_error(values_TBC: Tensor) -> Tensor:
    """Monte Carlo standard error of the mean, std / √T. [T, B, C] → [B, C]."""
    return std(values_TBC) / math.sqrt(len(values_TBC))


def variance(values_TBC: Tensor) -> Tensor:
    """Mean over outputs of the sample variance over passes. [T, B, C] → [B]."""
    return values_TBC.var(dim=0, correction=1).mean(dim=-1)


def predictive_entropy(probs_TBC: Tensor) -> Tensor:
    """H[p̄]: the whole uncertainty. [T, B, C] → [B], between 0 and ln C."""
    return categorical_entropy(probs_TBC.mean(dim=0))


def expected_entropy(probs_TBC: Tensor) -> Tensor:
    """1/T Σ_t H[p_t]: the aleatoric part. [T, B, C] → [B]."""
    return categorical_entropy(probs_TBC).mean(dim=0)


def mutual_information(probs_TBC: Tensor) -> Tensor:
    """H[p̄] − 1/T Σ_t H[p_t]: the epistemic part, BALD (Houlsby et al. 2011, eq. 2). → [B], ≥ 0."""
    # Jensen's inequality keeps it above zero; what rounding takes below is put back.
    return (predictive_entropy(probs_TBC) - expected_entropy(probs_TBC)).clamp_min(0.0)


def variation_ratio(probs_TBC: Tensor) -> Tensor:
    """1 − f / T, f the passes that chose the most frequent label (Freeman 1965). → [B]."""
    labels_TB = probs_TBC.argmax(dim=-1)
    passes, rows, classes = probs_TBC.shape
    votes_BC = probs_TBC.new_zeros(rows, classes)
    votes_BC.scatter_add_(1, labels_TB.mT, probs_TBC.new_ones(rows, passes))
    return 1 - votes_BC.amax(dim=-1) / passes


def bernoulli_predictive_entropy(probs_TBC: Tensor) -> Tensor:
    """Σ_c H[p̄_c]. [T, B, C] → [B], between 0 and C ln 2."""
    return bernoulli_entropy(probs_TBC.mean(dim=0))


def bernoulli_expected_entropy(probs_TBC: Tensor) -> Tensor:
    """1/T Σ_t Σ_c H[p_tc]. [T, B, C] → [B]."""
    return bernoulli_entropy(probs_TBC).mean(dim=0)


def bernoulli_mutual_information(probs_TBC: Tensor) -> Tensor:
    """Σ_c H[p̄_c] − 1/T Σ_t Σ_c H[p_tc]: BALD of each label, summed. [T, B, C] → [B], ≥ 0."""
    whole = bernoulli_predictive_entropy(probs_TBC)
    return (whole - bernoulli_expected_entropy(probs_TBC)).clamp_min(0.0)


def bernoulli_variation_ratio(probs_TBC: Tensor) -> Tensor:
    """The variation ratio of each label's yes or no (p ≥ ½), mean over labels. [T, B, C] → [B]."""
    yes_BC = (probs_TBC >= 0.5).to(probs_TBC.dtype).mean(dim=0)
    return torch.minimum(yes_BC, 1 - yes_BC).mean(dim=-1)


MEASURES: Mapping[str, Measure] = {
    "predictive_entropy": predictive_entropy,
    "expected_entropy": expected_entropy,
    "mutual_information": mutual_information,
    "variation_ratio": variation_ratio,
    "variance": variance,
}

BERNOULLI_MEASURES: Mapping[str, Measure] = {
    "predictive_entropy": bernoulli_predictive_entropy,
    "expected_entropy": bernoulli_expected_entropy,
    "mutual_information": bernoulli_mutual_information,
    "variation_ratio": bernoulli_variation_ratio,
    "variance": variance,
}
