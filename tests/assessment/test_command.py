"""`candor report`, as a user types it, on the shipped models."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_model
from sklearn.datasets import load_digits

from service.registry import reports
from service.registry.reports import Numbers
from service.types import ModelRef
from tests.assessment.models import load
from tests.e2e.servers import SHIPPED
from tests.e2e.test_cli import candor
from tests.repositories import build_network, write_members, write_model

MODELS = ("--models", str(SHIPPED))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, and beside them the same turned upside down as strangers."""
    folder = tmp_path_factory.mktemp("digits")
    found = load_digits()
    images, classes = found.images[::6, None], found.target[::6]
    np.savez(folder / "test.npz", x=images, y=classes)
    np.savez(folder / "other.npz", x=images[:100, :, ::-1])
    return folder


def test_digits_against_strangers(digits: Path, tmp_path: Path) -> None:
    page = tmp_path / "doubt.html"
    data = ("--data", str(digits / "test.npz"), "--ood", str(digits / "other.npz"))
    done = candor("report", "digits", *data, "-o", str(page), "--passes", "10", *MODELS)
    assert "MC dropout" in done.stdout
    assert str(page) in done.stderr
    numbers = json.loads(page.with_suffix(".json").read_bytes())
    assert (numbers["model"], numbers["version"], numbers["passes"]) == ("digits", 1, 10)
    assert numbers["data"]["rows"] == 300
    assert [method["name"] for method in numbers["class_methods"]] == [
        "deterministic",
        "deterministic_temperature",
        "mc_dropout",
        "mc_dropout_temperature",
    ]
    assert all(method["accuracy"] > 0.95 for method in numbers["class_methods"])
    auroc = {each["name"]: each["rates"]["auroc"] for each in numbers["detection"]["separations"]}
    assert auroc["predictive_entropy"] > 0.8
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 24
    assert text.count("<svg") == 4 + 1 + 6 + 1 + 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["doubt.html", "doubt.json"]


def test_a_regression_over_one_input(tmp_path: Path) -> None:
    years = np.linspace(1960, 2000, 80)[:, None]
    np.savez(tmp_path / "test.npz", x=years, y=315 + 1.4 * (years[:, 0] - 1960))
    page = tmp_path / "co2.html"
    data = ("--data", str(tmp_path / "test.npz"), "-o", str(page))
    candor("report", "co2", *data, "--passes", "10", *MODELS)
    numbers = json.loads(page.with_suffix(".json").read_bytes())
    assert len(numbers["fit"]["x"]) == 80
    read = Numbers.model_validate(numbers).regression_methods
    assert all(len(method.root_mean_squared_error or ()) == 1 for method in read)
    assert [each.level for each in read[0].coverage or ()] == [0.5, 0.8, 0.9, 0.95]
    assert numbers["detection"] is None
    assert "prediction interval" in page.read_text()


def test_without_a_place_it_stands_beside_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "models"
    folder = write_model(root, "mlp", more="passes = 10")
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 4)), generator.integers(0, 3, 60)
    np.savez(tmp_path / "test.npz", x=x, y=y)
    np.savez(tmp_path / "other.npz", x=3 * x)
    data = ("--data", "test.npz", "--ood", "other.npz")
    done = candor("report", "mlp", *data)
    assert "a running server lists it at once" in done.stderr
    found, warnings = reports.reports_of(root, ModelRef("mlp", 1))
    assert not warnings
    [report] = found
    assert report.has_page
    numbers = report.numbers
    assert numbers is not None
    assert f"- {numbers.verdict[0]}" in done.stdout
    assert abs((datetime.now(UTC) - report.created).total_seconds()) < 3600
    assert numbers.weights == load(folder).conditions.weights
    save_model(build_network(folder, seed=7), str(folder / "1" / "weights.safetensors"))
    assert numbers.weights != load(folder).conditions.weights
    assert numbers.detection is not None
    assert {each.name for each in numbers.detection.separations} >= {"variance", numbers.headline}
    assert numbers.headline in {each.name for each in numbers.rankings}
    assert "equal_mass" in numbers.class_methods[0].calibration

    candor("report", "mlp", *data, "--name", "again")
    assert {each.name for each in reports.reports_of(root, ModelRef("mlp", 1))[0]} == {
        report.name,
        "again",
    }
    # On a disk that cannot be written to it goes where it went before there were such folders.
    shutil.rmtree(folder / "1" / "reports")
    (folder / "1" / "reports").touch()
    done = candor("report", "mlp", *data)
    assert "cannot be written to: the report goes to report.html" in done.stderr
    assert "server lists it" not in done.stderr
    assert json.loads((tmp_path / "report.json").read_bytes())["model"] == "mlp"


def test_an_ensemble_stands_beside_the_version_it_is_compared_with(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "mlp", more="passes = 10")
    write_members(folder, 3, version=2)
    note = {"dropout": False, "origin": {"method": "seeds"}}
    (folder / "2" / "members.json").write_text(json.dumps(note))
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 4)), generator.integers(0, 3, 60)
    np.savez(tmp_path / "test.npz", x=x, y=y)
    np.savez(tmp_path / "other.npz", x=3 * x)
    page = tmp_path / "report.html"
    data = ("--data", str(tmp_path / "test.npz"), "--ood", str(tmp_path / "other.npz"))
    more = ("--version", "1", "--with", "2", "--passes", "20", "-o", str(page))
    models = ("--models", str(tmp_path / "models"))
    done = candor("report", "mlp", *data, *more, *models)
    assert "Version 2 (3 seeds)" in done.stdout
    numbers = json.loads(page.with_suffix(".json").read_bytes())
    assert numbers["passes"] == 20
    # Nothing drops in the members: one pass of each says all.
    assert [(each["name"], each["passes"]) for each in numbers["contenders"]] == [("version_2", 3)]
    for section in ("class_methods", "rankings"):
        assert "version_2" in [each["name"] for each in numbers[section]]
    assert numbers["detection"]["separations"][-1]["title"] == (
        "Version 2 (3 seeds): predictive entropy"
    )
    assert page.read_text().count("Version 2 (3 seeds)") > 3

    twice = candor("report", "mlp", *data, "--with", "2", *models, code=1)
    assert "version 2 stands twice" in twice.stderr


def test_what_is_wrong_is_one_line(digits: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "models", "mlp")
    test = digits / "test.npz"
    np.savez(tmp_path / "many.npz", x=np.zeros((30, 1, 8, 8)), y=np.full(30, 11))
    np.savez(tmp_path / "few.npz", x=np.zeros((5, 1, 8, 8)), y=np.arange(5))
    for words, sentence in (
        (("nobody", "--data", str(test)), "nobody"),
        (("digits", "--data", str(tmp_path / "many.npz")), "it holds 11 in row 0"),
        (("digits", "--data", str(tmp_path / "few.npz")), "at least 20 rows"),
        (("digits", "--data", str(test), "--passes", "1"), "`passes` is 1"),
        (("digits", "--data", str(test), "--version", "9"), "9"),
        (("digits", "--data", str(test), "-o", "x.json"), "--out names the page"),
        (("digits", "--data", str(test), "-o", "no/where.html"), "no is no folder"),
        (("digits", "--data", str(test), "--ood", str(tmp_path / "none.npz")), "cannot be read"),
    ):
        done = candor("report", *words, *MODELS, code=1)
        assert sentence in done.stderr
        assert done.stderr.strip().count("\n") == 0, done.stderr
