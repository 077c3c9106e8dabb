"""What an infer request says, apart from its model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from service.api.inference_protocol.requests import read_infer, read_raw
from service.errors import MalformedBody
from service.registry.manifest import InputSpec


def _spec(*shape: int, dtype: str = "float32") -> InputSpec:
    return InputSpec(shape=shape, dtype=dtype)


def test_raw_bytes_are_as_many_rows_as_they_hold() -> None:
    body = bytearray(np.arange(6, dtype="<f4").tobytes())
    assert read_raw(body, _spec(3)).array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_raw(body, _spec()).array.shape == (6,)


def test_raw_bytes_of_a_row_that_varies_are_one_row() -> None:
    body = bytearray(np.arange(6, dtype="<i8").tobytes())
    assert read_raw(body, _spec(-1, dtype="int64")).array.shape == (1, 6)
    assert read_raw(body, _spec(2, -1, dtype="int64")).array.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("size", "shape", "said"),
    [(0, (3,), "no batch"), (13, (3,), "12 bytes"), (12, (-1, -1), "more than one dimension")],
)
def test_raw_bytes_that_leave_the_shape_open_are_refused(
    size: int, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(MalformedBody, match=said):
        read_raw(bytearray(size), _spec(*shape))


def test_an_output_is_binary_by_its_own_word_or_else_by_the_requests() -> None:
    body = {
        "inputs": [{"name": "input", "shape": [1], "datatype": "FP32", "data": [1]}],
        "outputs": [
            {"name": "a", "parameters": {"binary_data": False}},
            {"name": "b", "parameters": {"binary_data": True}},
            {"name": "c"},
        ],
    }
    text = bytearray(json.dumps(body).encode())
    asked = read_infer(text, len(text))
    assert [asked.binary(name) for name in "abc"] == [False, True, False]
    text = bytearray(json.dumps({**body, "parameters": {"binary_data_output": True}}).encode())
    asked = read_infer(text, len(text))
    assert [asked.binary(name) for name in "abcd"] == [False, True, True, True]


def test_the_bytes_of_an_input_are_not_copied_where_they_lie_well() -> None:
    one = {
        "name": "input",
        "shape": [4],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": 4},
    }
    text = json.dumps({"inputs": [one]}).encode()
    body = bytearray(text + bytes(4))
    array = read_infer(body, len(text)).array
    body[-4:] = b"\1\2\3\4"
    assert array.tolist() == [1, 2, 3, 4]
