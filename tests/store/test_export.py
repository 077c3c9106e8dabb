"""What was kept leaves as lines, arrays or a table, with labels that training reads."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidInput
from service.store.contract import Sample, Status
from service.store.export import write_jsonl, write_npz
from service.store.parquet import write_parquet
from service.types import Task


def sample(number: int, label: Any = None, size: int = 4, **scores: float) -> Sample:
    return Sample(
        id=f"{number:032x}",
        model="digits",
        version=2,
        time=1.5,
        request_id=f"request-{number}",
        row=0,
        input=np.full((1, size), number, dtype=np.float32),
        scores={"variance": number / 10, **scores},
        status=Status.UNLABELLED if label is None else Status.LABELLED,
        label=label,
    )


def encode(labels: Sequence[Any]) -> np.ndarray[Any, Any]:
    return np.array([int(label) for label in labels])


def test_lines_hold_everything() -> None:
    lines = b"".join(write_jsonl([sample(3, "three"), sample(4)])).splitlines()
    first, second = map(json.loads, lines)
    assert first == {
        "id": f"{3:032x}",
        "model": "digits",
        "version": 2,
        "time": "1970-01-01T00:00:01.500+00:00",
        "request_id": "request-3",
        "row": 0,
        "input": [[3.0, 3.0, 3.0, 3.0]],
        "scores": {"variance": 0.3},
        "label": "three",
        "status": "labelled",
        "labelled_time": None,
    }
    assert (second["label"], second["status"]) == (None, "unlabelled")


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_arrays_are_those_that_data_options_read(count: int) -> None:
    samples = [sample(n, str(n % 10), mutual_information=0.5) for n in range(count)]
    with write_npz(samples, encode) as stream, np.load(stream, allow_pickle=False) as arrays:
        assert len(arrays["x"]) == len(arrays["y"]) == len(arrays["id"]) == count
        if count:
            assert arrays["x"].shape == (count, 1, 4)
            assert arrays["x"].dtype == np.float32
            np.testing.assert_array_equal(arrays["x"][:, 0, 0], np.arange(count))
        np.testing.assert_array_equal(arrays["y"], np.arange(count) % 10)
        np.testing.assert_allclose(arrays["variance"], np.arange(count) / 10)
        np.testing.assert_array_equal(arrays["mutual_information"], np.full(count, 0.5))
        assert np.isnan(arrays["variation_ratio"]).all()


def test_without_labels_there_is_no_y() -> None:
    with write_npz([sample(1)], None) as stream, np.load(stream) as arrays:
        assert "y" not in arrays


def test_rows_of_several_shapes_are_no_array() -> None:
    mixed = [sample(1), sample(2, size=5)]
    with pytest.raises(InvalidInput, match=r"\[1, 4\] of float32 and \[1, 5\].*jsonl"):
        write_npz(mixed, None)
    with pytest.raises(InvalidInput, match="jsonl"):
        write_parquet(mixed, Task.CLASSIFICATION, named=True)


@pytest.mark.parametrize(
    ("task", "named", "labels", "column"),
    [
        (Task.CLASSIFICATION, True, ["a", None], ["a", None]),
        (Task.BINARY, False, [None, 1], [None, 1]),
        (Task.MULTILABEL, True, [["a", "b"], []], [["a", "b"], []]),
        (Task.REGRESSION, False, [1.5, [2.0]], [[1.5], [2.0]]),
        # SQLite gives 3.0 back as 3.
        (Task.REGRESSION, False, [3, None], [[3.0], None]),
    ],
)
def test_a_table_has_labels_of_the_tasks_kind(
    task: Task, named: bool, labels: list[Any], column: list[Any]
) -> None:
    with write_parquet(
        [sample(n, label) for n, label in enumerate(labels)], task, named=named
    ) as s:
        table = pq.read_table(io.BytesIO(s.read()))
    assert table["label"].to_pylist() == column
    assert table["x"].to_pylist() == [[0.0] * 4, [1.0] * 4]
    assert table["variance"].to_pylist() == [0.0, 0.1]
    assert table["mutual_information"].to_pylist() == [None, None]


def test_a_table_of_many_and_of_none() -> None:
    samples = [sample(n, "x") for n in range(2500)]
    with write_parquet(samples, Task.CLASSIFICATION, named=True) as stream:
        table = pq.read_table(io.BytesIO(stream.read()))
    assert table["request_id"].to_pylist() == [f"request-{n}" for n in range(2500)]
    with write_parquet([], Task.CLASSIFICATION, named=True) as stream:
        assert pq.read_table(io.BytesIO(stream.read())).num_rows == 0


def test_labels_of_another_task_are_said() -> None:
    with pytest.raises(InvalidInput, match="not of the kind"):
        write_parquet([sample(1, 0.5)], Task.CLASSIFICATION, named=True)


def test_rows_of_several_types_are_no_array() -> None:
    """As after a model's `dtype` was changed: their bytes put together are other numbers."""
    wide = replace(sample(2), input=sample(2).input.astype(np.float64))
    for mixed in ([sample(1), wide], [wide, sample(1)]):
        with pytest.raises(InvalidInput, match="float64"):
            write_npz(mixed, None)
        with pytest.raises(InvalidInput, match="float64"):
            write_parquet(mixed, Task.CLASSIFICATION, named=True)
