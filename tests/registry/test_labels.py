"""Labels by name where the model has names, by index where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.errors import InvalidInput
from service.registry.labels import check_label, encode, held, named
from service.registry.manifest import InputSpec, Manifest
from service.types import Task

NAMED = Manifest(task=Task.MULTILABEL, input=InputSpec(shape=(2,)), labels=("cat", "dog", "owl"))
NAMES = ("cat", "dog", "7")
BARE = NAMED.model_copy(update={"labels": None})


def test_indices_of_any_shape_become_names() -> None:
    assert named(NAMED, np.array([[2, 0], [1, 1]])).tolist() == [["owl", "cat"], ["dog", "dog"]]
    assert named(BARE, np.array([2, 0])).tolist() == [2, 0]


def test_a_row_has_the_labels_that_hold_in_their_order() -> None:
    holds = np.array([[True, False, True], [False, False, False]])
    assert held(NAMED, holds) == [["cat", "owl"], []]
    assert held(BARE, holds) == [[0, 2], []]


def manifest(task: Task, labels: tuple[str, ...] | None = None) -> Manifest:
    return Manifest(task=task, input=InputSpec(shape=(4,)), labels=labels)


@pytest.mark.parametrize(
    ("task", "labels", "outputs", "given", "kept", "code"),
    [
        (Task.CLASSIFICATION, NAMES, 3, "dog", "dog", 1),
        (Task.CLASSIFICATION, NAMES, 3, 0, "cat", 0),
        (Task.CLASSIFICATION, NAMES, 3, "7", "7", 2),
        (Task.CLASSIFICATION, None, 13, 12, 12, 12),
        (Task.BINARY, None, 1, True, 1, 1),
        (Task.BINARY, ("no", "yes"), 1, False, "no", 0),
        (Task.MULTILABEL, NAMES, 3, ["7", 0, "cat"], ["cat", "7"], [True, False, True]),
        (Task.MULTILABEL, NAMES, 3, [], [], [False, False, False]),
        (Task.MULTILABEL, None, 2, [1], [1], [False, True]),
        (Task.REGRESSION, None, 1, 3, 3.0, 3.0),
        (Task.HETEROSCEDASTIC_REGRESSION, None, 2, [1, 2.5], [1.0, 2.5], [1.0, 2.5]),
    ],
)
def test_a_label_is_kept_by_name_and_trained_on_by_index(
    task: Task, labels: tuple[str, ...] | None, outputs: int, given: Any, kept: Any, code: Any
) -> None:
    of = manifest(task, labels)
    found = check_label(of, outputs, given)
    assert found == kept
    assert type(found) is type(kept)
    assert encode(of, outputs, [kept, kept]).tolist() == [code, code]


@pytest.mark.parametrize(
    ("task", "labels", "given", "words"),
    [
        (Task.CLASSIFICATION, NAMES, "fish", "cat, dog, 7"),
        (Task.CLASSIFICATION, NAMES, 3, "cat, dog, 7"),
        (Task.CLASSIFICATION, NAMES, -1, "cat, dog, 7"),
        (Task.CLASSIFICATION, NAMES, True, "cat, dog, 7"),
        (Task.CLASSIFICATION, NAMES, ["cat"], "cat, dog, 7"),
        (Task.CLASSIFICATION, NAMES, None, "cat, dog, 7"),
        (Task.CLASSIFICATION, None, "cat", "0 to 1"),
        (Task.CLASSIFICATION, None, 1.5, "0 to 1"),
        (Task.CLASSIFICATION, None, 2**63, "0 to 1"),
        (Task.BINARY, None, 2, "0 to 1"),
        (Task.MULTILABEL, NAMES, "cat", "a list of the labels that hold"),
        (Task.MULTILABEL, NAMES, ["fish"], "cat, dog, 7"),
        (Task.REGRESSION, None, [1.0], "a list of 2 finite numbers"),
        (Task.REGRESSION, None, 1.0, "a list of 2 finite numbers"),
        (Task.REGRESSION, None, ["1", "2"], "finite numbers"),
        (Task.REGRESSION, None, [float("nan"), 1.0], "finite numbers"),
        (Task.REGRESSION, None, [10**400, 1.0], "finite numbers"),
        (Task.REGRESSION, None, [True, 1.0], "finite numbers"),
    ],
)
def test_what_is_no_label_is_said_with_what_is(
    task: Task, labels: tuple[str, ...] | None, given: Any, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as raised:
        check_label(manifest(task, labels), 2, given)
    assert raised.value.field == "label"


def test_regression_labels_of_several_lengths_are_no_array() -> None:
    with pytest.raises(InvalidInput, match="jsonl"):
        encode(manifest(Task.REGRESSION), 1, [[1.0], [1.0, 2.0]])
