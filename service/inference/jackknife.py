"""The bias that few passes leave in an entropy, estimated and taken out.

The entropy of a mean of T passes is too small on average, since H is concave: by some c / T. So is
the mutual information, whose other term, a mean over passes, has no bias. The jackknife takes the
term in 1 / T out and leaves one in 1 / T² (Quenouille, "Notes on bias in estimation", Biometrika
1956; Miller, "The jackknife: a review", Biometrika 1974):

    H_J = T H[p̄] − (T − 1) 1/T Σ_t H[p̄_−t],    p̄_−t the mean of all passes but t.

As the mean of all p̄_−t is p̄, that is H[p̄] + (T − 1) 1/T Σ_t KL(p̄_−t ‖ p̄): a correction that is
never negative, the same for both, and not a difference of large numbers. What is corrected varies
more than what is not, and may lie above ln C.
"""

from __future__ import annotations

from torch import Tensor

from service.inference import measures
from service.types import Task


def correction(task: Task, probs_TBC: Tensor) -> Tensor:
    """What to add to predictive entropy and mutual information. [T, B, D..., C] → [B, D...], ≥ 0.

    Args:
        task: classification, binary or multilabel.
        probs_TBC: of all passes, at least two.
    """
    passes = len(probs_TBC)
    mean_BC = measures.mean(probs_TBC)
    # Rounding must not take a mean of probabilities below zero, where it has no entropy.
    others_TBC = ((passes * mean_BC - probs_TBC) / (passes - 1)).clamp(0.0, 1.0)
    divergence_TB = measures.divergence_of(task)(others_TBC, mean_BC)
    return (passes - 1) * divergence_TB.mean(dim=0).clamp_min(0.0)
