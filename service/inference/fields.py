"""Names of what an answer can hold. No torch: whoever only passes answers on needs none."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Fields = dict[str, Array | None]

SUMMARY_FIELDS = (
    "mean",
    "std",
    "standard_error",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "variation_ratio",
    "aleatoric_std",
    "epistemic_std",
    "label",
    "variance",
)
"""All that needs no kept samples; a task has some of them."""

JACKKNIFE_FIELDS = {
    "predictive_entropy_jackknife": "predictive_entropy",
    "mutual_information_jackknife": "mutual_information",
}
"""Fields whose bias in 1 / T is taken out, and what they correct; of a classification, binary or
multilabel task."""

KEPT_FIELDS = (*JACKKNIFE_FIELDS, "quantiles", "samples")
"""Fields that need every pass kept, T × B × C numbers; given only where they are asked for."""

FIELDS = (*SUMMARY_FIELDS, *KEPT_FIELDS)
"""What a prediction can hold; a field that a task does not have is None."""

ROWS_SECOND = ("quantiles", "samples")
"""Fields whose rows are the second dimension."""

EVALUATION_FIELDS = ("mean", "predictive_entropy", "label")

QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
"""Levels of the field `quantiles`, [Q, B, C]."""
