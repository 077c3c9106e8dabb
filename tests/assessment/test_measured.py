"""Measuring: the engine's own answers, whatever the batches, and bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.assessment.measured import ROWS_AT_ONCE, measure
from service.errors import CalibrationFailed, InvalidInput
from service.inference.prediction import Request
from service.registry.loading import LoadedModel
from tests.assessment.synthetic import load
from tests.repositories import write_model

ROWS = ROWS_AT_ONCE + 44

NOISY = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
"""

DENSE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(8, 3, 1))
"""


def inputs(rows: int = ROWS) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)


@pytest.fixture(scope="module", params=["shared", "independent"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    more = f'masks = "{request.param}"\npasses = 12'
    root = tmp_path_factory.mktemp("models")
    write_model(root, "mlp", more=more)
    return load(root, "mlp")


def test_batches_do_not_show(model: LoadedModel) -> None:
    x = inputs()
    found = measure(model, x, kept_numbers=12 * 3 * 20)
    names = ("mean", "std", "mutual_information", "variation_ratio", "variance", "samples")
    [whole] = model.predict([Request(torch.from_numpy(x), model.manifest.plan_for(), names)])
    assert whole is not None
    for name in ("mutual_information", "variation_ratio", "variance"):
        assert found.fields[name] == pytest.approx(whole[name], rel=1e-6, abs=1e-9)
    assert found.mean_BC == pytest.approx(whole["mean"], rel=1e-6)
    assert found.std_BC == pytest.approx(whole["std"], rel=1e-5)
    assert len(found.kept_rows) == 20
    assert (np.diff(found.kept_rows) > 0).all()
    samples = whole["samples"]
    assert samples is not None
    assert found.passes_TBC.shape == (12, 20, 3)
    assert found.passes_TBC == pytest.approx(samples[:, found.kept_rows], rel=1e-6)


def test_the_deterministic_pass_is_that_of_eval(model: LoadedModel) -> None:
    x = inputs()
    found = measure(model, x)
    plain = model.evaluate(torch.from_numpy(x))["mean"]
    assert plain is not None
    assert found.deterministic_BC == pytest.approx(plain, rel=1e-5)
    assert found.fields["deterministic_confidence"] == pytest.approx(plain.max(axis=1), rel=1e-5)
    assert len(found.kept_rows) == ROWS


def test_progress_ends_with_all_rows(model: LoadedModel) -> None:
    seen: list[tuple[int, int]] = []
    measure(model, inputs(), passes=2, progress=lambda done, rows: seen.append((done, rows)))
    assert seen == [(0, ROWS), (ROWS_AT_ONCE, ROWS), (ROWS, ROWS)]


def test_passes_are_as_asked_and_one_is_refused(model: LoadedModel) -> None:
    assert measure(model, inputs(3), passes=5).passes == 5
    with pytest.raises(InvalidInput, match="`passes` is 1; a spread over passes needs 2 or more"):
        measure(model, inputs(3), passes=1)


def test_predicted_noise_is_measured(tmp_path: Path) -> None:
    write_model(tmp_path, "noisy", NOISY, task="heteroscedastic_regression")
    model = load(tmp_path, "noisy")
    x = torch.from_numpy(inputs(7))
    found = measure(model, x.numpy())
    assert found.aleatoric_std_BC is not None
    assert found.deterministic_std_BC is not None
    outputs = model.sampler.deterministic_members(x)[0].double().numpy()
    assert found.deterministic_BC == pytest.approx(outputs[:, :2])
    assert found.deterministic_std_BC == pytest.approx(np.exp(outputs[:, 2:] / 2))
    assert "mutual_information" in found.fields
    assert "deterministic_confidence" not in found.fields


def test_dense_outputs_are_refused_in_words(tmp_path: Path) -> None:
    write_model(tmp_path, "dense", DENSE, shape="[1, 6, 6]")
    model = load(tmp_path, "dense")
    with pytest.raises(CalibrationFailed, match="one prediction for each place of a row"):
        measure(model, np.zeros((2, 1, 6, 6), dtype=np.float32))
