"""What is loaded, what is not, and what happens in between."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from service.errors import ModelBroken, ModelNotFound, ModelNotReady
from service.inference.devices import Resources
from service.registry.registry import Registry, State
from tests.repositories import write_model


def registry_of(root: Path) -> Registry:
    """All models of a repository, loaded."""
    registry = Registry(root, Resources(torch.device("cpu"), memory_bytes=2**20))
    registry.scan()
    registry.load_all()
    return registry


def test_an_unloaded_model_is_listed_with_the_reason_and_serves_nobody(tmp_path: Path) -> None:
    write_model(tmp_path, "one")
    registry = registry_of(tmp_path)
    model = registry.unload("one")
    assert registry.models() == [model]
    assert model.state is State.UNLOADED
    assert "/models/one/load" in model.versions[1].reason
    with pytest.raises(ModelNotReady, match="unloaded on request"):
        registry.resolve("one", None)
    with pytest.raises(ModelNotReady, match="unloaded on request"):
        registry.resolve("one", 1)


def test_an_unloaded_model_is_loaded_by_load_and_by_reload(tmp_path: Path) -> None:
    write_model(tmp_path, "one")
    registry = registry_of(tmp_path)
    for again in (registry.load, registry.reload):
        registry.unload("one")
        assert again("one").state is State.READY
        assert registry.resolve("one", None).ref.version == 1


def test_load_takes_a_folder_that_came_later_and_reload_does_not(tmp_path: Path) -> None:
    write_model(tmp_path, "b")
    registry = registry_of(tmp_path)
    write_model(tmp_path, "a")
    with pytest.raises(ModelNotFound, match="there are: b"):
        registry.reload("a")
    registry.load("a")
    assert [model.name for model in registry.models()] == ["a", "b"]
    assert registry.resolve("a", None).ref.name == "a"


def test_what_is_no_folder_cannot_be_loaded_or_unloaded(tmp_path: Path) -> None:
    write_model(tmp_path, "one")
    registry = registry_of(tmp_path)
    for function in (registry.load, registry.unload, registry.reload):
        for name in ("two", "../one", ""):
            with pytest.raises(ModelNotFound):
                function(name)


def test_a_model_that_is_broken_now_serves_as_it_was_loaded(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "one")
    registry = registry_of(tmp_path)
    before = registry.resolve("one", None)
    (folder / "model.toml").write_text("task = 1")
    with pytest.raises(ModelBroken, match=r"model\.toml"):
        registry.load("one")
    assert registry.resolve("one", None) is before
    shutil.rmtree(folder)
    with pytest.raises(ModelNotFound, match="is gone"):
        registry.load("one")
    assert registry.resolve("one", None) is before
