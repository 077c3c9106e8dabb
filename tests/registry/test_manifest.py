"""model.toml: what it may say, and what is said about what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidInput, ModelBroken
from service.registry.manifest import read_manifest
from service.types import DEFAULT_MAX_PASSES, Masks, SamplePlan, Task

GOOD = 'task = "classification"\n{more}\n[input]\nshape = [3, -1]\n{input}\n'


def read(folder: Path, more: str = "", input: str = "", text: str | None = None):  # type: ignore[no-untyped-def] # noqa: A002
    content = GOOD.format(more=more, input=input) if text is None else text
    (folder / "model.toml").write_text(content)
    return read_manifest(folder)


def test_defaults(tmp_path: Path) -> None:
    manifest = read(tmp_path)
    assert manifest.task is Task.CLASSIFICATION
    assert manifest.input.shape == (3, -1)
    assert manifest.input.dtype == "float32"
    assert manifest.network == "network.py:build"
    assert manifest.plan_for() == SamplePlan(50, 0, Masks.SHARED)
    assert (manifest.labels, manifest.stochastic, manifest.description) == (None, (), "")


def test_the_numbers_of_a_row_may_have_names(tmp_path: Path) -> None:
    row = 'task = "binary"\n[input]\nshape = [2]\nfeatures = ["width", "height"]'
    assert read(tmp_path, text=row).input.features == ("width", "height")
    assert read(tmp_path).input.features is None


def test_a_request_overrides_what_it_names(tmp_path: Path) -> None:
    manifest = read(tmp_path, 'passes = 20\nseed = 7\nmasks = "independent"')
    assert manifest.plan_for() == SamplePlan(20, 7, Masks.INDEPENDENT)
    assert manifest.plan_for(passes=3, seed=0) == SamplePlan(3, 0, Masks.INDEPENDENT)
    assert manifest.plan_for(masks="shared") == SamplePlan(20, 7, Masks.SHARED)
    first, second = (manifest.plan_for(seed="random").seed for _ in range(2))
    assert first != second
    assert 0 <= first < 2**53


def test_a_tolerance_takes_the_place_of_passes(tmp_path: Path) -> None:
    manifest = read(tmp_path, "passes = 20")
    plan = SamplePlan(DEFAULT_MAX_PASSES, 0, Masks.SHARED, tolerance=0.1)
    assert manifest.plan_for(tolerance=0.1) == plan
    assert manifest.plan_for(tolerance=0.1, max_passes=7).passes == 7


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"passes": 50, "tolerance": 0.1}, "tolerance"),
        ({"passes": 50, "max_passes": 100}, "max_passes"),
        ({"max_passes": 100}, "max_passes"),
    ],
)
def test_fields_that_exclude_each_other_are_named(
    tmp_path: Path, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path).plan_for(**given)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("more", "input_more", "said"),
    [
        ("pases = 3", "", "`pases` is not a key that is known here; known are task"),
        ("", "name = 'x'", "`input.name` is not a key that is known here; known are shape"),
        ("passes = 1", "", "`passes`"),
        ('passes = "50"', "", "`passes`"),
        ('masks = "some"', "", "`masks`"),
        ('network = "network"', "", "`network`"),
        ('network = "../network.py;build"', "", "`network`"),
        ("labels = 3", "", "`labels`"),
        ("", 'dtype = "float31"', "known are float32"),
        ("", 'features = ["a", "b"]', "2 names are of rows [2], not [3, -1]"),
    ],
)
def test_what_it_may_not_say_is_named(
    tmp_path: Path, more: str, input_more: str, said: str
) -> None:
    with pytest.raises(ModelBroken) as caught:
        read(tmp_path, more, input_more)
    assert said in caught.value.message
    assert "model.toml" in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task = ", "cannot be read"),
        ("", "`task` is missing; `input` is missing"),
        ('task = "guessing"\n[input]\nshape = [1]', "`task`"),
        ('task = "binary"\n[input]\nshape = [0]', "cannot be 0"),
        ('task = "binary"\n[input]\nshape = [-2]', "`input.shape.0`"),
    ],
)
def test_what_is_no_manifest_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ModelBroken) as caught:
        read(tmp_path, text=text)
    assert said in caught.value.message


def test_a_missing_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match="is missing; a model folder needs one"):
        read_manifest(tmp_path)
