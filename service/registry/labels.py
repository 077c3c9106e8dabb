"""Labels by the names that `model.toml` gives them."""

from __future__ import annotations

import math
import reprlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.registry.manifest import Manifest
from service.types import Task

Label = str | int | float | list[Any]
"""A class by name, or by index where the model names none; the classes that hold of a multilabel
row; the outputs of a regression, one number or [C]."""


def named(manifest: Manifest, label_B: NDArray[Any]) -> NDArray[Any]:
    """Indices of labels, of any shape, as names; as they are where the model names none."""
    return label_B if manifest.labels is None else np.array(manifest.labels)[label_B]


def held(manifest: Manifest, holds_BC: NDArray[np.bool_]) -> list[list[Any]]:
    """The labels that hold in each row, by name or index, in the order of the classes."""
    choices = named(manifest, np.arange(holds_BC.shape[1]))
    return [choices[row].tolist() for row in holds_BC]


def check_label(manifest: Manifest, outputs: int, label: Any) -> Label:
    """What somebody says a row is, in the form that the task has.

    Args:
        manifest: of the model.
        outputs: C.
        label: a name or an index of a class; of a multilabel task a list of them; of a regression a
            number or, of several outputs, [C].

    Raises:
        InvalidInput: it is none of these.
    """
    if manifest.task is Task.MULTILABEL:
        if not isinstance(label, list):
            raise _no_label(label, "a list of the labels that hold")
        holds = {_index(manifest, outputs, one) for one in label}
        return [_name(manifest, index) for index in sorted(holds)]
    if not manifest.task.is_regression:
        return _name(manifest, _index(manifest, outputs, label))
    several = isinstance(label, list)
    numbers = label if several else [label]
    if len(numbers) != outputs or not all(_is_number(number) for number in numbers):
        one = "a finite number"
        raise _no_label(label, one if outputs == 1 else f"a list of {outputs} finite numbers")
    return [float(number) for number in label] if several else float(label)


def encode(manifest: Manifest, outputs: int, labels: list[Any]) -> NDArray[Any]:
    """Labels as training reads them.

    Returns:
        [N] indices of classes; [N, C] booleans of a multilabel task; [N] or [N, C] numbers of a
        regression.

    Raises:
        InvalidInput: one that the model does not have any more, or rows of several lengths.
    """
    if manifest.task is Task.MULTILABEL:
        holds = np.zeros((len(labels), outputs), dtype=np.bool_)
        for place, label in enumerate(labels):
            holds[place, [_index(manifest, outputs, one) for one in label]] = True
        return holds
    if not manifest.task.is_regression:
        return np.array([_index(manifest, outputs, label) for label in labels], dtype=np.int64)
    try:
        return np.array(labels, dtype=np.float64)
    except ValueError:
        raise InvalidInput(
            "the labels are not all of one length, so that they are no array; format=jsonl has "
            "them as they are",
            field="format",
        ) from None


def _index(manifest: Manifest, outputs: int, label: Any) -> int:
    names = manifest.labels
    if isinstance(label, bool) and manifest.task is Task.BINARY:
        return int(label)
    if isinstance(label, str) and names is not None and label in names:
        return names.index(label)
    classes = 2 if manifest.task is Task.BINARY else outputs
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < classes:
        return label
    raise _no_label(label, list(names) if names is not None else f"0 to {classes - 1}")


def _name(manifest: Manifest, index: int) -> str | int:
    return index if manifest.labels is None else manifest.labels[index]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _no_label(label: Any, expected: Any) -> InvalidInput:
    words = f"one of {', '.join(expected)}" if isinstance(expected, list) else expected
    return InvalidInput(
        f"`label` is {reprlib.repr(label)}; expected {words}",
        field="label",
        expected=expected,
        received=label,
    )
