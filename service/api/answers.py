"""An answer's arrays under the names of the contract, in the form that the client asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from fastapi import Request, Response
from numpy.typing import NDArray

from service.api.bodies import wants_npz, write_json, write_npz
from service.inference.prediction import FIELDS, QUANTILES, Fields
from service.registry.loading import LoadedModel
from service.types import Task

UNCALIBRATED = ("ood", "prediction_set", "interval")
"""Fields that only a calibrated version has; no version is, so they are null."""


def write(
    request: Request, model: LoadedModel, fields: Fields, more: Mapping[str, Any]
) -> Response:
    """The answer of /predict or /eval, as JSON or .npz."""
    if wants_npz(request):
        return write_npz(contents(model, fields, more, arrays=True))
    return write_json(contents(model, fields, more, arrays=False))


def select(fields: Fields, wanted: Collection[str]) -> Fields:
    """What was wanted, in the contract's order; what the task or version does not have is None."""
    return {name: fields.get(name) for name in (*FIELDS, *UNCALIBRATED) if name in wanted}


def contents(
    model: LoadedModel, fields: Fields, more: Mapping[str, Any], *, arrays: bool
) -> dict[str, Any]:
    """What an answer holds, by name, in the contract's order.

    Args:
        model: that gave it.
        fields: its arrays.
        more: what stands before them (`passes`, `seed`).
        arrays: everything has to be an array, as in .npz.
    """
    content: dict[str, Any] = {
        "model": model.ref.name,
        "version": model.ref.version,
        "task": model.manifest.task.value,
        **more,
    }
    for name, array in fields.items():
        if name == "label" and array is not None:
            content[name] = _labels(model, array, as_array=arrays)
        elif name == "quantiles" and array is not None and not arrays:
            content[name] = {"levels": QUANTILES, "values": np.ascontiguousarray(array)}
        else:
            content[name] = None if array is None else np.ascontiguousarray(array)
    return content


def _labels(model: LoadedModel, array: NDArray[Any], *, as_array: bool) -> Any:
    """Names where the model has them, indices otherwise.

    A multilabel row has a list of those that hold. As an array, or where each place of a dense
    output has its own, it is the [B, C, D...] of booleans.
    """
    names = np.array(model.manifest.labels) if model.manifest.labels else None
    if model.manifest.task is Task.MULTILABEL:
        if as_array or array.ndim > 2:
            return np.ascontiguousarray(array)
        choices = names if names is not None else np.arange(array.shape[1])
        return [choices[row].tolist() for row in array]
    labels = array if names is None else names[array]
    return labels if as_array else labels.tolist()
