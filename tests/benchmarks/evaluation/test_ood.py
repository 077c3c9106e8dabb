"""Scores that find what is unlike the training data, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evaluation import ood


def test_detection_of_a_score_that_parts_them_is_perfect() -> None:
    found = ood.detection(np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    assert found == {"auroc": 1.0, "aupr": 1.0, "fpr95": 0.0}


def test_detection_counts_pairs_and_false_alarms() -> None:
    # Of six pairs four are in order; to find all of the outside rows two of three are flagged.
    found = ood.detection(np.array([0.1, 0.3, 0.5]), np.array([0.2, 0.6]))
    assert found["auroc"] == pytest.approx(4 / 6)
    assert found["fpr95"] == pytest.approx(2 / 3)


def test_a_probability_of_almost_one_keeps_its_digits() -> None:
    probs_BC = np.array([[1.0, 1e-12, 2e-12], [0.2, 0.5, 0.3]], dtype=np.float32)
    np.testing.assert_allclose(ood.unsure(probs_BC), [3e-12, 0.5], rtol=1e-6)
