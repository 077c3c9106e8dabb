"""What is read off a curve, by hand."""

from __future__ import annotations

import pytest

from benchmarks.active_learning.measures import labels_needed, mean_accuracy

LABELS = [20, 30, 40, 50, 60]


@pytest.mark.parametrize(
    ("accuracies", "needed"),
    [
        ([0.5, 0.94, 0.95, 0.96, 0.97], 40),
        ([0.96, 0.97, 0.98, 0.98, 0.98], 30),
        ([0.5, 0.6, 0.7, 0.95, 0.95], 50),
        ([0.5, 0.6, 0.7, 0.8, 0.99], None),
    ],
)
def test_labels_needed_is_the_first_median_of_three_that_is_high_enough(
    accuracies: list[float], needed: int | None
) -> None:
    assert labels_needed(LABELS, accuracies, 0.95) == needed


def test_one_lucky_training_is_not_enough_and_one_unlucky_one_is_forgiven() -> None:
    assert labels_needed(LABELS, [0.5, 0.99, 0.6, 0.7, 0.8], 0.95) is None
    assert labels_needed(LABELS, [0.5, 0.96, 0.6, 0.96, 0.97], 0.95) == 40


def test_a_curve_of_fewer_than_three_points_has_reached_nothing() -> None:
    assert labels_needed([20, 30], [0.99, 0.99], 0.95) is None


def test_the_mean_accuracy_leaves_out_what_no_strategy_chose() -> None:
    assert mean_accuracy([0.1, 0.5, 0.7]) == pytest.approx(0.6)
