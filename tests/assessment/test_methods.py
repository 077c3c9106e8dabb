"""Methods that predict classes: against scikit-learn, and cross-fitting against peeking."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn import metrics

from service.assessment.measured import Contender
from service.assessment.methods import (
    DETERMINISTIC,
    MC_DROPOUT,
    WITH_TEMPERATURE,
    class_methods,
    halves,
    row_log_likelihood,
)
from service.calibration import reliability, temperature
from service.types import Task
from tests.assessment.synthetic import classifier, from_passes


def test_scores_are_those_of_scikit_learn() -> None:
    measured, labels_B = classifier()
    found = class_methods(measured, labels_B, given_temperature=1.7, contenders=[], seed=0)
    by_name = {method.name: method for method in found}
    scaled_BC = temperature.scale_mean(measured.mean_BC, 1.7, Task.CLASSIFICATION)
    for name, probs_BC in (
        (DETERMINISTIC, measured.deterministic_BC),
        (MC_DROPOUT, measured.mean_BC),
        (f"{MC_DROPOUT}{WITH_TEMPERATURE}", scaled_BC),
    ):
        assert by_name[name].log_likelihood == pytest.approx(-metrics.log_loss(labels_B, probs_BC))
        right = metrics.accuracy_score(labels_B, probs_BC.argmax(axis=1))
        assert by_name[name].accuracy == pytest.approx(right)
        brier = metrics.brier_score_loss(labels_B, probs_BC, scale_by_half=False)
        assert by_name[name].brier == pytest.approx(brier)
    assert by_name[f"{MC_DROPOUT}{WITH_TEMPERATURE}"].temperatures == (1.7,)


def test_a_temperature_mends_what_is_too_sure() -> None:
    measured, labels_B = classifier(rows=4000, sharpness=3.0)
    found = class_methods(measured, labels_B, given_temperature=None, contenders=[], seed=0)
    by_name = {method.name: method for method in found}
    plain, scaled = by_name[DETERMINISTIC], by_name[f"{DETERMINISTIC}{WITH_TEMPERATURE}"]
    # Logits are three times the true ones. A fit on 2000 rows is off by a few hundredths.
    assert scaled.temperatures == pytest.approx((3.0, 3.0), rel=0.1)
    assert scaled.gain.told_apart
    assert scaled.gain.mean > 0
    assert scaled.accuracy == plain.accuracy
    assert scaled.calibration["equal_mass"].debiased < plain.calibration["equal_mass"].debiased / 4


def test_no_row_has_a_part_in_the_temperature_that_it_is_judged_by() -> None:
    """Turning the labels of one half changes the temperature of the other half's rows alone."""
    measured, labels_B = classifier()
    (first, _), _ = halves(measured.rows, 0)
    turned_B = labels_B.copy()
    turned_B[first] = (turned_B[first] + 1) % 4
    temperatures = [
        class_methods(measured, each_B, given_temperature=None, contenders=[], seed=0)[
            1
        ].temperatures
        for each_B in (labels_B, turned_B)
    ]
    assert temperatures[0][0] != pytest.approx(temperatures[1][0])
    assert temperatures[0][1] == temperatures[1][1]


def test_halves_are_all_rows_once() -> None:
    (fit, judge), (other_fit, other_judge) = halves(11, 3)
    assert sorted([*fit, *judge]) == list(range(11))
    assert np.array_equal(fit, other_judge)
    assert np.array_equal(judge, other_fit)


def test_the_gain_is_a_paired_difference() -> None:
    measured, labels_B = classifier()
    mc = class_methods(measured, labels_B, given_temperature=None, contenders=[], seed=0)[2]
    rows = np.arange(len(labels_B))
    gap_B = np.log(measured.mean_BC[rows, labels_B] / measured.deterministic_BC[rows, labels_B])
    half = 1.959964 * gap_B.std(ddof=1) / np.sqrt(len(gap_B))
    assert mc.gain.mean == pytest.approx(gap_B.mean())
    assert mc.gain.interval == pytest.approx((gap_B.mean() - half, gap_B.mean() + half))


def test_a_binary_task_is_one_of_two_classes() -> None:
    generator = np.random.default_rng(0)
    yes_TB1 = generator.uniform(0.05, 0.95, (8, 300, 1))
    truth_B1 = (generator.random((300, 1)) < yes_TB1[0]).astype(np.float64)
    measured = from_passes(Task.BINARY, yes_TB1, yes_TB1[0])
    found = class_methods(measured, truth_B1, given_temperature=None, contenders=[], seed=0)
    assert found[0].log_likelihood == pytest.approx(-metrics.log_loss(truth_B1, yes_TB1[0]))
    assert found[2].accuracy == pytest.approx(
        metrics.accuracy_score(truth_B1, measured.mean_BC >= 0.5)
    )


def test_rows_add_up_to_the_log_likelihood_of_the_core() -> None:
    generator = np.random.default_rng(0)
    probs_BC = generator.random((50, 3))
    truth_BC = (generator.random((50, 3)) < 0.5).astype(np.float64)
    rows_B = row_log_likelihood(probs_BC, truth_BC, Task.MULTILABEL)
    whole = reliability.log_likelihood(probs_BC, truth_BC, Task.MULTILABEL)
    assert rows_B.mean() == pytest.approx(whole)


def test_further_methods_stand_beside() -> None:
    measured, labels_B = classifier()
    perfect_BC = np.eye(4)[labels_B] * 0.96 + 0.01
    other = dataclasses.replace(measured, mean_BC=perfect_BC)
    oracle = Contender("version_2", "Oracle", other, None)
    found = class_methods(measured, labels_B, given_temperature=None, contenders=[oracle], seed=0)
    assert [method.title for method in found[-2:]] == ["Oracle", "Oracle + temperature"]
    assert [method.name for method in found[-2:]] == ["version_2", "version_2_temperature"]
    assert found[-2].log_likelihood == pytest.approx(np.log(0.97))
    by_name = {method.name: method for method in found}
    assert by_name[MC_DROPOUT].over_mc_dropout.mean == 0
    gap = found[-2].log_likelihood - by_name[MC_DROPOUT].log_likelihood
    assert found[-2].over_mc_dropout.mean == pytest.approx(gap)
    assert found[-2].over_mc_dropout.told_apart
