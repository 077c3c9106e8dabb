"""The inputs that a model doubts most and least, as people can look at them.

A row is shown as a picture where its shape is one: [H, W], [1, H, W] (grey) or [3, H, W] (red,
green, blue), at least `SMALLEST` pixels high and wide. Anything else is shown by its values; a flat
[H·W] says nowhere that it is a picture, and is no more than numbers here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.assessment.measured import Measured
from service.assessment.methods import class_errors, class_truth, exclusive, exclusive_task
from service.assessment.regression_methods import squared_errors
from service.calibration.checks import FloatArray, IntArray
from service.types import Task

SHOWN = 12
SMALLEST = 4
_LARGEST = 128
"""Pixels; larger pictures are thinned."""
_FEATURES = 4
"""Values of a row that are shown: those furthest from the mean of all rows."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One value of an input.

    Args:
        index: within the row.
        value: as the file holds it.
        deviations: from the mean of all rows, in their standard deviations.
    """

    index: tuple[int, ...]
    value: float
    deviations: float


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the held-out data.

    Args:
        row: its number.
        uncertainty: by the measure that the examples are ordered by.
        truth: label or value, in words.
        predicted: the same.
        right: whether the prediction is; None for a regression.
        confidence: probability of the predicted label; None for a regression or several labels.
        picture: a PNG as a data URI; None where the input is no picture.
        features: where it is none, its most unusual values.
    """

    row: int
    uncertainty: float
    truth: str
    predicted: str
    right: bool | None
    confidence: float | None
    picture: str | None
    features: tuple[Feature, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """The rows at both ends of one measure.

    Args:
        measure: that they are ordered by.
        most: the most uncertain, the worst first.
        least: the least uncertain, the surest first.
        values: numbers of one row that is no picture.
    """

    measure: str
    most: tuple[Example, ...]
    least: tuple[Example, ...]
    values: int


def examples(
    measured: Measured,
    inputs: NDArray[Any],
    targets: FloatArray | IntArray,
    labels: Sequence[str] | None,
    measure: str,
) -> Examples:
    """The `SHOWN` most and least uncertain rows, at most half of all each.

    Args:
        measured: on the rows.
        inputs: [B, D...].
        targets: as `data.Labelled` holds them.
        labels: names of the classes.
        measure: the field of `measured` to order by.
    """
    uncertainty_B = measured.fields[measure]
    order_B = np.argsort(-uncertainty_B, kind="stable")
    shown = max(1, min(SHOWN, len(order_B) // 2))
    chosen = order_B[:shown], order_B[::-1][:shown]
    described = _Describing(measured, inputs, targets, labels, np.concatenate(chosen))
    most, least = (
        tuple(described.row(int(row), float(uncertainty_B[row])) for row in rows) for rows in chosen
    )
    return Examples(measure, most, least, int(np.prod(inputs.shape[1:])))


def is_picture(shape: Sequence[int]) -> bool:
    """Whether rows of this shape are shown as pictures."""
    sides = tuple(shape[-2:])
    channels = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    return channels and len(sides) == 2 and min(sides) >= SMALLEST


def picture(pixels: NDArray[Any], low: float, high: float) -> str:
    """A PNG as a data URI.

    Args:
        pixels: [H, W], [1, H, W] or [3, H, W].
        low: the value that is black.
        high: the value that is white.
    """
    step = -(-max(pixels.shape[-2:]) // _LARGEST)
    thinned = pixels[..., ::step, ::step].astype(np.float64)
    scaled = (thinned - low) / (high - low) if high > low else np.zeros_like(thinned)
    bytes_ = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    if bytes_.ndim == 3:
        bytes_ = bytes_[0] if len(bytes_) == 1 else np.moveaxis(bytes_, 0, -1)
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bytes_)).save(content, format="png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


class _Describing:
    """Rows in words and pictures."""

    def __init__(
        self,
        measured: Measured,
        inputs: NDArray[Any],
        targets: FloatArray | IntArray,
        labels: Sequence[str] | None,
        shown: IntArray,
    ) -> None:
        self._task = measured.task
        self._inputs = inputs
        self._labels = labels
        self._pictures = is_picture(inputs.shape[1:])
        if self._pictures:
            # One range for all, so that pictures can be compared.
            pixels = inputs[shown]
            self._low, self._high = float(pixels.min()), float(pixels.max())
        else:
            self._mean, self._std = (
                inputs.mean(axis=0, dtype=np.float64),
                inputs.std(axis=0, dtype=np.float64),
            )
        self._mean_BC = measured.mean_BC
        self._std_BC = measured.std_BC
        self._truth = targets
        if self._task.is_regression:
            self._wrong_B = squared_errors(self._mean_BC, targets)
        else:
            self._truth = class_truth(measured, targets)
            self._mean_BC = exclusive(measured.mean_BC, self._task)
            self._wrong_B = class_errors(self._mean_BC, self._truth, exclusive_task(self._task))

    def row(self, row: int, uncertainty: float) -> Example:
        """One row, and how uncertain it is."""
        values = self._inputs[row]
        exclusive_classes = exclusive_task(self._task) is Task.CLASSIFICATION
        return Example(
            row=row,
            uncertainty=uncertainty,
            truth=self._true(row),
            predicted=self._predicted(row),
            right=None if self._task.is_regression else not self._wrong_B[row],
            confidence=float(self._mean_BC[row].max()) if exclusive_classes else None,
            picture=picture(values, self._low, self._high) if self._pictures else None,
            features=() if self._pictures else self._features(values),
        )

    def _true(self, row: int) -> str:
        if self._task.is_regression:
            return ", ".join(f"{value:.4g}" for value in self._truth[row])
        if self._task is Task.MULTILABEL:
            return self._several(self._truth[row] > 0)
        return self._name(int(self._truth[row]))

    def _predicted(self, row: int) -> str:
        if self._task.is_regression:
            pairs = zip(self._mean_BC[row], self._std_BC[row], strict=True)
            return ", ".join(f"{mean:.4g} ± {std:.2g}" for mean, std in pairs)
        if self._task is Task.MULTILABEL:
            return self._several(self._mean_BC[row] >= 0.5)
        return self._name(int(self._mean_BC[row].argmax()))

    def _several(self, holds_C: NDArray[np.bool_]) -> str:
        return ", ".join(self._name(int(place)) for place in np.flatnonzero(holds_C)) or "none"

    def _name(self, place: int) -> str:
        return str(place) if self._labels is None else self._labels[place]

    def _features(self, values: NDArray[Any]) -> tuple[Feature, ...]:
        spread = np.where(self._std > 0, self._std, 1.0)
        deviations = np.asarray((values - self._mean) / spread)
        flat = np.argsort(-np.abs(deviations), axis=None, kind="stable")[:_FEATURES]
        found = []
        for place in sorted(flat.tolist()):
            index = tuple(int(each) for each in np.unravel_index(place, deviations.shape))
            found.append(Feature(index, float(values[index]), float(deviations[index])))
        return tuple(found)
