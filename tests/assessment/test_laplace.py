"""A fitted last layer against its closed form; its draws are a version that is served."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from service.assessment.laplace import add_laplace_version, fit
from service.errors import CalibrationFailed, InvalidInput, ModelBroken
from service.inference.prediction import Request
from service.registry.manifest import read_manifest
from service.types import Masks, SamplePlan
from tests.e2e.test_cli import candor
from tests.registry.test_loading import load, network
from tests.repositories import write_members, write_model

DIGITS = Path(__file__).parents[2] / "models" / "digits"
needs_laplace = pytest.mark.skipif(
    importlib.util.find_spec("laplace") is None, reason="laplace-torch is an extra"
)


def digits(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of the digits model, some rows that it was trained on and some that it was not."""
    folder = tmp_path / "digits"
    shutil.copytree(DIGITS, folder)
    spec = importlib.util.spec_from_file_location("digits_train", DIGITS / "train.py")
    assert spec is not None
    assert spec.loader is not None
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    x, x_held_out, y, y_held_out = train.split()
    np.savez(tmp_path / "train.npz", x=x[:300], y=y[:300])
    np.savez(tmp_path / "held_out.npz", x=x_held_out, y=y_held_out)
    return folder, tmp_path / "train.npz", tmp_path / "held_out.npz"


@needs_laplace
def test_the_posterior_of_a_linear_regression_is_the_closed_form(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path,
        "line",
        network("nn.Identity(), nn.Linear(4, 1)"),
        task="regression",
        more="deterministic = true",
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.3 * torch.randn(
        60, 1, generator=generator
    )
    line = nn.Sequential(nn.Identity(), nn.Linear(4, 1))
    ones = torch.cat([x, torch.ones(60, 1)], dim=1)
    mode = torch.linalg.lstsq(ones, y).solution[:, 0]
    nn.utils.vector_to_parameters(mode, line.parameters())
    fitted = fit(line, x, y, read_manifest(folder), members=4000, seed=0)
    assert (fitted.layer, fitted.structure) == ("1", "full")
    assert fitted.noise_std == pytest.approx(float((ones @ mode - y[:, 0]).std()), rel=0.05)
    precision = ones.T @ ones / fitted.noise_std**2 + fitted.prior_precision * torch.eye(5)
    torch.testing.assert_close(
        fitted.draws.T.cov(), torch.linalg.inv(precision), rtol=0.1, atol=1e-4
    )
    torch.testing.assert_close(fitted.draws.mean(0), mode, rtol=0, atol=0.01)


@needs_laplace
def test_draws_of_the_last_layer_are_a_new_version(tmp_path: Path) -> None:
    folder, data, held_out = digits(tmp_path)
    number, fitted = add_laplace_version(folder, data, members=3, held_out=held_out)
    assert (number, fitted.layer) == (2, "head.4")
    assert not [entry for entry in folder.iterdir() if entry.name.startswith(".laplace")]
    note = json.loads((folder / "2" / "members.json").read_text())
    assert note["dropout"] is False
    assert (note["origin"]["version"], note["origin"]["rows"]) == (1, 300)
    model = load(folder, version=2)
    assert (model.sampler.members, model.manifest.passes) == (3, 3)
    assert model.sampler.dropping.sites == ()
    inputs = torch.from_numpy(np.load(held_out)["x"])
    request = Request(inputs, SamplePlan(3, 0, Masks.SHARED), ["samples"])
    [answer] = model.predict([request])
    found: Any = answer
    samples = found["samples"]
    assert np.abs(samples[0] - samples[1]).max() > 0.01
    mean_of_truth = samples.mean(0)[np.arange(len(inputs)), np.load(held_out)["y"]]
    assert -np.log(mean_of_truth).mean() == pytest.approx(fitted.draws_nll, rel=1e-3)
    assert note["origin"]["held_out"] == "held_out.npz"
    assert note["origin"]["draws_nll"] == fitted.draws_nll < 0.1


@needs_laplace
def test_without_rows_held_out_it_shows_that_a_perfect_fit_makes_poor_draws(tmp_path: Path) -> None:
    folder, data, _ = digits(tmp_path)
    _, fitted = add_laplace_version(folder, data, members=20)
    assert fitted.network_nll < 0.05
    assert fitted.draws_nll > fitted.network_nll + 0.1


@needs_laplace
def test_the_same_seed_draws_the_same_and_dropout_may_stay(tmp_path: Path) -> None:
    folder, data, _ = digits(tmp_path)
    draws = [
        add_laplace_version(folder, data, version=1, members=2, seed=seed, dropout=True)[1].draws
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert len(load(folder, version=3).sampler.dropping.sites) == 3
    with pytest.raises(ModelBroken, match="4 holds members; a posterior is fitted around one"):
        add_laplace_version(folder, data, members=2)


@needs_laplace
@pytest.mark.parametrize(
    ("layers", "task", "said"),
    [
        ("nn.Linear(4, 1), nn.Dropout(0.5)", "binary", "none for binary"),
        ("nn.Dropout(0.5), nn.Linear(4, 3), nn.Tanh()", "classification", "no last layer"),
        ("nn.Dropout(0.5), nn.Unflatten(1, (2, 2))", "classification", "one vector a row"),
    ],
)
def test_what_laplace_cannot_serve_is_said(
    tmp_path: Path, layers: str, task: str, said: str
) -> None:
    folder = write_model(tmp_path, "odd", network(layers), task=task)
    np.savez(tmp_path / "data.npz", x=np.ones((4, 4)), y=np.zeros(4))
    with pytest.raises(ModelBroken, match=said):
        add_laplace_version(folder, tmp_path / "data.npz", members=2)
    assert [entry.name for entry in folder.iterdir() if entry.is_dir()] == ["1"]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.ones((4, 4))}, "no array y"),
        ({"x": np.ones((4, 5)), "y": np.zeros(4)}, r"has the shape \[4, 5\]"),
        ({"x": np.ones((4, 4)), "y": np.zeros(3)}, "`y` has 3 rows and `x` 4"),
        ({"x": np.ones((4, 4)), "y": np.full(4, 0.5)}, "whole numbers from 0"),
        ({"x": np.ones((4, 4)), "y": np.full(4, 3)}, "classes from 0 to 2"),
    ],
)
def test_data_that_do_not_fit_are_told(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    folder = write_model(tmp_path, "mine")
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises((InvalidInput, CalibrationFailed), match=said):
        add_laplace_version(folder, tmp_path / "data.npz", members=2)


def test_a_note_that_is_none_is_told(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mine")
    write_members(folder, 2)
    (folder / "1" / "members.json").write_text('{"dropout": "no"}')
    with pytest.raises(ModelBroken, match=r"members\.json cannot be read"):
        load(folder)


@needs_laplace
def test_the_command_adds_a_version_and_says_what_it_is_worth(tmp_path: Path) -> None:
    folder, data, held_out = digits(tmp_path)
    files = ("--data", str(data), "--held-out", str(held_out))
    done = candor("laplace", "digits", *files, "--members", "3", "--models", str(tmp_path))
    assert f"wrote {folder / '2'}: 3 draws of head.4" in done.stderr
    assert "negative log-likelihood of the held-out rows" in done.stderr
    assert "warning" not in done.stderr
    assert load(folder, version=2).sampler.members == 3


def test_the_command_says_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    write_model(tmp_path, "mine")
    np.savez(tmp_path / "data.npz", x=np.ones((4, 4)))
    more = ("--data", str(tmp_path / "data.npz"), "--models", str(tmp_path))
    done = candor("laplace", "mine", *more, code=1)
    assert "has no array y [N]" in done.stderr
    assert done.stderr.strip().count("\n") == 0
