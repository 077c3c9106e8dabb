"""Held-out data: what is read, and the sentences that say what is wrong with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.assessment.data import read_inputs, read_labelled
from service.errors import CalibrationFailed, InvalidInput
from service.registry.manifest import InputSpec, Manifest
from service.types import Task

LABELS = ("cat", "dog", "owl")


def manifest(task: Task, labels: tuple[str, ...] | None = None) -> Manifest:
    return Manifest(task=task, input=InputSpec(shape=(2,)), labels=labels)


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def x(rows: int) -> Any:
    return np.arange(2.0 * rows).reshape(rows, 2)


def test_inputs_are_the_models_and_the_file_is_known_by_its_hash(tmp_path: Path) -> None:
    path = saved(tmp_path, x=x(3), y=[0, 2, 1])
    found = read_labelled(path, manifest(Task.CLASSIFICATION, LABELS))
    assert found.inputs.dtype == np.float32
    assert found.inputs.tolist() == x(3).tolist()
    assert found.targets.dtype == np.int64
    assert found.targets.tolist() == [0, 2, 1]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.path == str(path)


def test_names_are_as_good_as_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path, x=x(3), y=["owl", "cat", "dog"])
    found = read_labelled(path, manifest(Task.CLASSIFICATION, LABELS))
    assert found.targets.tolist() == [2, 0, 1]
    path = saved(tmp_path, x=x(2), y=["dog", "cat"])
    assert read_labelled(path, manifest(Task.BINARY, LABELS[:2])).targets.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("task", "y", "expected"),
    [
        (Task.BINARY, [1, 0], [[1], [0]]),
        (Task.BINARY, [[True], [False]], [[1], [0]]),
        (Task.CLASSIFICATION, [[1.0], [7.0]], [1, 7]),
        (Task.MULTILABEL, [[1, 0, 1], [0, 0, 0]], [[1, 0, 1], [0, 0, 0]]),
        (Task.REGRESSION, [1.5, -2], [[1.5], [-2]]),
        (Task.HETEROSCEDASTIC_REGRESSION, [[1.5, 3], [-2, 4]], [[1.5, 3], [-2, 4]]),
    ],
)
def test_targets_have_the_shape_of_the_task(
    tmp_path: Path, task: Task, y: Any, expected: Any
) -> None:
    found = read_labelled(saved(tmp_path, x=x(2), y=y), manifest(task))
    assert found.targets.tolist() == expected


@pytest.mark.parametrize(
    ("task", "y", "sentence"),
    [
        (
            Task.CLASSIFICATION,
            [0, 3],
            "`y` should hold whole numbers from 0 to 2, or label names; it holds 3 in row 1",
        ),
        (
            Task.CLASSIFICATION,
            ["cat", "cow"],
            "`y` should hold names among cat, dog, owl; it holds 'cow' in row 1",
        ),
        (
            Task.CLASSIFICATION,
            [0.5, 1],
            "`y` should hold whole numbers from 0 to 2, or label names; it holds 0.5 in row 0",
        ),
        (
            Task.CLASSIFICATION,
            [[0, 1, 0], [1, 0, 0]],
            "`y` should hold one class a row [N]; it holds the shape [2, 3]",
        ),
        (Task.CLASSIFICATION, [0], "`y` has 1 rows and `x` 2; each input needs its truth"),
        (
            Task.MULTILABEL,
            [[0, 2, 0], [1, 0, 0]],
            "`y` should hold zeros and ones; it holds 2 in row 0",
        ),
        (
            Task.REGRESSION,
            [1.0, np.nan],
            "`y` should hold finite numbers; it holds nan in row 1",
        ),
        (
            Task.REGRESSION,
            ["1", "2"],
            "`y` should hold numbers (model.toml names no labels of single classes); it holds <U1",
        ),
        (
            Task.REGRESSION,
            np.zeros((2, 3, 4)),
            "`y` should hold [N] or [N, C]; it holds the shape [2, 3, 4]",
        ),
    ],
)
def test_a_truth_that_is_none(tmp_path: Path, task: Task, y: Any, sentence: str) -> None:
    path = saved(tmp_path, x=x(2), y=y)
    with pytest.raises(CalibrationFailed) as raised:
        read_labelled(path, manifest(task, None if task.is_regression else LABELS))
    assert raised.value.message == sentence
    assert raised.value.field == "y"


def test_inputs_that_the_model_does_not_take(tmp_path: Path) -> None:
    path = saved(tmp_path, x=np.zeros((2, 5)), y=[0, 1])
    with pytest.raises(InvalidInput, match=r"`x` has the shape \[2, 5\]; expected \[B, 2\]"):
        read_labelled(path, manifest(Task.CLASSIFICATION))
    path = saved(tmp_path, x=[[0.0, np.inf]], y=[0])
    with pytest.raises(InvalidInput, match=r"`x\[0\]\[1\]` is inf; expected a finite number"):
        read_labelled(path, manifest(Task.CLASSIFICATION))


def test_strangers_need_no_truth(tmp_path: Path) -> None:
    path = saved(tmp_path, x=x(2))
    assert read_inputs(path, manifest(Task.CLASSIFICATION)).inputs.tolist() == x(2).tolist()
    with pytest.raises(InvalidInput, match=r"has no array y \[N\]; of x and y it holds x"):
        read_labelled(path, manifest(Task.CLASSIFICATION))
    np.save(tmp_path / "x.npy", x(2))
    found = read_inputs(tmp_path / "x.npy", manifest(Task.CLASSIFICATION))
    assert found.inputs.tolist() == x(2).tolist()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.npz cannot be read: "):
        read_labelled(tmp_path / "none.npz", manifest(Task.CLASSIFICATION))
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=x(2), y=np.array([{}, {}], dtype=object))
    with pytest.raises(InvalidInput, match="allow_pickle=False"):
        read_labelled(pickled, manifest(Task.CLASSIFICATION))
