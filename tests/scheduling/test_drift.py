"""Windows belong to one load of a version, and go with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from service.calibration.apply import OOD_VALUES
from service.metrics import Metrics
from service.registry.manifest import read_manifest
from service.registry.verified import VerifiedModel
from service.scheduling.drift import Drift
from service.types import ModelRef
from tests.calibration.test_artifact import CONDITIONS, calibration
from tests.repositories import write_model

LABELS = {"model": "one", "version": "1"}


@pytest.fixture
def model(tmp_path: Path) -> VerifiedModel:
    manifest = read_manifest(write_model(tmp_path, "one"))
    return VerifiedModel(ModelRef("one", 1), manifest, 1, 3, "float32", CONDITIONS, {})


def observe(drift: Drift, model: VerifiedModel, rows: int) -> None:
    values = np.full(rows, 0.15)
    drift.observe(model, calibration(), [{"variance": values, OOD_VALUES: values}])


def shown(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("candor_drift_rows", LABELS)


def test_a_reload_begins_anew_and_what_the_old_load_still_answers_is_not_added(
    model: VerifiedModel,
) -> None:
    metrics = Metrics()
    drift = Drift(metrics, 1000)
    again = dataclasses.replace(model, generation=model.generation + 1)
    observe(drift, model, 5)
    assert shown(metrics) == 5
    observe(drift, again, 2)
    observe(drift, model, 5)
    observe(drift, again, 1)
    assert shown(metrics) == 3


def test_of_a_version_that_is_gone_nothing_is_shown(model: VerifiedModel) -> None:
    metrics = Metrics()
    drift = Drift(metrics, 1000)
    observe(drift, model, 5)
    drift.keep([model.ref])
    assert shown(metrics) == 5
    drift.keep([])
    assert shown(metrics) is None
    assert b'version="1"' not in metrics.render()


def test_each_bin_of_the_calibration_shows_its_rows_and_those_of_an_old_load_are_gone(
    model: VerifiedModel,
) -> None:
    metrics = Metrics()
    drift = Drift(metrics, 1000)
    bins = len(calibration().references["variance"].counts)
    observe(drift, model, 5)

    def rows() -> list[float | None]:
        labels = {**LABELS, "measure": "variance"}
        return [
            metrics.registry.get_sample_value("candor_drift_bin_rows", {**labels, "bin": str(k)})
            for k in range(bins + 2)
        ]

    inside = rows()[1:-1]
    assert sum(filter(None, inside)) == 5
    assert None not in inside
    assert (rows()[0], rows()[-1]) == (None, None)
    again = dataclasses.replace(model, generation=model.generation + 1)
    drift.observe(again, calibration(), [{OOD_VALUES: np.full(2, 0.15)}])
    assert sum(filter(None, rows()[1:-1])) == 0
    drift.keep([])
    assert set(rows()) == {None}
