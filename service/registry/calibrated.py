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
from service.inference.prediction import Prediction, Request
from service.types import Task


class CalibratedPrediction:
    """As `prediction.Prediction`, with the calibrated fields of requests that it holds for."""

    def __init__(
        self,
        sampler: Posterior,
        task: Task,
        calibration: Calibration,
        requests: Sequence[Request],
        wanted: Callable[[int], bool],
    ) -> None:
        self._sampler = sampler
        self._task = task
        self._calibration = calibration
        self._requests = requests
        self._holds = [stale_for_request(calibration.conditions, r.plan) is None for r in requests]
        self._names = {
            name for r, hold in zip(requests, self._holds, strict=True) if hold for name in r.fields
        }
        needed = apply.needs(calibration, self._names)
        self._sampled = Prediction(
            sampler,
            task,
            [
                dataclasses.replace(request, fields={*request.fields, *needed}) if hold else request
                for request, hold in zip(requests, self._holds, strict=True)
            ],
            wanted,
        )

    def advance(self, enough: Callable[[], bool] | None = None) -> bool:
        """See `Prediction.advance`."""
        return self._sampled.advance(enough)

    def answers(self) -> list[Fields | None]:
        """See `Prediction.answers`."""
        answers = self._sampled.answers()
        answered = [
            (request, fields)
            for request, fields, hold in zip(self._requests, answers, self._holds, strict=True)
            if hold and fields is not None
        ]
        if answered:
            _add(self._sampler, self._task, self._calibration, self._names, answered)
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
