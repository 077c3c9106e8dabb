"""Tensors survive the way to bytes and to JSON and back, and what is no tensor is refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api.inference_protocol.tensors import (
    BF16,
    BYTES,
    NUMPY,
    datatype_of,
    elements,
    from_bytes,
    from_json,
    to_bytes,
    to_json,
)
from service.errors import InvalidInput, MalformedBody

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)
tensors = st.sampled_from(sorted(NUMPY)).flatmap(lambda name: hnp.arrays(NUMPY[name], shapes))


def _strings(values: list[str]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@given(tensors, st.integers(0, 7))
def test_numbers_come_back_from_bytes_wherever_they_lie(array: NDArray[Any], place: int) -> None:
    raw = memoryview(bytearray(place) + bytes(to_bytes(array)))[place:]
    back = from_bytes(raw, datatype_of(array.dtype), array.shape, "x")
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.aligned


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_strings_come_back_from_bytes(values: list[str]) -> None:
    raw = memoryview(bytes(to_bytes(_strings(values))))
    back = from_bytes(raw, BYTES, [len(values), 1], "x")
    assert [item.decode() for item in back[:, 0]] == values


@given(hnp.arrays("<f4", shapes, elements=st.floats(width=16)))
def test_bfloat16_is_the_upper_half_of_a_float32(array: NDArray[Any]) -> None:
    upper = (array.view(np.uint32) >> 16).astype("<u2")
    back = from_bytes(memoryview(upper.tobytes()), BF16, array.shape, "x")
    expected = (upper.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(back, expected)


@given(tensors, st.booleans())
def test_numbers_come_back_from_json_nested_or_flat(array: NDArray[Any], flat: bool) -> None:
    finite = np.isfinite(array) if array.dtype.kind == "f" else True
    array = np.where(finite, array, 0).astype(array.dtype)
    written = to_json(array) if flat else np.ascontiguousarray(array)
    data = orjson.loads(orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY))
    back = from_json(data, datatype_of(array.dtype), array.shape, "x")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2))
def test_strings_come_back_from_json(values: list[str]) -> None:
    data = orjson.loads(orjson.dumps(to_json(_strings(values))))
    assert from_json(data, BYTES, [1, 2], "x").tolist() == [values]


@given(st.binary(max_size=40), st.integers(0, 6))
def test_bytes_that_are_not_so_many_strings_are_refused_and_nothing_else_happens(
    raw: bytes, count: int
) -> None:
    try:
        back = from_bytes(memoryview(raw), BYTES, [count], "x")
    except MalformedBody:
        return
    assert bytes(to_bytes(back)) == raw


@pytest.mark.parametrize("size", [-1, 1.0, True, None, "2", 2**64])
def test_a_size_is_a_whole_number_of_at_least_0_and_in_all_64_bits(size: Any) -> None:
    with pytest.raises(MalformedBody):
        elements([size], "UINT8", "x")


@pytest.mark.parametrize(
    ("shape", "datatype"),
    [([2**63], "INT8"), ([2**32, 2**31], "BOOL"), ([2**60], "FP64"), ([2**40, 2**21], BYTES)],
)
def test_a_shape_whose_bytes_64_bits_cannot_count_is_refused(
    shape: list[int], datatype: str
) -> None:
    with pytest.raises(MalformedBody, match="64 bits"):
        elements(shape, datatype, "x")


@pytest.mark.parametrize(
    ("data", "datatype", "shape"),
    [
        (None, "FP32", [1]),
        ({}, "FP32", [1]),
        (1.0, "FP32", []),
        ([1.0, 2.0], "FP32", [1]),
        ([[1.0, 2.0]], "FP32", [2, 1]),
        ([[1.0], [2.0, 3.0]], "FP32", [3]),
        (["1"], "FP32", [1]),
        ([None], "FP32", [1]),
        ([{}], "FP32", [1]),
        ([1], BYTES, [1]),
        ([["a"], "b"], BYTES, [2]),
        ([1.0], BF16, [1]),
    ],
)
def test_data_that_is_no_such_tensor_is_refused(data: Any, datatype: str, shape: list[int]) -> None:
    with pytest.raises(MalformedBody):
        from_json(data, datatype, shape, "x")


def test_data_nested_beyond_reason_is_refused() -> None:
    data: list[Any] = [1.0]
    for _ in range(1000):
        data = [data]
    with pytest.raises(MalformedBody):
        from_json(data, "FP32", [1], "x")


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (256, "UINT8"),
        (-1, "UINT64"),
        (2**63, "INT64"),
        (2.0**63, "INT64"),
        (0.5, "INT8"),
        (float("nan"), "INT32"),
        (2, "BOOL"),
        (1e300, "FP32"),
        (70000.0, "FP16"),
    ],
)
def test_a_number_that_the_datatype_cannot_hold_is_named(value: Any, datatype: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_json([0, value], datatype, [2, 1], "x")
    assert caught.value.field == "x[1][0]"
    assert datatype in caught.value.message


@settings(max_examples=50)
@given(st.sampled_from([name for name in NUMPY if "INT" in name]), st.data())
def test_every_integer_of_a_datatype_is_read(datatype: str, data: st.DataObject) -> None:
    limits = np.iinfo(NUMPY[datatype])
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1))
    assert from_json(values, datatype, [len(values)], "x").tolist() == values


def test_what_is_not_finite_is_left_to_whoever_knows_the_model() -> None:
    found = from_json([float("inf"), float("nan")], "FP32", [2], "x")
    assert np.isinf(found[0])
    assert np.isnan(found[1])


def test_what_is_not_finite_is_null_in_json() -> None:
    written = orjson.dumps(
        to_json(np.array([np.nan, np.inf, 1.0])), option=orjson.OPT_SERIALIZE_NUMPY
    )
    assert orjson.loads(written) == [None, None, 1.0]


def test_shapes_of_more_dimensions_than_any_model_has_are_refused_at_once() -> None:
    for shape in ([1] * 33, [2**62] * 1_000_000, [0] * 65):
        with pytest.raises(MalformedBody, match=f"{len(shape)} dimensions"):
            from_json([1.0], "FP32", shape, "x")
        with pytest.raises(MalformedBody, match=f"{len(shape)} dimensions"):
            from_bytes(memoryview(b"1234"), "FP32", shape, "x")


def test_a_long_string_among_many_numbers_takes_no_memory() -> None:
    data = ["x" * 100_000, *range(10_000)]  # 4 GB, were each place made as long
    tracemalloc.start()
    try:
        with pytest.raises(MalformedBody, match="more than numbers"):
            from_json(data, "FP32", [len(data)], "x")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
