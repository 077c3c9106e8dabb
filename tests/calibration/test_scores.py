"""Scores, their combinations, and where a value stands among quantiles."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.calibration import scores
from service.calibration.scores import SCORES, FittedScore, fit_score, position, score_values
from service.errors import CalibrationFailed, TooFewRows
from service.types import Task

PAIR = "predictive_entropy+mutual_information"


def fields(seed: int, rows: int = 400) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.gamma(2.0, size=rows) / 20 for name in SCORES}


def test_single_scores_are_their_fields_and_confidence_counts_backwards() -> None:
    measured = fields(0)
    for name in SCORES:
        expected = measured[name] if name != "deterministic_confidence" else 1 - measured[name]
        values = score_values(fit_score(name, measured), measured)
        np.testing.assert_array_equal(values, expected)
    assert fit_score("variance", measured).references == {}


def test_a_combination_is_the_mean_of_the_empirical_distribution_functions() -> None:
    calibration, new = fields(1), fields(2)
    values = score_values(fit_score(PAIR, calibration), new)
    expected = np.mean(
        [stats.ecdf(calibration[name]).cdf.evaluate(new[name]) for name in PAIR.split("+")], axis=0
    )
    # Interpolated between n order statistics, at levels that are off by 1 / n at the most.
    np.testing.assert_allclose(values, expected, rtol=0, atol=1 / 400 + 1e-12)


def test_a_reference_stays_small_and_survives_json() -> None:
    calibration, new = fields(3, rows=5000), fields(4)
    fitted = fit_score(PAIR, calibration)
    assert {len(quantiles) for quantiles in fitted.references.values()} == {1001}
    read = FittedScore(**json.loads(json.dumps(dataclasses.asdict(fitted))))
    np.testing.assert_array_equal(score_values(read, new), score_values(fitted, new))
    for name in PAIR.split("+"):
        exact = stats.ecdf(calibration[name]).cdf.evaluate(new[name])
        close = position(new[name], fitted.references[name])
        # Between two quantiles lies one part in 1000 of the rows.
        np.testing.assert_allclose(close, exact, rtol=0, atol=1 / 1000 + 1 / 5000)


def test_a_value_that_many_rows_share_stands_in_their_middle() -> None:
    quantiles = [0.0, 0.0, 0.0, 0.5, 1.0]
    found = position(np.array([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0]), quantiles)
    assert found.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert position(np.array([-1.0, 3.0, 4.0]), [3.0]).tolist() == [0.0, 0.5, 1.0]


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    st.lists(st.floats(-10, 10), min_size=1, max_size=30),
)
def test_positions_are_between_zero_and_one_and_keep_the_order(
    reference: list[int], values: list[float]
) -> None:
    quantiles = sorted(float(value) for value in reference)
    found = position(np.sort(np.array(values)), quantiles)
    assert ((found >= 0) & (found <= 1)).all()
    # Between two quantiles it is rounded twice.
    assert (np.diff(found) >= -2 * np.finfo(np.float64).eps).all()


def test_confidence_is_of_the_label() -> None:
    probs = [[0.2, 0.8], [0.6, 0.4]]
    assert scores.confidence(probs, Task.CLASSIFICATION).tolist() == [0.8, 0.6]
    assert scores.confidence(probs, Task.MULTILABEL).tolist() == pytest.approx([0.8, 0.6])
    assert scores.confidence([[0.1], [0.7]], Task.BINARY).tolist() == [0.9, 0.7]


def test_scores_that_are_not_there_are_refused_with_those_that_are() -> None:
    measured = fields(5)
    with pytest.raises(CalibrationFailed, match=r"no score 'energy'; there are variance, pred"):
        fit_score("variance+energy", measured)
    with pytest.raises(CalibrationFailed, match="twice"):
        fit_score("variance+variance", measured)
    del measured["variance"]
    assert scores.available(measured) == tuple(SCORES)[1:]
    with pytest.raises(CalibrationFailed, match="needs the field `variance`; there are predict"):
        score_values(fit_score("variance", measured), measured)
    with pytest.raises(CalibrationFailed, match=r"`mutual_information` .* nan at \[1\]"):
        fit_score(PAIR, measured | {"mutual_information": np.array([0.0, np.nan])})
    with pytest.raises(TooFewRows, match="at least 1 rows"):
        fit_score(PAIR, dict.fromkeys(SCORES, np.zeros(0)))
