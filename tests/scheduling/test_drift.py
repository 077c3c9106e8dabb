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
