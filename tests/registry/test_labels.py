"""Labels by name where the model has names, by index where it has none."""

from __future__ import annotations

import numpy as np

from service.registry.labels import held, named
from service.registry.manifest import InputSpec, Manifest
from service.types import Task

NAMED = Manifest(task=Task.MULTILABEL, input=InputSpec(shape=(2,)), labels=("cat", "dog", "owl"))
BARE = NAMED.model_copy(update={"labels": None})


def test_indices_of_any_shape_become_names() -> None:
    assert named(NAMED, np.array([[2, 0], [1, 1]])).tolist() == [["owl", "cat"], ["dog", "dog"]]
    assert named(BARE, np.array([2, 0])).tolist() == [2, 0]


def test_a_row_has_the_labels_that_hold_in_their_order() -> None:
    holds = np.array([[True, False, True], [False, False, False]])
    assert held(NAMED, holds) == [["cat", "owl"], []]
    assert held(BARE, holds) == [[0, 2], []]
