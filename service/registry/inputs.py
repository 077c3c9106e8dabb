"""Whether an array is a batch that a model accepts, and if not, what is wrong and where."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.registry.manifest import InputSpec

_FIELD = "inputs"
DEEPEST = 32
"""Lists in lists, or dimensions, that anything here may have."""


def array_from_lists(value: Any, spec: InputSpec) -> NDArray[Any]:
    """Nested lists of numbers → the batch [B, D...] in the model's own dtype.

    Raises:
        InvalidInput: it is no such batch; the message names the first place that is wrong.
    """
    if not isinstance(value, list):
        received = "nothing" if value is None else type(value).__name__
        raise InvalidInput(
            f"`inputs` is to be an array of rows, {_shape(spec)}; received {received}",
            field=_FIELD,
            expected=_shape(spec),
            received=received,
        )
    try:
        array = array_of_numbers(value)
    except (ValueError, OverflowError):
        raise _first_fault(value, spec) from None
    return conform(array, spec)


def array_of_numbers(value: list[Any]) -> NDArray[Any]:
    """Nested lists → an array of whatever numbers they hold.

    Raises:
        ValueError: they are ragged, nested deeper than `DEEPEST`, or hold more than numbers.
        OverflowError: they hold a number that is too large.
    """
    depth = _depth(value)
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    leaves: Iterable[Any] = value
    for _ in range(depth - 1):
        leaves = itertools.chain.from_iterable(leaves)
    # Of one long string NumPy would make as long a one in every place, which fills any memory. The
    # sum is nobody's; it is the fastest way to see that all of them are numbers.
    try:
        sum(leaves)
    except TypeError:
        empty = np.array(value, dtype=object)
        if empty.size:
            raise ValueError("holds more than numbers") from None
        return empty.astype(np.float64)
    array = np.array(value)
    if array.dtype.kind not in "iufb":
        raise ValueError("holds more than numbers")
    return array


def conform(array: NDArray[Any], spec: InputSpec, field: str = _FIELD) -> NDArray[Any]:
    """Check an array's shape and values and cast it to the model's own dtype.

    Args:
        array: meant as [B, D...].
        spec: of the model.
        field: how messages call the array.

    Raises:
        InvalidInput: wrong shape or dtype, NaN or infinity, or a number that does not fit.
    """
    _check_shape(array.shape, spec, field)
    wanted = np.dtype(spec.dtype)
    if array.dtype.kind in "iufb" and wanted.kind == "f":
        return _as_float(array, wanted, field)
    if array.dtype.kind not in "iufb":
        raise InvalidInput(
            f"`{field}` holds {array.dtype}; expected numbers that fit {spec.dtype}",
            field=field,
            expected=spec.dtype,
            received=str(array.dtype),
        )
    if array.dtype.kind == "f":
        refuse_where(field, ~np.isfinite(array), array, "a finite number")
        refuse_where(field, array != np.floor(array), array, f"a whole number ({spec.dtype})")
    if wanted.kind in "iu" and array.dtype.kind in "iuf":
        limits = np.iinfo(wanted)
        # As a float the largest int64 is 2^63, one too many; one more than the largest is exact.
        beyond = (array < limits.min) | (
            array >= float(limits.max) + 1 if array.dtype.kind == "f" else array > limits.max
        )
        refuse_where(field, beyond, array, f"{limits.min} to {limits.max} ({spec.dtype})")
    if wanted.kind == "b" and array.dtype.kind != "b":
        refuse_where(field, (array != 0) & (array != 1), array, "true or false")
    return np.ascontiguousarray(array, dtype=wanted)


def _as_float(array: NDArray[Any], wanted: np.dtype[Any], field: str) -> NDArray[Any]:
    # What is not finite stays so and what does not fit becomes so: one look at the cast sees both.
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array, dtype=wanted)
    if not np.isfinite(cast).all():
        if array.dtype.kind == "f":
            refuse_where(field, ~np.isfinite(array), array, "a finite number")
        refuse_where(field, ~np.isfinite(cast), array, f"a number that fits {wanted.name}")
    return cast


def _check_shape(shape: tuple[int, ...], spec: InputSpec, field: str) -> None:
    fits = len(shape) == len(spec.shape) + 1 and all(
        size == wanted or (wanted == -1 and size > 0)
        for size, wanted in zip(shape[1:], spec.shape, strict=True)
    )
    if fits and shape[0] >= 1:
        return
    hint = ""
    if shape[:1] == (0,):
        hint = "; a batch needs at least one row"
    elif len(shape) == len(spec.shape):
        hint = "; one row has to stand in a list of its own: [row]"
    raise InvalidInput(
        f"`{field}` has the shape {list(shape)}; expected {_shape(spec)}{hint}",
        field=field,
        expected=_shape(spec),
        received=list(shape),
    )


def refuse_where(field: str, bad: NDArray[np.bool_], array: NDArray[Any], expected: str) -> None:
    """Raises InvalidInput naming the first of the bad elements, where there are any."""
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        value = array[first].item()
        index = "".join(f"[{i}]" for i in first)
        raise InvalidInput(
            f"`{field}{index}` is {value}; expected {expected}",
            field=f"{field}{index}",
            expected=expected,
            received=str(value) if isinstance(value, float) and value - value != 0 else value,
        )


def _shape(spec: InputSpec) -> str:
    sizes = ["B", *("any" if size == -1 else str(size) for size in spec.shape)]
    return f"[{', '.join(sizes)}]"


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value and depth <= DEEPEST:
        value, depth = value[0], depth + 1
    return depth


def _first_fault(value: list[Any], spec: InputSpec) -> InvalidInput:
    """What is wrong with lists that numpy cannot make an array of numbers from."""
    return _fault(value, "", 0, spec, {}) or InvalidInput(
        "`inputs` holds a number too large for any model", field=_FIELD
    )


def _fault(
    item: Any, index: str, depth: int, spec: InputSpec, lengths: dict[int, int]
) -> InvalidInput | None:
    """What is wrong with a part of the inputs.

    Args:
        item: the part.
        index: its place, as in `[0][3]`.
        depth: how many lists it is in.
        spec: of the model.
        lengths: of the first list at each depth.
    """
    name = f"{_FIELD}{index}"
    wanted_depth = len(spec.shape) + 1
    if not isinstance(item, list):
        is_number = isinstance(item, int | float)
        if is_number and depth == wanted_depth:
            return None
        expected = "a number" if depth == wanted_depth else "an array"
        received = item if is_number or item is None else str(item)[:100]
        return InvalidInput(
            f"`{name}` is {received!r}; expected {expected}, `inputs` being {_shape(spec)}",
            field=name,
            expected=expected,
            received=received,
        )
    if depth >= wanted_depth:
        return InvalidInput(
            f"`{name}` is an array; expected a number, `inputs` being {_shape(spec)}",
            field=name,
            expected="a number",
            received="an array",
        )
    length = lengths.setdefault(depth, len(item))
    if len(item) != length:
        return InvalidInput(
            f"`{name}` has {len(item)} elements, and those before it {length}; every row needs "
            f"the same shape, `inputs` being {_shape(spec)}",
            field=name,
            expected=length,
            received=len(item),
        )
    found = (
        _fault(part, f"{index}[{number}]", depth + 1, spec, lengths)
        for number, part in enumerate(item)
    )
    return next((each for each in found if each is not None), None)
