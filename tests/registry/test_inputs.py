"""Batches are taken as they should be and refused by the first place that is wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.registry.inputs import array_from_lists, conform
from service.registry.manifest import InputSpec

FLOATS = InputSpec(shape=(2, 3), dtype="float32")
TOKENS = InputSpec(shape=(-1,), dtype="int64")
BYTES = InputSpec(shape=(2,), dtype="uint8")


def refused(value: Any, spec: InputSpec) -> InvalidInput:
    take: Callable[[Any, InputSpec], Any] = (
        conform if isinstance(value, np.ndarray) else array_from_lists
    )
    with pytest.raises(InvalidInput) as caught:
        take(value, spec)
    return caught.value


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.just(2), st.just(3)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_lists_and_arrays_give_the_same_batch(batch: np.ndarray) -> None:
    from_lists = array_from_lists(batch.tolist(), FLOATS)
    np.testing.assert_array_equal(from_lists, batch)
    assert from_lists.dtype == np.float32
    for other in (batch.astype(">f8"), np.asfortranarray(batch), batch.astype(np.float64)):
        taken = conform(other, FLOATS)
        np.testing.assert_array_equal(taken, batch)
        assert taken.flags["C_CONTIGUOUS"]
        assert taken.dtype.isnative


@pytest.mark.parametrize(
    ("value", "field", "said"),
    [
        (None, "inputs", "received nothing"),
        (5, "inputs", "received int"),
        ([], "inputs", "expected [B, 2, 3]"),
        ([[1, 2, 3], [4, 5, 6]], "inputs", "a list of its own"),
        ([[[1, 2, 3], [4, 5]]], "inputs[0][1]", "2 elements, and those before it 3"),
        ([[[1, 2, 3], [4, 5, "6"]]], "inputs[0][1][2]", "'6'; expected a number"),
        ([[[1, 2, 3], [4, None, 6]]], "inputs[0][1][1]", "None; expected a number"),
        ([[[1, 2, 3], [4, [5], 6]]], "inputs[0][1][1]", "is an array"),
        ([[[1, 2, 3], 4]], "inputs[0][1]", "expected an array"),
        ([[[1, 2, 3], [4, 5, float("nan")]]], "inputs[0][1][2]", "nan"),
        ([[[float("inf"), 2, 3], [4, 5, 6]]], "inputs[0][0][0]", "inf"),
        ([[[1, 2, 3], [4, 5, 1e39]]], "inputs[0][1][2]", "fits float32"),
        ([[[1, 2, 3], [4, 5, 10**400]]], "inputs", ""),
    ],
)
def test_the_first_place_that_is_wrong_is_named(value: Any, field: str, said: str) -> None:
    error = refused(value, FLOATS)
    assert error.field == field
    assert said in error.message


@pytest.mark.parametrize("place", [lambda text: text, lambda text: [text]])
def test_a_long_string_among_many_numbers_takes_no_memory(place: Callable[[str], Any]) -> None:
    rows = [[row, row] for row in range(10_000)]
    tracemalloc.start()
    try:
        error = refused([*rows, place("x" * 100_000)], BYTES)
        assert error.field is not None
        assert error.field.startswith("inputs[10000]")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("value", "shape"), [([], [0]), ([[]], [1, 0]), ([[[]]], [1, 1, 0])])
def test_lists_without_numbers_have_a_shape(value: Any, shape: list[int]) -> None:
    assert refused(value, FLOATS).received == shape


def test_deep_nesting_is_refused_without_recursion() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert refused(deep, FLOATS).field is not None


@pytest.mark.parametrize(
    ("value", "spec", "field"),
    [
        ([[1, 2.5]], TOKENS, "inputs[0][1]"),
        ([[1, 2**63]], TOKENS, "inputs[0][1]"),
        ([[0, 256]], BYTES, "inputs[0][1]"),
        ([[0, -1]], BYTES, "inputs[0][1]"),
        ([[0, 2]], InputSpec(shape=(2,), dtype="bool"), "inputs[0][1]"),
        (np.array([[1 + 2j, 0]]), BYTES, "inputs"),
        (np.array([["a", "b"]]), BYTES, "inputs"),
        (np.zeros((1, 0)), TOKENS, "inputs"),
    ],
)
def test_numbers_that_do_not_fit_the_dtype_are_named(
    value: Any, spec: InputSpec, field: str
) -> None:
    assert refused(value, spec).field == field


def test_whole_floats_are_integers_and_variable_dimensions_vary() -> None:
    assert array_from_lists([[1.0, 2.0]], TOKENS).tolist() == [[1, 2]]
    assert conform(np.zeros((3, 7), dtype=np.int8), TOKENS).shape == (3, 7)
