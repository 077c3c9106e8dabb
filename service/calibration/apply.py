"""What a calibrated version adds to the fields of an answer."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.calibration import conformal, scores, temperature
from service.calibration.artifact import Calibration
from service.calibration.checks import FloatArray
from service.calibration.thresholds import flagged
from service.types import Task

Array = NDArray[Any]
Fields = Mapping[str, Array | None]

CALIBRATED_FIELDS = ("calibrated_mean", "ood", "prediction_set", "interval")
"""Fields of an answer that only a calibrated version has."""

OOD_VALUES, OOD_FLAGGED = "ood_values", "ood_flagged"
"""The arrays that the field `ood` is made of."""

DETERMINISTIC = "deterministic_mean"
"""Probabilities of the deterministic pass [B, C], where a score asks for them."""


def needs(calibration: Calibration, wanted: Collection[str]) -> set[str]:
    """Fields of a prediction that those wanted are made from."""
    found: set[str] = set()
    if "ood" in wanted:
        found |= {*scores.parts_of(calibration.score.name)}
    if not {"calibrated_mean", "prediction_set", "interval"}.isdisjoint(wanted):
        found |= {"mean"}
    if calibration.task.is_regression:
        found |= {"epistemic_std", "aleatoric_std"}
    return found - {"deterministic_confidence"}


def needs_deterministic(calibration: Calibration, wanted: Collection[str]) -> bool:
    """Whether the deterministic pass has to run as well."""
    return "ood" in wanted and "deterministic_confidence" in scores.parts_of(calibration.score.name)


def apply(
    calibration: Calibration, fields: Fields, wanted: Collection[str], inputs: Array
) -> dict[str, Array]:
    """What the calibration adds to or changes in some rows' fields.

    Args:
        calibration: of the version, not stale.
        fields: those of `needs`, [B, C] or [B], and where asked for `DETERMINISTIC`.
        wanted: names of fields of the answer.
        inputs: [B, D...], of the rows; randomised sets draw from their bytes.

    Returns:
        `calibrated_mean` [B, C], `ood_values` [B], `ood_flagged` [B], `prediction_set` [B, C] bool,
        `interval` [B, C, 2], and of a regression whose noise was fitted `aleatoric_std` [B, C] and
        the entropies [B]; those that are wanted and that the task has.
    """
    found: dict[str, Array] = {}
    if calibration.noise is not None:
        found |= with_noise(fields, np.asarray(calibration.noise.variance))
    now = {**fields, **found}
    if "ood" in wanted:
        values_B = scores.score_values(calibration.score, scored(now, calibration.task))
        found[OOD_VALUES] = values_B
        found[OOD_FLAGGED] = flagged(values_B, calibration.threshold)
    if "calibrated_mean" in wanted and calibration.temperature is not None:
        found["calibrated_mean"] = temperature.scale_mean(
            probabilities(now["mean"], calibration.task),
            calibration.temperature.value,
            calibration.task,
        )
    if "prediction_set" in wanted and calibration.conformal_classifier is not None:
        fitted = calibration.conformal_classifier
        found["prediction_set"] = conformal.prediction_sets(
            exclusive(now["mean"], calibration.task),
            fitted,
            uniforms(inputs, calibration.seed) if fitted.randomised else None,
        )
    if "interval" in wanted and calibration.conformal_regressor is not None:
        found["interval"] = conformal.intervals(
            _double(now["mean"]), predictive_std(now), calibration.conformal_regressor
        )
    kept = {*wanted, OOD_VALUES, OOD_FLAGGED}
    return {name: array for name, array in found.items() if name in kept}


def scored(fields: Fields, task: Task) -> dict[str, Array]:
    """Fields as scores take them: the deterministic pass by its confidence."""
    found = {name: array for name, array in fields.items() if array is not None}
    deterministic_BC = found.pop(DETERMINISTIC, None)
    if deterministic_BC is not None:
        found["deterministic_confidence"] = scores.confidence(
            probabilities(deterministic_BC, task), task
        )
    return found


def with_noise(fields: Fields, variance_C: FloatArray) -> dict[str, Array]:
    """What a homoscedastic noise variance [C] makes of a regression's fields.

    The predictive distribution is matched by a Gaussian of the epistemic and the noise variance;
    its entropy less that of the noise is the mutual information, ½ Σ_c ln(1 + epistemic / noise).
    """
    epistemic_BC = _double(fields["epistemic_std"]) ** 2
    aleatoric_BC = np.broadcast_to(np.sqrt(variance_C), epistemic_BC.shape)
    expected = 0.5 * float(np.log(2 * np.pi * np.e * variance_C).sum())
    information_B = 0.5 * np.log1p(epistemic_BC / variance_C).sum(axis=1)
    return {
        "aleatoric_std": np.ascontiguousarray(aleatoric_BC),
        "predictive_entropy": expected + information_B,
        "expected_entropy": np.full(len(epistemic_BC), expected),
        "mutual_information": information_B,
    }


def predictive_std(fields: Fields) -> FloatArray:
    """√(epistemic² + aleatoric²) of a regression, [B, C]."""
    total_BC = _double(fields["epistemic_std"]) ** 2
    aleatoric_BC = fields.get("aleatoric_std")
    if aleatoric_BC is not None:
        total_BC = total_BC + _double(aleatoric_BC) ** 2
    return np.sqrt(total_BC)


def exclusive(mean: Array | None, task: Task) -> FloatArray:
    """Probabilities over exclusive labels [B, C], of a binary task over both of its labels."""
    probs_BC = probabilities(mean, task)
    return conformal.both_labels(probs_BC) if task is Task.BINARY else probs_BC


def probabilities(mean: Array | None, task: Task) -> FloatArray:
    """float64 [B, C] that sum to one where the classes are exclusive, which float32's nearly do."""
    probs_BC = _double(mean)
    if task is Task.CLASSIFICATION:
        probs_BC = probs_BC / probs_BC.sum(axis=1, keepdims=True)
    return probs_BC


def uniforms(inputs: Array, seed: int) -> FloatArray:
    """A number between 0 and 1 of each row's own bytes, [B].

    Randomised sets have their coverage over draws that know nothing of a row's label. These are as
    good as drawn, and a request that is repeated gets its answer again.
    """
    key = str(seed).encode()
    rows = np.ascontiguousarray(inputs)
    drawn = [
        int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest(), "little")
        for row in rows
    ]
    return np.array(drawn, dtype=np.float64) / 2.0**64


def _double(array: Array | None) -> FloatArray:
    assert array is not None, "`needs` names what has to be there"
    return array.astype(np.float64)
