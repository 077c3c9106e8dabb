"""Sentences: they follow the numbers, also where those speak against MC dropout."""

from __future__ import annotations

import dataclasses

import numpy as np

from service.assessment import words
from service.assessment.measured import Contender, Measured
from tests.assessment.synthetic import classifier, regressor, report_of


def blunt(measured: Measured) -> Measured:
    """MC dropout that knows next to nothing."""
    flat_BC = 0.9 / measured.mean_BC.shape[1] + 0.1 * measured.mean_BC
    return dataclasses.replace(measured, mean_BC=flat_BC)


def test_mc_dropout_is_called_better_worse_or_neither_by_its_interval() -> None:
    measured, labels_B = classifier(rows=1000, sharpness=4.0)
    assert "are better than those of" in words.verdict(report_of(measured, labels_B))[0]
    measured, labels_B = classifier(rows=1000)
    worse = words.verdict(report_of(blunt(measured), labels_B))
    assert "are worse than those of" in worse[0]
    assert "nats" in worse[0]
    assert " less, at " in worse[1]
    same = dataclasses.replace(measured, mean_BC=measured.deterministic_BC)
    assert "no better and no worse" in words.verdict(report_of(same, labels_B))[0]


def test_a_regression_is_judged_by_its_interval_too() -> None:
    measured, targets_BC = regressor(rows=400)
    same = dataclasses.replace(
        measured, passes_TBC=np.repeat(measured.mean_BC[None], 30, axis=0).astype(np.float32)
    )
    told = words.verdict(report_of(same, targets_BC))[0]
    assert "cannot be told apart from that of the deterministic prediction" in told
    assert "noise of one size" in told
    off = dataclasses.replace(measured, deterministic_BC=measured.deterministic_BC + 5)
    assert "is worse than" not in words.verdict(report_of(off, targets_BC))[0]
    worse = dataclasses.replace(same, passes_TBC=same.passes_TBC + 5 * np.sign(same.passes_TBC))
    assert "is worse than that" in words.verdict(report_of(worse, targets_BC))[0]


def test_deferral_is_counted_in_rows_and_shares() -> None:
    measured, labels_B = classifier(rows=400)
    report = report_of(measured, labels_B)
    [ranking] = [each for each in report.rankings if each.name == "predictive_entropy"]
    avoided = ranking.deferrals[2].avoided
    first = words.deferral(report)[0]
    assert f"(40 rows, by predictive entropy) removes {100 * avoided:.0f} % of the errors" in first


def test_without_errors_there_is_nothing_to_defer() -> None:
    measured, _ = classifier(rows=100)
    report = report_of(measured, measured.mean_BC.argmax(axis=1))
    assert "makes no error on these rows" in words.deferral(report)[0]


def test_strangers_that_look_familiar_are_not_hidden() -> None:
    inside, labels_B = classifier(rows=300, sharpness=0.2)
    outside, _ = classifier(rows=300, seed=1, sharpness=9.0)
    report = report_of(inside, labels_B, strangers=outside)
    assert report.detection is not None
    found = " ".join(words.detection(report.detection))
    assert found.startswith("No score tells the rows from the other data well")
    assert "Beware: by " in found
    assert "deterministic confidence the strangers look less uncertain" in found


def test_a_detection_that_needs_no_passes_is_said_to() -> None:
    inside, labels_B = classifier(rows=300)
    outside, _ = classifier(rows=300, seed=1, sharpness=0.1)
    report = report_of(inside, labels_B, strangers=outside)
    assert report.detection is not None
    assert "MC dropout does not pay here" in " ".join(words.detection(report.detection))


def test_few_passes_are_said_to_be_few() -> None:
    measured, targets_BC = regressor(rows=100, passes=2)
    first, second = words.settling(report_of(measured, targets_BC).settling, 2)
    assert "At 2 passes the predictions still change" in first
    assert "standard deviation about " in second


def test_a_spread_is_no_interval() -> None:
    measured, targets_BC = regressor(rows=400, noise=2.0)
    report = report_of(measured, targets_BC)
    alone = report.regression_methods[2].coverage[-1].observed
    assert alone < 0.95
    assert f"its 95 % intervals hold {100 * alone:.0f} % of the true" in words.methods(report)[1]


def test_a_given_temperature_is_used() -> None:
    measured, labels_B = classifier()
    report = report_of(measured, labels_B, temperature=1.25)
    assert "MC dropout + temperature 1.25" in words.methods(report)[0]
    assert np.isclose(report.class_methods[3].temperatures[0], 1.25)


def test_a_further_version_is_compared_in_a_sentence() -> None:
    measured, labels_B = classifier(rows=300)
    same = Contender("version_9", "Version 9 (5 members)", measured, None)
    report = report_of(measured, labels_B, contenders=[same])
    [sentence] = words.contenders(report)
    assert sentence in words.verdict(report)
    assert sentence.startswith("Version 9 (5 members) cannot be told apart from MC dropout of ver")
    assert "+0.0000 nats a row" in sentence


def test_a_further_version_of_a_regression_is_compared_in_a_sentence() -> None:
    measured, targets_BC = regressor(rows=200, noise=0.3)
    worse, _ = regressor(rows=200, seed=1)
    report = report_of(
        measured, targets_BC, contenders=[Contender("version_2", "Version 2", worse, None)]
    )
    [sentence] = words.contenders(report)
    assert sentence.startswith("Version 2 is worse than MC dropout of version 3")
