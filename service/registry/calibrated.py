"""Predictions of a calibrated version: sampled fields, and what its calibration makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from service.calibration import apply
from service.calibration.artifact import Calibration, stale_for_request
from service.inference import prediction
from service.inference.fields import Fields
from service.inference.posterior import Posterior
from service.inference.prediction import Request
from service.types import Task


def predict_calibrated(
    sampler: Posterior,
    task: Task,
    calibration: Calibration,
    requests: Sequence[Request],
    wanted: Callable[[int], bool],
) -> list[Fields | None]:
    """As `prediction.predict`, with the calibrated fields of requests that it holds for."""
    holds = [stale_for_request(calibration.conditions, r.plan) is None for r in requests]
    names = {name for r, hold in zip(requests, holds, strict=True) if hold for name in r.fields}
    needed = apply.needs(calibration, names)
    answers = prediction.predict(
        sampler,
        task,
        [
            dataclasses.replace(request, fields={*request.fields, *needed}) if hold else request
            for request, hold in zip(requests, holds, strict=True)
        ],
        wanted,
    )
    answered = [
        (request, fields)
        for request, fields, hold in zip(requests, answers, holds, strict=True)
        if hold and fields is not None
    ]
    if answered:
        _add(sampler, task, calibration, names, answered)
    return answers


def _add(
    sampler: Posterior,
    task: Task,
    calibration: Calibration,
    names: Collection[str],
    answered: Sequence[tuple[Request, Fields]],
) -> None:
    """Apply the calibration to the rows of all requests at once, and give each its own."""
    together: dict[str, Any] = {
        name: _joined([fields[name] for _, fields in answered])
        for name in apply.needs(calibration, names)
        # What a task has, it has in every answer.
        if answered[0][1].get(name) is not None
    }
    if apply.needs_deterministic(calibration, names):
        together[apply.DETERMINISTIC] = _joined(
            [prediction.evaluate(sampler, task, request.inputs)["mean"] for request, _ in answered]
        )
    inputs = _joined([request.inputs.numpy(force=True) for request, _ in answered])
    added = apply.apply(calibration, together, names, inputs)
    start = 0
    for request, fields in answered:
        rows = slice(start, start + len(request.inputs))
        fields.update({name: array[rows] for name, array in added.items()})
        start = rows.stop


def _joined(arrays: Collection[Any]) -> Any:
    return np.concatenate(list(arrays)) if len(arrays) > 1 else next(iter(arrays))
