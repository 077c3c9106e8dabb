"""An answer's arrays under the names of the contract, in the form that the client asked for."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray

from service.api.bodies import wants_npz, write_json, write_npz
from service.calibration.apply import CALIBRATED_FIELDS, OOD_FLAGGED, OOD_VALUES
from service.inference.fields import FIELDS, QUANTILES, Fields
from service.registry.labels import held, named
from service.registry.verified import VerifiedModel
from service.types import Task

_OF_PARTS = frozenset({OOD_VALUES, OOD_FLAGGED, "label", "prediction_set", "quantiles"})
"""Fields that are not written as the array that they are."""


def write(
    request: Request, model: VerifiedModel, fields: Fields, more: Mapping[str, Any]
) -> Response:
    """The answer of /predict or /eval, as JSON or .npz."""
    if wants_npz(request):
        return write_npz(contents(model, fields, more, arrays=True))
    return write_json(contents(model, fields, more, arrays=False))


def select(fields: Fields, wanted: Collection[str]) -> Fields:
    """What was wanted, in the contract's order; what the task or version does not have is None.

    The arrays that `ood` is made of come in its place.
    """
    names = _in_order(tuple(wanted), OOD_VALUES in fields)
    return {name: fields.get(name) for name in names}


@functools.lru_cache(maxsize=256)
def _in_order(wanted: tuple[str, ...], scored: bool) -> tuple[str, ...]:
    """The names of arrays; clients ask for the same fields again and again."""
    found: list[str] = []
    for name in (*FIELDS, *CALIBRATED_FIELDS):
        if name in wanted:
            found += (OOD_VALUES, OOD_FLAGGED) if name == "ood" and scored else (name,)
    return tuple(found)


def contents(
    model: VerifiedModel, fields: Fields, more: Mapping[str, Any], *, arrays: bool
) -> dict[str, Any]:
    """What an answer holds, by name, in the contract's order.

    Args:
        model: that gave it.
        fields: its arrays.
        more: what stands before them (`passes`, `seed`).
        arrays: everything has to be an array, as in .npz: what has parts comes as its parts.
    """
    content: dict[str, Any] = {
        "model": model.ref.name,
        "version": model.ref.version,
        "task": model.manifest.task.value,
        **(_parts(more) if arrays else more),
    }
    for name, array in fields.items():
        if name not in _OF_PARTS:
            content[name] = None if array is None else np.ascontiguousarray(array)
        elif name == OOD_VALUES:
            content |= _out_of_distribution(model, fields, as_arrays=arrays)
        elif name == OOD_FLAGGED:
            continue
        elif name == "label" and array is not None:
            content[name] = _labels(model, array, as_array=arrays)
        elif name == "prediction_set" and array is not None and not arrays:
            content[name] = held(model.manifest, array)
        elif name == "quantiles" and array is not None and not arrays:
            content[name] = {"levels": QUANTILES, "values": np.ascontiguousarray(array)}
        else:
            content[name] = None if array is None else np.ascontiguousarray(array)
    return content


def _parts(more: Mapping[str, Any]) -> dict[str, Any]:
    """`{"degraded": {"reason": …}}` as `degraded_reason`."""
    found: dict[str, Any] = {}
    for name, value in more.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{part}": inner for part, inner in value.items()}
        else:
            found[name] = value
    return found


def _out_of_distribution(
    model: VerifiedModel, fields: Fields, *, as_arrays: bool
) -> dict[str, Any]:
    """The field `ood`; as arrays each of its parts by itself, `ood_score` and so on."""
    assert model.calibration is not None
    threshold = model.calibration.threshold
    parts = {
        "score": model.calibration.score.name,
        "values": fields[OOD_VALUES],
        "threshold": threshold.value,
        "flagged": fields[OOD_FLAGGED],
        "false_positive_rate": threshold.false_positive_rate,
    }
    return {f"ood_{name}": part for name, part in parts.items()} if as_arrays else {"ood": parts}


def _labels(model: VerifiedModel, array: NDArray[Any], *, as_array: bool) -> Any:
    """Names where the model has them, indices otherwise.

    A multilabel row has a list of those that hold. As an array, or where each place of a dense
    output has its own, it is the [B, C, D...] of booleans.
    """
    if model.manifest.task is Task.MULTILABEL:
        if as_array or array.ndim > 2:
            return np.ascontiguousarray(array)
        return held(model.manifest, array)
    labels = named(model.manifest, array)
    return labels if as_array else labels.tolist()
