"""Whether live values still are distributed as at the calibration.

The population stability index compares the shares p_k of live values and q_k of the reference in
bins at the reference's quantiles,

    PSI = Σ_k (p_k − q_k) ln(p_k / q_k),

the symmetric Kullback–Leibler divergence (Jeffreys 1946). It is not zero where nothing drifts: with
K bins, n live and m reference values it is then about (K − 1)(1/n + 1/m) in the mean, as PSI is
(1/n + 1/m) χ²_{K−1} nearly (Yurdakul and Naranjo, "Statistical properties of the population
stability index", Journal of Risk Model Validation 2020). The thresholds of practice, 0.1 and 0.25,
mean something only well above that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from service.calibration import checks
from service.calibration.checks import FloatArray, IntArray
from service.errors import CalibrationFailed

DEFAULT_BINS = 10
_SMOOTHING = 0.5
"""Added to the count of every bin (Jeffreys' prior), so that an empty one has a logarithm."""


@dataclass(frozen=True, slots=True)
class ReferenceBins:
    """How values were distributed at the calibration.

    Args:
        edges: inner ends of the bins, ascending; a value at an end belongs to the bin below.
        counts: reference values of each bin, one more than there are edges.
    """

    edges: Sequence[float]
    counts: Sequence[int]


def fit_reference(values_B: ArrayLike, bins: int = DEFAULT_BINS) -> ReferenceBins:
    """Bins of about as many values each; fewer where many values are equal.

    Args:
        values_B: of calibration rows [B].
        bins: at most.

    Raises:
        CalibrationFailed: values that are not finite, or fewer than two bins asked for.
        TooFewRows: fewer rows than bins.
    """
    values_B = checks.finite("values", values_B, "B")
    if bins < 2:
        raise CalibrationFailed(
            f"a distribution needs two bins or more, not {bins}", field="bins", received=bins
        )
    checks.enough_rows("values", len(values_B), bins, f"a distribution over {bins} bins")
    levels = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values_B, levels, method="inverted_cdf"))
    # An end at the largest value would leave the bin above it empty for ever.
    edges = edges[edges < values_B.max()]
    counts = np.bincount(_bin_of(values_B, edges), minlength=len(edges) + 1)
    return ReferenceBins(tuple(edges.tolist()), tuple(counts.tolist()))


def population_stability_index(reference: ReferenceBins, counts: ArrayLike) -> float:
    """PSI of live counts of each bin; 0 where there are none yet."""
    live_K = np.asarray(counts, dtype=np.float64)
    if not live_K.sum():
        return 0.0
    p_K, q_K = _shares(live_K), _shares(np.asarray(reference.counts, dtype=np.float64))
    return float(((p_K - q_K) * np.log(p_K / q_K)).sum())


def expected_index(reference: ReferenceBins, rows: int) -> float:
    """About the mean PSI of so many values when nothing drifts, (K − 1)(1/n + 1/m)."""
    return (len(reference.counts) - 1) * (1 / rows + 1 / sum(reference.counts))


def largest_index(reference: ReferenceBins, rows: int, confidence: float = 0.99) -> float:
    """About the PSI that so many values exceed once in 1 / (1 − confidence) when nothing drifts.

    (1/n + 1/m) times the quantile of χ²_{K−1}; 0 for a reference of one bin, which nothing leaves.
    """
    freedom = len(reference.counts) - 1
    if not freedom:
        return 0.0
    quantile = float(special.chdtri(freedom, 1 - confidence))
    return quantile * (1 / rows + 1 / sum(reference.counts))


class SlidingWindow:
    """The last values of one measure: their PSI, and the share that was flagged.

    Memory is fixed; adding B values costs O(B), asking costs O(bins). Not safe to share between
    threads.

    Args:
        reference: the distribution at the calibration.
        size_rows: how many values are remembered.
        threshold: values strictly above count as flagged; None: none do.
    """

    def __init__(
        self, reference: ReferenceBins, size_rows: int, threshold: float | None = None
    ) -> None:
        if size_rows < 1:
            raise CalibrationFailed("a window holds one row or more", field="size_rows")
        self.reference = reference
        self._edges = np.asarray(reference.edges, dtype=np.float64)
        self._threshold = np.inf if threshold is None else threshold
        self._bins = np.zeros(size_rows, dtype=np.uint16)
        self._flags = np.zeros(size_rows, dtype=np.bool_)
        self._counts = np.zeros(len(reference.counts), dtype=np.int64)
        self._flagged = 0
        self._rows = 0
        self._next = 0

    @property
    def rows(self) -> int:
        """How many values are in the window, at most its size."""
        return self._rows

    def rows_in(self, place: int) -> int:
        """How many of them are in a bin, counted from 0."""
        return int(self._counts[place])

    def add(self, values_B: ArrayLike) -> None:
        """Add values in the order they came; the oldest leave. Infinities count in the end bins.

        Raises:
            CalibrationFailed: another shape than [B], or not a number. Nothing was added then.
        """
        values_B = np.asarray(values_B, dtype=np.float64)
        if values_B.ndim != 1 or np.isnan(values_B).any():
            raise CalibrationFailed("a window takes numbers [B], none of them nan", field="values")
        size = len(self._bins)
        values_B = values_B[-size:]
        places_B = (self._next + np.arange(len(values_B))) % size
        # Places beyond the rows so far hold nothing that could leave.
        leaving_B = places_B[places_B < self._rows]
        self._count(self._bins[leaving_B], self._flags[leaving_B], -1)
        self._bins[places_B] = _bin_of(values_B, self._edges)
        self._flags[places_B] = values_B > self._threshold
        self._count(self._bins[places_B], self._flags[places_B], 1)
        self._rows = min(self._rows + len(values_B), size)
        self._next = (self._next + len(values_B)) % size

    def population_stability_index(self) -> float:
        """PSI against the reference; 0 while the window is empty."""
        return population_stability_index(self.reference, self._counts)

    def expected_index(self) -> float:
        """About its mean with as many values if nothing drifts; not a number while empty."""
        return expected_index(self.reference, self._rows) if self._rows else float("nan")

    def flagged_rate(self) -> float:
        """Share of the values above the threshold; 0 while the window is empty."""
        return self._flagged / self._rows if self._rows else 0.0

    def _count(self, bins_B: np.ndarray, flags_B: np.ndarray, sign: int) -> None:
        self._counts += sign * np.bincount(bins_B, minlength=len(self._counts))
        self._flagged += sign * int(flags_B.sum())


def _bin_of(values_B: FloatArray, edges: FloatArray) -> IntArray:
    places_B: IntArray = np.searchsorted(edges, values_B, side="left").astype(np.int64)
    return places_B


def _shares(counts_K: FloatArray) -> FloatArray:
    smoothed_K = counts_K + _SMOOTHING
    shares_K: FloatArray = smoothed_K / smoothed_K.sum()
    return shares_K
