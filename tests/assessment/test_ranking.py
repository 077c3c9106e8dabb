"""Orders of rows: against scikit-learn, by hand, and in the ends of histograms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from service.assessment.measured import Contender
from service.assessment.ranking import (
    POINTS,
    histogram,
    out_of_distribution,
    ranking,
    roc,
)
from tests.assessment.synthetic import classifier


def test_the_roc_curve_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    # Rounded, so that there are ties.
    in_B, out_B = generator.normal(0, 1, 70).round(1), generator.normal(1, 1, 50).round(1)
    false_K, true_K = roc(in_B, out_B)
    truth = np.repeat([0, 1], [70, 50])
    expected = metrics.roc_curve(truth, np.concatenate([in_B, out_B]), drop_intermediate=False)
    assert false_K == pytest.approx(expected[0])
    assert true_K == pytest.approx(expected[1])


def test_a_curve_of_many_rows_keeps_its_ends_and_its_area() -> None:
    generator = np.random.default_rng(0)
    uncertainty_B = generator.random(5000)
    loss_B = (generator.random(5000) < uncertainty_B).astype(float)
    found = ranking("u", "U", uncertainty_B, loss_B)
    assert len(found.coverage) == POINTS
    assert found.coverage[0] == 1 / 5000
    assert found.coverage[-1] == 1
    assert [each.share for each in found.deferrals] == [0.01, 0.05, 0.1, 0.2]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        (np.linspace(0, 1, 200), False),
        (np.geomspace(1e-9, 1, 200), True),
        (np.concatenate([np.zeros(150), np.linspace(0, 1, 50)]), True),
        (np.full(20, 0.25), False),
        (np.zeros(20), False),
        (np.linspace(-3, 3, 200), False),
    ],
)
def test_every_row_is_in_a_bin(values: np.ndarray, logarithmic: bool) -> None:
    found = histogram("variance", values, values[:7])
    assert found.logarithmic is logarithmic
    assert sum(found.inside) == len(values)
    assert found.outside is not None
    assert sum(found.outside) == 7
    assert list(found.edges) == sorted(found.edges)


def test_bins_by_hand() -> None:
    found = histogram("variance", np.array([0.0, 0.04, 1.0]), np.array([3.0]))
    assert found.edges[1] == pytest.approx(0.1)
    assert found.inside[0] == 2
    assert found.inside[10] == 1 or found.inside[9] == 1
    assert found.outside is not None
    assert found.outside[-1] == 1


def test_scores_against_strangers() -> None:
    inside, _ = classifier(rows=200, seed=0)
    outside, _ = classifier(rows=100, seed=1, sharpness=0.2)
    found = out_of_distribution(inside, outside, [], "predictive_entropy", seed=0)
    by_name = {each.name: each for each in found.separations}
    confidence = by_name["deterministic_confidence"]
    truth = np.repeat([0, 1], [200, 100])
    doubt = 1 - np.concatenate(
        [each.fields["deterministic_confidence"] for each in (inside, outside)]
    )
    assert confidence.rates.auroc == pytest.approx(metrics.roc_auc_score(truth, doubt))
    # Passes are alike in and out; flat logits are not.
    assert found.recommendation.name == "deterministic_confidence"
    reported = found.recommendation.reported["deterministic_confidence"]
    assert (reported.rows_in, reported.rows_out) == (100, 50)


def test_contenders_against_strangers_stand_after_the_scores() -> None:
    inside, _ = classifier(rows=200, seed=0)
    outside, _ = classifier(rows=100, seed=1, sharpness=0.2)
    same = Contender("version_2", "Version 2", inside, outside)
    found = out_of_distribution(inside, outside, [same], "predictive_entropy", seed=0)
    assert found.separations[-1].title == "Version 2: predictive entropy"
    own = next(each for each in found.separations if each.name == "predictive_entropy")
    assert found.separations[-1].rates == own.rates
    assert "version_2" not in found.recommendation.reported
