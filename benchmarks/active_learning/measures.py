"""What is read off a learning curve. Rules that were fixed before any curve was seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WANTED_ACCURACY = 0.95

_CONSECUTIVE = 3
"""Accuracies whose median counts: one lucky or unlucky training decides nothing."""


def labels_needed(
    labels: Sequence[int], accuracies: Sequence[float], wanted: float = WANTED_ACCURACY
) -> int | None:
    """The fewest labels at which a curve has reached an accuracy; None where it has not.

    That is the first point for which the median of it and its two neighbours is at least what is
    wanted.

    Args:
        labels: of each point of the curve, rising.
        accuracies: on the test set.
        wanted: accuracy.
    """
    for first in range(len(labels) - _CONSECUTIVE + 1):
        if np.median(accuracies[first : first + _CONSECUTIVE]) >= wanted:
            return labels[first + _CONSECUTIVE // 2]
    return None


def mean_accuracy(accuracies: Sequence[float]) -> float:
    """The area under a curve: the mean over its points but the first, where nothing was chosen.

    Of curves of one length alone it says which is ahead.
    """
    return float(np.mean(accuracies[1:]))
