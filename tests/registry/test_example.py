"""The example that a model's folder may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import ModelBroken, ModelNotFound
from service.registry.example import example_inputs


def folder(root: Path, content: str | None = None) -> Path:
    (root / "models" / "m").mkdir(parents=True)
    if content is not None:
        (root / "models" / "m" / "example.json").write_text(content)
    return root / "models"


def test_its_rows_are_those_of_the_body(tmp_path: Path) -> None:
    root = folder(tmp_path, '{"model": "x", "inputs": [[1], [2]]}')
    assert example_inputs(root, "m") == [[1], [2]]


def test_a_model_may_have_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="put a body of POST /predict into"):
        example_inputs(folder(tmp_path), "m")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"inputs": []}', '{"inputs": 3}'])
def test_what_is_no_body_is_said(tmp_path: Path, content: str) -> None:
    with pytest.raises(ModelBroken, match=r"example\.json"):
        example_inputs(folder(tmp_path, content), "m")


def test_a_link_out_of_the_repository_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"inputs": [1]}')
    root = folder(tmp_path)
    (root / "m" / "example.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ModelBroken, match="leads out of"):
        example_inputs(root, "m")
