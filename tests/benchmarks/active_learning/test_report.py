"""Tables and figure of made-up curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.active_learning import figure, report
from benchmarks.active_learning.figure import Band
from benchmarks.active_learning.measures import labels_needed, mean_accuracy
from benchmarks.render import rendered


def run(strategy: str, seed: int, accuracies: list[float]) -> dict[str, Any]:
    labels = [*range(20, 20 + 10 * len(accuracies), 10)]
    return {
        "strategy": strategy,
        "seed": seed,
        "labels": labels,
        "accuracies": accuracies,
        "labels_needed": labels_needed(labels, accuracies),
        "mean_accuracy": mean_accuracy(accuracies),
        "different_pictures": labels[-1],
    }


@pytest.fixture
def result() -> dict[str, Any]:
    curves = {
        "random": [0.6, 0.7, 0.8, 0.9, 0.95, 0.95],
        "bald": [0.6, 0.8, 0.95, 0.96, 0.96, 0.96],
        "batch_bald": [0.6, 0.95, 0.96, 0.97, 0.97, 0.97],
    }
    runs = [run(name, seed, found) for name, found in curves.items() for seed in (0, 1)]
    pool = {"passes": 50, "test_passes": 20, "most": 70, "runs": runs}
    return {
        "machine": {"processor": "A processor"},
        "versions": {"torch": "2.0"},
        "date": "2026-01-01T00:00:00+00:00",
        "processes": 2,
        "seconds": 60.0,
        "pictures": 100,
        "test_pictures": 50,
        "batch": 10,
        "wanted_accuracy": 0.95,
        "pools": [
            {"name": "plain", "copies": 1, **pool},
            {"name": "tripled", "copies": 3, **pool},
        ],
    }


def test_tables_show_what_was_needed_and_who_is_ahead(result: dict[str, Any]) -> None:
    text = report.section(result)
    assert "| random | 60 | 60 | **60** | 100 % |" in text
    assert "| BALD | 40 | 40 | **40** | 67 % (aim 60 %) |" in text
    assert "| BatchBALD | 30 | 30 | **30** | 50 % |" in text
    assert "every picture 3 times" in text
    assert "| +6.6 (aim: not ahead) |" in text
    assert "| +10.4 |" in text


def test_a_curve_that_ended_too_low_is_a_bound(result: dict[str, Any]) -> None:
    slow = run("random", 0, [0.6, 0.7, 0.8, 0.9, 0.9, 0.9])
    result["pools"][0]["runs"][0] = slow
    assert "| random | over 70 | 60 | **over 65** | 100 % |" in report.section(result)


def test_an_aim_of_batch_bald_that_was_missed_is_shown(result: dict[str, Any]) -> None:
    for pool in result["pools"]:
        for place in (4, 5):
            pool["runs"][place] = run("batch_bald", place - 4, [0.6] * 6)
    text = report.section(result)
    assert "(aim: no more than BALD)" in text
    assert "(aim: ahead)" in text


def test_who_is_behind_random_is_shown_so(result: dict[str, Any]) -> None:
    for place in (2, 3):
        result["pools"][1]["runs"][place] = run("bald", place - 2, [0.6] * 6)
    assert report.ahead_of_random(result["pools"][1], "bald") == pytest.approx(-0.26)
    assert "−26.0" in report.section(result)


def test_the_readme_takes_the_section(result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "active_learning.json").write_text(json.dumps(result), encoding="utf-8")
    readme = rendered("<!-- active_learning -->\n<!-- /active_learning -->", tmp_path)
    assert report.section(result) in readme


def test_a_band_goes_as_far_as_all_seeds_and_holds_them() -> None:
    band = Band.of([run("bald", 0, [0.6, 0.7, 0.8]), run("bald", 1, [0.7, 0.9])])
    np.testing.assert_array_equal(band.labels, [20, 30])
    np.testing.assert_allclose(band.mean, [0.65, 0.8])
    np.testing.assert_allclose(band.low, [0.6, 0.7])
    np.testing.assert_allclose(band.high, [0.7, 0.9])


def test_the_same_curves_give_the_same_figure(result: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        figure.draw(result, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_bytes()
    assert drawn == (tmp_path / "two.svg").read_bytes()
    assert b"<svg" in drawn
