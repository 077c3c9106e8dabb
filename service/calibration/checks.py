"""What is asked of the arrays that come in, and the sentences that say what is wrong with them.

Every check returns what it was given as the array that the formulas work on: float64, or int64 for
labels. Each raises `CalibrationFailed` with the field, what was expected and what came.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.errors import CalibrationFailed, TooFewRows

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_ROUNDING = 1e-6
"""How far a row of probabilities may be from a sum of one: what float32 leaves of it."""


def finite(field: str, values: ArrayLike, axes: str) -> FloatArray:
    """A float64 array with one dimension for each letter of `axes`, every number finite.

    Raises:
        CalibrationFailed: another number of dimensions, or a number that is not finite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _wrong(field, f"numbers {_shape(axes)}", f"values that are none ({error})") from None
    if array.ndim != len(axes):
        raise _wrong(field, f"numbers {_shape(axes)}", f"the shape {list(array.shape)}")
    if not np.isfinite(array).all():
        index = tuple(int(place) for place in np.argwhere(~np.isfinite(array))[0])
        raise _wrong(field, "finite numbers", f"{array[index]} at {list(index)}")
    return array


def same_shape(field: str, array: NDArray[Any], like: tuple[int, ...], other: str) -> None:
    """Both fields have one shape.

    Raises:
        CalibrationFailed: `array` has another shape than `like`, that of the field `other`.
    """
    if array.shape != like:
        raise _wrong(field, f"the shape {list(like)} of `{other}`", f"{list(array.shape)}")


def probabilities(field: str, probs_BC: ArrayLike) -> FloatArray:
    """[B, C] over at least two exclusive classes: between 0 and 1, rows that sum to 1.

    Raises:
        CalibrationFailed: another shape, or numbers that are no such probabilities.
    """
    probs_BC = shares(field, probs_BC, "BC")
    if probs_BC.shape[1] < 2:
        raise _wrong(field, "two classes or more [B, C]", f"the shape {list(probs_BC.shape)}")
    total_B = probs_BC.sum(axis=1)
    wrong_B = np.abs(total_B - 1) > _ROUNDING
    if wrong_B.any():
        row = int(wrong_B.argmax())
        raise _wrong(field, "rows that sum to 1", f"a sum of {total_B[row]:.6g} in row {row}")
    return probs_BC


def shares(field: str, values: ArrayLike, axes: str) -> FloatArray:
    """Numbers between 0 and 1.

    Raises:
        CalibrationFailed: another shape, or a number outside.
    """
    array = finite(field, values, axes)
    outside = (array < 0) | (array > 1)
    if outside.any():
        raise _wrong(field, "numbers between 0 and 1", f"{array[outside][0]:.6g}")
    return array


def class_labels(field: str, labels_B: ArrayLike, rows: int, classes: int) -> IntArray:
    """[B] whole numbers from 0 to C − 1.

    Raises:
        CalibrationFailed: another number of rows, or a label that is none of the classes.
    """
    array = finite(field, labels_B, "B")
    if len(array) != rows:
        raise _wrong(field, f"a label for each of {rows} rows", f"{len(array)} labels")
    wrong_B = (array != np.floor(array)) | (array < 0) | (array >= classes)
    if wrong_B.any():
        row = int(wrong_B.argmax())
        expected = f"whole numbers from 0 to {classes - 1}"
        raise _wrong(field, expected, f"{array[row]:.6g} in row {row}")
    return array.astype(np.int64)


def binary_labels(field: str, labels_BC: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """[B, C] zeros and ones as float64; [B] where C is 1.

    Raises:
        CalibrationFailed: another shape, or anything but zeros and ones.
    """
    array = np.asarray(labels_BC)
    if array.ndim == 1 and len(shape) == 2 and shape[1] == 1:
        array = array[:, None]
    array = finite(field, array, "BCD"[: len(shape)])
    if array.shape != shape:
        raise _wrong(field, f"labels of the shape {list(shape)}", f"{list(array.shape)}")
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        index = [int(place) for place in np.argwhere(wrong)[0]]
        raise _wrong(field, "zeros and ones", f"{array[tuple(index)]:.6g} at {index}")
    return array


def rate(field: str, value: float) -> float:
    """A number between 0 and 1, neither of them.

    Raises:
        CalibrationFailed: it is not.
    """
    if not 0 < value < 1:
        raise _wrong(field, "a number above 0 and below 1", f"{value}")
    return float(value)


def enough_rows(field: str, rows: int, needed: int, purpose: str) -> None:
    """There are at least as many as `purpose` needs.

    Raises:
        TooFewRows: `rows` are fewer than `needed`.
    """
    if rows < needed:
        raise TooFewRows(
            f"{purpose} needs at least {needed} rows; `{field}` has {rows}",
            field=field,
            expected=needed,
            received=rows,
        )


def _shape(axes: str) -> str:
    return f"[{', '.join(axes)}]"


def _wrong(field: str, expected: str, received: str) -> CalibrationFailed:
    return CalibrationFailed(
        f"`{field}` should hold {expected}; it holds {received}",
        field=field,
        expected=expected,
        received=received,
    )
