"""Datatypes of the protocol: to and from NumPy, as JSON values and as bytes.

Bytes are little-endian and row-major, without padding. BYTES are strings, each after its length as
32 bits. BF16 is the upper half of a float32, and has no form in JSON.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import MalformedBody
from service.registry.inputs import DEEPEST, array_of_numbers, refuse_where

BYTES, BF16 = "BYTES", "BF16"

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatypes that NumPy has, too."""

DATATYPES = (*NUMPY, BYTES, BF16)

_DATATYPES = {dtype: datatype for datatype, dtype in NUMPY.items()}
_BF16_BYTES = 2
_LENGTH = struct.Struct("<I")
_INT64 = 2**63


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a NumPy type; strings are BYTES."""
    return BYTES if dtype.kind in "USO" else _DATATYPES[dtype.newbyteorder("<")]


def elements(shape: Sequence[int], datatype: str, name: str) -> int:
    """How many elements a shape has.

    Raises:
        MalformedBody: it holds what is no size, more dimensions than any model has, or more than 64
            bits can count.
    """
    if len(shape) > DEEPEST:
        raise MalformedBody(
            f"the shape of `{name}` has {len(shape)} dimensions; expected {DEEPEST} at most",
            field=name,
            expected=DEEPEST,
            received=len(shape),
        )
    for size in shape:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise MalformedBody(
                f"the shape of `{name}` holds {size!r}; expected sizes of at least 0",
                field=name,
                expected="sizes of at least 0",
                received=size,
            )
    count = math.prod(shape)
    if count * itemsize(datatype) >= _INT64:
        raise MalformedBody(
            f"the shape {list(shape)} of `{name}` is more than 64 bits can count", field=name
        )
    return count


def itemsize(datatype: str) -> int:
    """Bytes of an element; of BYTES those of its length, the least that it has."""
    if datatype == BYTES:
        return _LENGTH.size
    return _BF16_BYTES if datatype == BF16 else NUMPY[datatype].itemsize


def from_bytes(raw: memoryview, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """A tensor from its bytes, which stay where they are if they lie as NumPy needs them.

    Raises:
        MalformedBody: there are more or fewer than the shape needs.
    """
    count = elements(shape, datatype, name)
    if datatype == BYTES:
        return _strings(raw, count, name).reshape(shape)
    expected = count * itemsize(datatype)
    if len(raw) != expected:
        raise MalformedBody(
            f"`{name}` has {len(raw)} bytes; {list(shape)} of {datatype} needs {expected}",
            field=name,
            expected=expected,
            received=len(raw),
        )
    if datatype == BF16:
        upper = np.frombuffer(raw, dtype="<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(shape)
    return np.require(np.frombuffer(raw, NUMPY[datatype]).reshape(shape), requirements="A")


def _strings(raw: memoryview, count: int, name: str) -> NDArray[Any]:
    found: list[bytes] = []
    place = 0
    while place < len(raw) and len(found) < count:
        if place + _LENGTH.size > len(raw):
            break
        [length] = _LENGTH.unpack_from(raw, place)
        place += _LENGTH.size + length
        if place > len(raw):
            break
        found.append(bytes(raw[place - length : place]))
    if len(found) != count or place != len(raw):
        raise MalformedBody(
            f"the bytes of `{name}` are not {count} strings, each after its length as 32 bits",
            field=name,
            expected=count,
        )
    strings = np.empty(count, dtype=object)
    strings[:] = found
    return strings


def to_bytes(array: NDArray[Any]) -> bytes | memoryview:
    """What `from_bytes` reads; strings as UTF-8."""
    if array.dtype.kind in "USO":
        parts: list[bytes] = []
        for item in array.reshape(-1).tolist():
            text = item.encode() if isinstance(item, str) else item
            parts += (_LENGTH.pack(len(text)), text)
        return b"".join(parts)
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def from_json(data: Any, datatype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """A tensor from nested lists of its shape, or from one list of its elements in row-major order.

    Raises:
        MalformedBody: it is neither, or holds something that is no element.
        InvalidInput: a number that the datatype cannot hold.
    """
    count = elements(shape, datatype, name)
    if datatype == BF16:
        raise MalformedBody(
            f"`{name}` is BF16, which has no form in JSON; send its bytes (binary_data_size)",
            field=name,
        )
    array = _array(data, datatype, name)
    if array.shape not in ((count,), tuple(shape)):
        raise MalformedBody(
            f"the data of `{name}` has the shape {list(array.shape)}; its `shape` says "
            f"{list(shape)}, so expected that or [{count}]",
            field=name,
            expected=list(shape),
            received=list(array.shape),
        )
    array = array.reshape(shape)
    return array if datatype == BYTES else _cast(array, datatype, name)


def to_json(array: NDArray[Any]) -> Any:
    """What `data` holds: all elements in row-major order, NaN and infinity as null."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.tolist() if array.dtype.kind in "USO" else flat


def _array(data: Any, datatype: str, name: str) -> NDArray[Any]:
    if not isinstance(data, list):
        raise MalformedBody(
            f"the data of `{name}` is to be a list of elements, nested or flat", field=name
        )
    try:
        array = np.array(data, dtype=object) if datatype == BYTES else array_of_numbers(data)
    except (ValueError, OverflowError):
        array = None
    if array is None or (
        datatype == BYTES and not all(isinstance(item, str) for item in array.reshape(-1))
    ):
        wanted = "strings" if datatype == BYTES else "numbers"
        raise MalformedBody(
            f"the data of `{name}` is ragged or holds more than {wanted}; expected {datatype}",
            field=name,
            expected=datatype,
        )
    if datatype == "UINT64" and array.dtype.kind == "f":
        return _unsigned(data, array)
    return array


def _unsigned(data: Any, array: NDArray[Any]) -> NDArray[Any]:
    """Numbers of which some are above 2^63 and others are not, which NumPy reads as floats."""
    exact = np.array(data, dtype=object)
    whole = all(isinstance(item, int) and 0 <= item < 2 * _INT64 for item in exact.reshape(-1))
    return exact.astype(np.uint64) if whole else array


def _cast(array: NDArray[Any], datatype: str, name: str) -> NDArray[Any]:
    dtype = NUMPY[datatype]
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if dtype.kind == "f":
        # NaN and infinity are left to whoever knows the model; what only the cast made is not.
        lost = np.isinf(cast) & np.isfinite(array)
    elif array.dtype.kind == "f":
        lost = ~np.isfinite(array) | (cast.astype(array.dtype) != array) | _beyond(array, dtype)
    else:
        lost = _beyond(array, dtype)
    refuse_where(name, lost, array, f"a number that {datatype} holds")
    return cast


def _beyond(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """Where a number is outside the range of an integer type, or neither 0 nor 1."""
    if dtype.kind == "b":
        neither: NDArray[np.bool_] = (array != 0) & (array != 1)
        return neither
    limits = np.iinfo(dtype)
    # As a float the largest int64 is 2^63, one too many; one more than the largest is exact.
    above = array >= float(limits.max) + 1 if array.dtype.kind == "f" else array > limits.max
    beyond: NDArray[np.bool_] = (array < limits.min) | above
    return beyond
