"""How much the label of an unlabelled point would say: scores of points one by one.

`SCORES` maps each strategy to a function from the fields of a prediction to score_B [B], larger
where a label says more; to add a strategy is to add one function, one entry and one test. Batches
that are chosen together are in `joint`.

Sources of the comparison: Gal, Islam and Ghahramani, "Deep Bayesian active learning with image
data" (2017), section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.inference.fields import Fields
from service.types import Task

Scores = NDArray[np.float64]
Score = Callable[[Fields, Task], Scores]


def bald(fields: Fields, task: Task) -> Scores:
    """Mutual information of label and weights, nats (Houlsby et al., "Bayesian active learning for
    classification and preference learning", 2011); of a regression its epistemic variance. → [B].

    For a Gaussian label of constant noise both rank points alike.
    """
    return _of(fields, "variance" if task.is_regression else "mutual_information")


def predictive_entropy(fields: Fields, task: Task) -> Scores:
    """Entropy of the mean prediction, nats (Shannon 1948; uncertainty sampling by entropy: Settles,
    "Active learning literature survey", 2009, section 3.1). → [B].
    """
    return _of(fields, "predictive_entropy")


def variation_ratio(fields: Fields, task: Task) -> Scores:
    """Share of passes that disagree with the most frequent label (Freeman 1965). → [B]."""
    return _of(fields, "variation_ratio")


def mean_std(fields: Fields, task: Task) -> Scores:
    """Mean over outputs of the standard deviation over passes (Kampffmeyer et al. 2016; Kendall,
    Badrinarayanan and Cipolla, "Bayesian SegNet", 2015). → [B].
    """
    std_B: Scores = _rows(_of(fields, "std")).mean(axis=1)
    return std_B


def margin(fields: Fields, task: Task) -> Scores:
    """1 − (p₁ − p₂), the two likeliest classes of the mean prediction (Scheffer, Decomain and
    Wrobel, "Active hidden Markov models for information extraction", 2001). → [B].

    Of independent labels the mean over them, each with its yes and no.
    """
    if task is Task.CLASSIFICATION:
        top_B2 = np.partition(_rows(_of(fields, "mean")), -2, axis=1)[:, -2:]
        gap_B: Scores = 1 - (top_B2[:, 1] - top_B2[:, 0])
        return gap_B
    return 2 * least_confidence(fields, task)


def least_confidence(fields: Fields, task: Task) -> Scores:
    """1 − the largest probability of the mean prediction (Lewis and Gale, "A sequential algorithm
    for training text classifiers", 1994; Culotta and McCallum 2005). → [B].

    Of independent labels the mean over them, each with its yes and no.
    """
    probs_BC = _rows(_of(fields, "mean"))
    if task is Task.CLASSIFICATION:
        doubt_B: Scores = 1 - probs_BC.max(axis=1)
    else:
        doubt_B = np.minimum(probs_BC, 1 - probs_BC).mean(axis=1)
    return doubt_B


def power_bald(fields: Fields, task: Task) -> Scores:
    """ln of BALD; with Gumbel noise added, the k largest are a draw without replacement with
    probabilities in proportion to BALD (Kirsch et al., "Stochastic batch acquisition: a simple
    baseline for deep active learning", 2023, with β = 1). → [B], −∞ where nothing is known.
    """
    with np.errstate(divide="ignore"):
        logs_B: Scores = np.log(np.maximum(bald(fields, task), 0.0))
    return logs_B


def random(fields: Fields, task: Task) -> Scores:
    """Zero; with noise added, an order by chance: what every other strategy has to beat. → [B]."""
    return np.zeros(len(_of(fields, "mean")))


SCORES: Mapping[str, Score] = {
    "bald": bald,
    "predictive_entropy": predictive_entropy,
    "variation_ratio": variation_ratio,
    "mean_std": mean_std,
    "margin": margin,
    "least_confidence": least_confidence,
    "power_bald": power_bald,
    "random": random,
}

NEEDS: Mapping[str, tuple[str, ...]] = {
    "bald": ("mutual_information", "variance"),
    "predictive_entropy": ("predictive_entropy",),
    "variation_ratio": ("variation_ratio",),
    "mean_std": ("std",),
    "margin": ("mean",),
    "least_confidence": ("mean",),
    "power_bald": ("mutual_information", "variance"),
    "random": ("mean",),
}
"""Fields of a prediction that each strategy reads, of whatever task."""

DRAWS = frozenset({"power_bald", "random"})
"""Strategies whose scores get Gumbel noise: the same k of a pool for the same seed."""

_OF_CLASSES = frozenset({"variation_ratio", "margin", "least_confidence"})
_NOISE_ROWS = 4096


def strategies_of(task: Task) -> tuple[str, ...]:
    """Strategies that score points of a task one by one."""
    return tuple(name for name in SCORES if not (task.is_regression and name in _OF_CLASSES))


def noise(seed: int, first: int, rows: int) -> Scores:
    """Gumbel(0, 1) noise of the rows of a pool from `first` on, whatever parts it comes in. → [B].

    Made in blocks of a fixed number of rows, each from the seed and its own number.
    """
    start, stop = first // _NOISE_ROWS, (first + rows - 1) // _NOISE_ROWS + 1
    # A seed may be negative; a generator's may not.
    blocks = [
        np.random.default_rng([seed % 2**64, block]).gumbel(size=_NOISE_ROWS)
        for block in range(start, stop)
    ]
    drawn_B: Scores = np.concatenate(blocks)[first - start * _NOISE_ROWS :][:rows]
    return drawn_B


def _of(fields: Fields, name: str) -> Scores:
    array: NDArray[Any] | None = fields.get(name)
    assert array is not None, name
    return array.astype(np.float64)


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """[B] or [B, C] → [B, C]."""
    return array.reshape(len(array), -1)
