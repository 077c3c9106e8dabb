"""What is gained by deferring: the error left among the rows that a model is surest of.

Rows are kept from the least uncertain on. The risk at a coverage k / n is the mean loss of the k
surest rows; the area under that curve is AURC (Geifman and El-Yaniv, "Selective classification for
deep neural networks", NeurIPS 2017). What it exceeds an ordering by the loss itself by is the
excess AURC (Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation for deep neural
classifiers", ICLR 2019). Rows of equal uncertainty count with their mean loss: what a random order
among them leaves on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from service.calibration import checks
from service.calibration.checks import FloatArray

DEFERRED = (0.01, 0.05, 0.1, 0.2)
"""Shares of rows that a person might look at instead."""


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """A risk–coverage curve.

    Args:
        coverage: shares kept, 1/n to 1 [B].
        risk: mean loss of the rows kept [B].
        area: AURC, the mean of `risk`.
        excess_area: AURC less that of the best order.
    """

    coverage: FloatArray
    risk: FloatArray
    area: float
    excess_area: float


@dataclass(frozen=True, slots=True)
class Deferral:
    """What deferring the most uncertain rows leaves.

    Args:
        share: of rows to be deferred, as asked for.
        rows: deferred, the share of n rounded down.
        risk: mean loss of the rest.
        risk_of_all: mean loss of all rows.
        avoided: share of the whole loss that the deferred rows held; 0 where there was none.
    """

    share: float
    rows: int
    risk: float
    risk_of_all: float
    avoided: float


def risk_coverage(uncertainty_B: ArrayLike, loss_B: ArrayLike) -> RiskCoverage:
    """The risk–coverage curve of an uncertainty.

    Args:
        uncertainty_B: of each row, higher = deferred earlier [B].
        loss_B: 0 or 1 for right or wrong, or any loss, such as a squared error [B].

    Raises:
        CalibrationFailed: shapes that differ, or numbers that are not finite.
        TooFewRows: no rows.
    """
    ordered_B = _by_uncertainty(uncertainty_B, loss_B)
    risk_B = _running_mean(ordered_B)
    best_B = _running_mean(np.sort(np.asarray(loss_B, dtype=np.float64)))
    rows = len(risk_B)
    return RiskCoverage(
        coverage=np.arange(1, rows + 1) / rows,
        risk=risk_B,
        area=float(risk_B.mean()),
        excess_area=float((risk_B - best_B).mean()),
    )


def deferrals(
    uncertainty_B: ArrayLike, loss_B: ArrayLike, shares: Sequence[float] = DEFERRED
) -> tuple[Deferral, ...]:
    """The loss left after deferring the most uncertain shares of rows.

    Args:
        uncertainty_B: as in `risk_coverage`.
        loss_B: as in `risk_coverage`, not below zero.
        shares: each above 0 and below 1.

    Raises:
        CalibrationFailed: as in `risk_coverage`, or a share that is none.
        TooFewRows: no rows.
    """
    ordered_B = _by_uncertainty(uncertainty_B, loss_B)
    risk_B = _running_mean(ordered_B)
    rows, whole = len(ordered_B), float(ordered_B.sum())
    found = []
    for share in shares:
        wanted = checks.rate("shares", share)
        deferred = math.floor(rows * Fraction(str(wanted)))
        held = float(ordered_B[rows - deferred :].sum())
        found.append(
            Deferral(
                share=wanted,
                rows=deferred,
                risk=float(risk_B[rows - deferred - 1]),
                risk_of_all=float(risk_B[-1]),
                avoided=held / whole if whole > 0 else 0.0,
            )
        )
    return tuple(found)


def _by_uncertainty(uncertainty_B: ArrayLike, loss_B: ArrayLike) -> FloatArray:
    """Losses from the surest row on, each the mean of its equals. → [B]."""
    uncertainty_B = checks.finite("uncertainty", uncertainty_B, "B")
    loss_B = checks.finite("loss", loss_B, "B")
    checks.same_shape("loss", loss_B, uncertainty_B.shape, "uncertainty")
    checks.enough_rows("uncertainty", len(loss_B), 1, "a risk–coverage curve")
    _, group_B, counts_G = np.unique(uncertainty_B, return_inverse=True, return_counts=True)
    mean_G = np.bincount(group_B, weights=loss_B) / counts_G
    ordered_B: FloatArray = np.repeat(mean_G, counts_G)
    return ordered_B


def _running_mean(values_B: FloatArray) -> FloatArray:
    means_B: FloatArray = np.cumsum(values_B) / np.arange(1, len(values_B) + 1)
    return means_B
