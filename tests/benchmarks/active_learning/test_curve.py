"""A curve from its start to its end, without any training, and the command without data."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from benchmarks.active_learning import __main__ as command
from benchmarks.active_learning import curve
from benchmarks.active_learning.curve import Course
from benchmarks.active_learning.pools import draw
from benchmarks.evaluation.data import Array, MissingData, check

COURSE = Course(least=40, most=60)
Y = np.arange(200) % 10
X = np.random.default_rng(0).random((200, 1, 4, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("accuracies", "ended"),
    [
        ([0.96, 0.96], False),
        ([0.96, 0.96, 0.96], True),
        ([0.5, 0.5, 0.5], False),
        ([0.5, 0.5, 0.96, 0.96], True),
        ([0.5, 0.5, 0.5, 0.5, 0.5], True),
    ],
)
def test_a_curve_ends_where_all_is_known_or_its_labels_are_spent(
    accuracies: list[float], ended: bool
) -> None:
    labels = [20, 30, 40, 50, 60][: len(accuracies)]
    assert curve.ended(labels, accuracies, COURSE) is ended


class _Engine:
    """Answers of its own: every picture is the more doubtful the further back it stands."""

    def __init__(self, *_: object, like: _Engine | None = None) -> None:
        pass

    def sample(
        self, inputs: Tensor, fields: Collection[str], seed: int, passes: int = 5
    ) -> dict[str, Array]:
        rows = len(inputs)
        return {
            "label": np.zeros(rows, np.int64),
            "mutual_information": np.arange(rows, dtype=float),
            "samples": np.full((passes, rows, 10), 0.1, np.float32),
        }


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Labels of every training."""
    found: list[list[int]] = []

    def train(x: Tensor, y: Tensor, seed: int, steps: int) -> nn.Sequential:
        found.append(y.tolist())
        return nn.Sequential()

    monkeypatch.setattr(curve, "train", train)
    monkeypatch.setattr(curve, "Engine", _Engine)
    return found


def run(strategy: str, copies: int = 1) -> dict[str, Any]:
    pool = draw(X, Y, rows=100, each=2, copies=copies, seed=0)
    return curve.curve(pool, (X, Y), strategy, 0, COURSE, lambda _: None)


@pytest.mark.parametrize("strategy", command.STRATEGIES)
def test_every_batch_is_of_ten_points_that_are_not_known_yet(
    strategy: str, trained: list[list[int]]
) -> None:
    found = run(strategy)
    assert found["labels"] == [len(y) for y in trained] == [20, 30, 40, 50, 60]
    assert found["different_pictures"] == 60
    assert found["accuracies"] == [0.1] * 5


def test_all_strategies_start_with_the_same_labels(trained: list[list[int]]) -> None:
    for strategy in command.STRATEGIES:
        run(strategy)
    starts = [y for y in trained if len(y) == 20]
    assert starts == [starts[0]] * 3
    assert sorted(starts[0]) == sorted([*range(10)] * 2)


def test_a_score_of_each_point_alone_asks_for_copies(trained: list[list[int]]) -> None:
    assert run("bald", copies=3)["different_pictures"] < 20 + 40 / 2


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["active_learning", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"lacks 2 of the 2 files") as caught:
        command.main()
    assert "mnist_train20k.npz: MNIST" in str(caught.value)
    assert "sonar" not in str(caught.value)


def test_files_that_are_not_asked_for_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "mnist_test5k.npz").touch()
    check(tmp_path, ["mnist_test5k.npz"])
    with pytest.raises(MissingData):
        check(tmp_path)
