"""Whether probabilities are as often right as they say: calibration errors and proper scores.

Calibration compares a confidence with how often it was right, in bins. The plain estimate of the
expected calibration error,

    ECE = Σ_k n_k / n |accuracy_k − confidence_k|

(Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
AAAI 2015), is biased upwards, more so the fewer rows a bin has: a difference of zero is seen as its
noise. Two estimates with less of that are given, both after Kumar, Liang and Ma, "Verified
uncertainty calibration" (NeurIPS 2019):

- squared: Σ_k n_k / n [(accuracy_k − confidence_k)² − accuracy_k (1 − accuracy_k) / (n_k − 1)]
  (definition 5.1), which has no bias at all for the binned squared error, and may be below zero;
- debiased: the ECE less its bias if each bin's difference d were normal and the one seen its true
  mean, as in their library's `normal_debiased_ce`, here in closed form instead of by simulation:
  the mean of |N(d, s²)| is s √(2/π) exp(−d² / 2 s²) + d (1 − 2 Φ(−d / s)). Where calibration is
  perfect this takes √2 − 1 = 41 % of the bias away, as E|Z + Z'| = √2 E|Z|.

Log-likelihoods are in nats, means over rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from service.calibration import checks
from service.calibration.checks import BoolArray, FloatArray, IntArray
from service.calibration.order_statistics import CONFIDENCE
from service.types import Task

DEFAULT_BINS = 15


class Bins(StrEnum):
    """`equal_width`: of one width between 0 and 1. `equal_mass`: of as many rows each."""

    EQUAL_WIDTH = "equal_width"
    EQUAL_MASS = "equal_mass"


@dataclass(frozen=True, slots=True)
class Reliability:
    """A reliability diagram: K bins that hold rows, by rising confidence.

    Args:
        counts: rows of each bin.
        confidence: their mean confidence.
        accuracy: share of them that was right.
        interval: 95 % interval of the accuracy (Wilson 1927), low and high of each bin.
    """

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    interval: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Of one binning.

    Args:
        expected: the plain expected calibration error, biased upwards.
        debiased: less an estimate of its bias, at least 0.
        squared: the squared error without bias; below 0 by chance where calibration is good.
        bins: that hold rows.
        rows: n.
    """

    expected: float
    debiased: float
    squared: float
    bins: int
    rows: int


def top_label(probs_BC: ArrayLike, labels_B: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Confidence in the likeliest class, and whether it is the true one. [B, C], [B] → [B], [B].

    Raises:
        CalibrationFailed: numbers or labels that cannot be used.
    """
    probs_BC, labels_B = _classes(probs_BC, labels_B)
    return probs_BC.max(axis=1), probs_BC.argmax(axis=1) == labels_B


def every_label(probs_BC: ArrayLike, labels_BC: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """The probability of each independent label, and whether it is so. [B, C] → [B·C], [B·C].

    Raises:
        CalibrationFailed: numbers or labels that cannot be used.
    """
    probs_BC, labels_BC = _independent(probs_BC, labels_BC)
    return probs_BC.ravel(), labels_BC.ravel() > 0


def reliability(
    confidence_B: ArrayLike,
    correct_B: ArrayLike,
    scheme: Bins = Bins.EQUAL_WIDTH,
    bins: int = DEFAULT_BINS,
) -> Reliability:
    """The reliability diagram of confidences.

    Args:
        confidence_B: of each row, between 0 and 1 [B].
        correct_B: whether it was right [B].
        scheme: where bins end. Those of equal width are open below, as in Guo et al. 2017; rows of
            one confidence are never torn apart by those of equal mass.
        bins: at most; empty ones are left out.

    Raises:
        CalibrationFailed: numbers that cannot be used.
        TooFewRows: no rows.
    """
    confidence_B, correct_B = _confidences(confidence_B, correct_B)
    place_B = _bin_of(confidence_B, scheme, bins)
    counts_K = np.bincount(place_B)
    held_K = counts_K > 0
    right_K = np.bincount(place_B, weights=correct_B)[held_K].astype(np.float64)
    sure_K = np.bincount(place_B, weights=confidence_B)[held_K]
    counts_K = counts_K[held_K]
    return Reliability(
        counts=tuple(counts_K.tolist()),
        confidence=tuple((sure_K / counts_K).tolist()),
        accuracy=tuple((right_K / counts_K).tolist()),
        interval=_wilson(right_K, counts_K.astype(np.float64)),
    )


def calibration_error(diagram: Reliability) -> CalibrationError:
    """The three errors of a diagram's bins. A bin of one row takes no part in the debiased ones."""
    counts_K = np.asarray(diagram.counts, dtype=np.float64)
    accuracy_K = np.asarray(diagram.accuracy)
    share_K = counts_K / counts_K.sum()
    gap_K = np.abs(accuracy_K - np.asarray(diagram.confidence))
    # One row has no variance to subtract: its difference would be nothing but noise.
    several_K = counts_K > 1
    noise_K = accuracy_K * (1 - accuracy_K) / np.maximum(counts_K - 1, 1)
    bias_K = _folded_normal_mean(gap_K, np.sqrt(noise_K)) - gap_K
    return CalibrationError(
        expected=float(share_K @ gap_K),
        debiased=max(float((share_K * (gap_K - bias_K))[several_K].sum()), 0.0),
        squared=float((share_K * (gap_K**2 - noise_K))[several_K].sum()),
        bins=len(counts_K),
        rows=int(counts_K.sum()),
    )


def brier_score(probs_BC: ArrayLike, labels: ArrayLike, task: Task) -> float:
    """Mean over rows of Σ_c (p_c − y_c)² (Brier 1950); of independent labels the mean over them.

    Labels are true classes [B], or zeros and ones [B, C].

    Raises:
        CalibrationFailed: numbers or labels that cannot be used.
        TooFewRows: no rows.
    """
    if task is Task.CLASSIFICATION:
        probs_BC, labels_B = _classes(probs_BC, labels)
        truth_BC = np.eye(probs_BC.shape[1])[labels_B]
        return float(((probs_BC - truth_BC) ** 2).sum(axis=1).mean())
    probs_BC, truth_BC = _independent(probs_BC, labels)
    return float(((probs_BC - truth_BC) ** 2).mean())


def log_likelihood(probs_BC: ArrayLike, labels: ArrayLike, task: Task) -> float:
    """Mean over rows of ln p of the truth, nats; of independent labels the sum over them.

    A truth of probability zero counts as the smallest that float64 has, or, for independent labels,
    a certain one that is wrong as one that is certain to float64's precision.

    Raises:
        CalibrationFailed: numbers or labels that cannot be used.
        TooFewRows: no rows.
    """
    limits = np.finfo(np.float64)
    if task is Task.CLASSIFICATION:
        probs_BC, labels_B = _classes(probs_BC, labels)
        own_B = probs_BC[np.arange(len(labels_B)), labels_B]
        return float(np.log(np.maximum(own_B, limits.tiny)).mean())
    probs_BC, truth_BC = _independent(probs_BC, labels)
    probs_BC = np.clip(probs_BC, limits.tiny, 1 - limits.eps)
    logs_BC = special.xlogy(truth_BC, probs_BC) + special.xlog1py(1 - truth_BC, -probs_BC)
    return float(logs_BC.sum(axis=1).mean())


def accuracy(probs_BC: ArrayLike, labels: ArrayLike, task: Task) -> float:
    """Share of rows whose likeliest class is the true one; of independent labels, of labels.

    A label counts as said from a probability of ½.

    Raises:
        CalibrationFailed: numbers or labels that cannot be used.
        TooFewRows: no rows.
    """
    if task is Task.CLASSIFICATION:
        return float(top_label(probs_BC, labels)[1].mean())
    probs_BC, truth_BC = _independent(probs_BC, labels)
    return float(((probs_BC >= 0.5) == (truth_BC > 0)).mean())


def _bin_of(confidence_B: FloatArray, scheme: Bins, bins: int) -> IntArray:
    """The bin of each row, 0 to at most bins − 1."""
    if scheme is Bins.EQUAL_WIDTH:
        inner = np.linspace(0, 1, bins + 1)[1:-1]
    else:
        # The last row of each bin: equal confidences then fall on one side, and no bin is empty.
        ordered_B = np.sort(confidence_B)
        last_K = np.ceil(np.arange(1, bins) * len(ordered_B) / bins).astype(int) - 1
        inner = np.unique(ordered_B[last_K])
    place_B: IntArray = np.searchsorted(inner, confidence_B, side="left").astype(np.int64)
    return place_B


def _wilson(right_K: FloatArray, counts_K: FloatArray) -> tuple[tuple[float, float], ...]:
    """Wilson's score interval of a binomial share."""
    z = float(special.ndtri((1 + CONFIDENCE) / 2))
    share_K = right_K / counts_K
    middle_K = (share_K + z**2 / (2 * counts_K)) / (1 + z**2 / counts_K)
    half_K = (
        z
        * np.sqrt(share_K * (1 - share_K) / counts_K + z**2 / (4 * counts_K**2))
        / (1 + z**2 / counts_K)
    )
    low_K, high_K = np.clip(middle_K - half_K, 0, 1), np.clip(middle_K + half_K, 0, 1)
    return tuple(zip(low_K.tolist(), high_K.tolist(), strict=True))


def _folded_normal_mean(mean_K: FloatArray, std_K: FloatArray) -> FloatArray:
    """E|N(mean, std²)| for mean ≥ 0 (Leone, Nelson and Nottingham, Technometrics 1961)."""
    ratio_K = np.divide(mean_K, std_K, out=np.full_like(mean_K, np.inf), where=std_K > 0)
    folded_K: FloatArray = std_K * np.sqrt(2 / np.pi) * np.exp(-(ratio_K**2) / 2)
    folded_K += mean_K * (1 - 2 * special.ndtr(-ratio_K))
    return folded_K


def _confidences(confidence_B: ArrayLike, correct_B: ArrayLike) -> tuple[FloatArray, FloatArray]:
    confidence_B = checks.shares("confidence", confidence_B, "B")
    checks.enough_rows("confidence", len(confidence_B), 1, "a reliability diagram")
    return confidence_B, checks.binary_labels("correct", correct_B, confidence_B.shape)


def _classes(probs_BC: ArrayLike, labels_B: ArrayLike) -> tuple[FloatArray, IntArray]:
    probs_BC = checks.probabilities("probs", probs_BC)
    rows, classes = probs_BC.shape
    checks.enough_rows("probs", rows, 1, "a mean over rows")
    return probs_BC, checks.class_labels("labels", labels_B, rows, classes)


def _independent(probs_BC: ArrayLike, labels_BC: ArrayLike) -> tuple[FloatArray, FloatArray]:
    probs_BC = checks.shares("probs", probs_BC, "BC")
    checks.enough_rows("probs", len(probs_BC), 1, "a mean over rows")
    return probs_BC, checks.binary_labels("labels", labels_BC, probs_BC.shape)
