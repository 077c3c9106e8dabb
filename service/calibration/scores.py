"""Out-of-distribution scores: from measured fields to one number a row, higher = less like the
training data.

`SCORES` maps each name to a function from fields, float64 [B] by name, to values [B]; to add a
score is to add one function and one entry. A combination is written by its parts, as in
`predictive_entropy+mutual_information`: the mean of where each part's value stands in the
distribution of that part on calibration data. Scores of different units become comparable so, as in
rank fusion (Fernández, Vallet and Castells, "Probabilistic score normalization for rank
aggregation", ECIR 2006; Aslam and Montague, "Models for metasearch", SIGIR 2001).

A combination's reference should come from other rows than its threshold: to a row of the reference
itself its position is not what it would be to a new row. (On the same n rows the positions differ
by 1 / n or so, and with them the flagged rate.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from service.calibration import checks
from service.calibration.checks import FloatArray
from service.errors import CalibrationFailed
from service.types import Task

Fields = Mapping[str, ArrayLike]
Score = Callable[[Fields], FloatArray]

MAX_QUANTILES = 1001
"""Steps of a tenth of a percent: what a stored reference resolves."""


def variance(fields: Fields) -> FloatArray:
    """Mean over outputs of the variance across passes. → [B]."""
    return _field(fields, "variance")


def predictive_entropy(fields: Fields) -> FloatArray:
    """Entropy of the mean prediction, nats. → [B]."""
    return _field(fields, "predictive_entropy")


def mutual_information(fields: Fields) -> FloatArray:
    """BALD: predictive less expected entropy, nats. → [B]."""
    return _field(fields, "mutual_information")


def variation_ratio(fields: Fields) -> FloatArray:
    """Share of passes that disagree with the most frequent label. → [B]."""
    return _field(fields, "variation_ratio")


def deterministic_confidence(fields: Fields) -> FloatArray:
    """1 − the largest probability of the deterministic pass, the field of that name. → [B].

    Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution examples
    in neural networks" (2017): the score to beat. `confidence` makes the field.
    """
    return 1 - _field(fields, "deterministic_confidence")


SCORES: Mapping[str, Score] = {
    "variance": variance,
    "predictive_entropy": predictive_entropy,
    "mutual_information": mutual_information,
    "variation_ratio": variation_ratio,
    "deterministic_confidence": deterministic_confidence,
}


@dataclass(frozen=True, slots=True)
class FittedScore:
    """A score by name, and for a combination what it needs of the calibration data.

    Args:
        name: as asked for.
        references: for each part of a combination its quantiles at equally spaced levels from 0 to
            1, at most `MAX_QUANTILES`; empty for a single score.
    """

    name: str
    references: Mapping[str, Sequence[float]]


def confidence(probs_BC: ArrayLike, task: Task) -> FloatArray:
    """The largest probability of each row; of independent labels max(p, 1 − p), their mean. → [B].

    Raises:
        CalibrationFailed: numbers that are no probabilities.
    """
    if task is Task.CLASSIFICATION:
        largest_B: FloatArray = checks.probabilities("probs", probs_BC).max(axis=1)
        return largest_B
    yes_BC = checks.shares("probs", probs_BC, "BC")
    mean_B: FloatArray = np.maximum(yes_BC, 1 - yes_BC).mean(axis=1)
    return mean_B


def parts_of(name: str) -> tuple[str, ...]:
    """The names of the scores that `name` is made of.

    Raises:
        CalibrationFailed: one of them is no score, or is there twice.
    """
    parts = tuple(part.strip() for part in name.split("+"))
    unknown = [part for part in parts if part not in SCORES]
    if unknown:
        raise CalibrationFailed(
            f"no score {unknown[0]!r}; there are {', '.join(SCORES)}, and combinations of them "
            "written with +",
            field="score",
            expected=list(SCORES),
            received=name,
        )
    if len(set(parts)) < len(parts):
        raise CalibrationFailed(
            f"the combination {name!r} has a score twice", field="score", received=name
        )
    return parts


def available(fields: Fields) -> tuple[str, ...]:
    """The single scores that can be made from these fields."""
    return tuple(name for name in SCORES if name in fields)


def fit_score(name: str, fields: Fields) -> FittedScore:
    """Prepare a score; for a combination, from in-distribution rows other than its threshold's.

    Raises:
        CalibrationFailed: an unknown score, or a field that is missing or not finite.
        TooFewRows: no rows.
    """
    parts = parts_of(name)
    references = {}
    if len(parts) > 1:
        for part in parts:
            values_B = SCORES[part](fields)
            checks.enough_rows(part, len(values_B), 1, "a combination of scores")
            levels = np.linspace(0, 1, min(len(values_B), MAX_QUANTILES))
            quantiles = np.quantile(values_B, levels)
            references[part] = tuple(float(value) for value in quantiles)
    return FittedScore(name, references)


def score_values(fitted: FittedScore, fields: Fields) -> FloatArray:
    """The score of each row, [B]; of a combination between 0 and 1.

    Raises:
        CalibrationFailed: a field that is missing or not finite.
    """
    parts = parts_of(fitted.name)
    if len(parts) == 1:
        return SCORES[parts[0]](fields)
    positions_PB = [position(SCORES[part](fields), fitted.references[part]) for part in parts]
    mean_B: FloatArray = np.mean(positions_PB, axis=0)
    return mean_B


def position(values_B: FloatArray, quantiles: Sequence[float]) -> FloatArray:
    """Where values stand among quantiles of equally spaced levels, between 0 and 1. [B] → [B].

    Linear between quantiles; a value that several quantiles share stands in their middle.
    """
    reference = np.asarray(quantiles, dtype=np.float64)
    levels = np.linspace(0, 1, len(reference)) if len(reference) > 1 else np.array([0.5])
    distinct, inverse, counts = np.unique(reference, return_inverse=True, return_counts=True)
    middle = np.bincount(inverse, weights=levels) / counts
    inside_B: FloatArray = np.interp(values_B, distinct, middle, left=0.0, right=1.0)
    return inside_B


def _field(fields: Fields, name: str) -> FloatArray:
    if name not in fields:
        raise CalibrationFailed(
            f"the score {name!r} needs the field `{name}`; there are {', '.join(fields)}",
            field="score",
            expected=name,
            received=list(fields),
        )
    return checks.finite(name, fields[name], "B")
