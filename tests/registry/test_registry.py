"""What is loaded, what is not, and what happens in between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import ModelBroken, ModelNotFound, ModelNotReady
from service.inference.devices import Resources
from service.registry.policy import Serving
from service.registry.registry import Registry, State
from tests.repositories import write_still


def registry_of(root: Path) -> Registry:
    """All models of a repository, loaded."""
    registry = Registry(root, Resources(torch.device("cpu"), memory_bytes=2**20))
    registry.scan()
    registry.load_all()
    return registry


def test_an_unloaded_model_is_listed_with_the_reason_and_serves_nobody(tmp_path: Path) -> None:
    write_still(tmp_path, "one")
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
    write_still(tmp_path, "one")
    registry = registry_of(tmp_path)
    for again in (registry.load, registry.reload):
        registry.unload("one")
        assert again("one").state is State.READY
        assert registry.resolve("one", None).ref.version == 1


def test_load_takes_a_folder_that_came_later_and_reload_does_not(tmp_path: Path) -> None:
    write_still(tmp_path, "b")
    registry = registry_of(tmp_path)
    write_still(tmp_path, "a")
    with pytest.raises(ModelNotFound, match="there are: b"):
        registry.reload("a")
    registry.load("a")
    assert [model.name for model in registry.models()] == ["a", "b"]
    assert registry.resolve("a", None).ref.name == "a"


def test_what_is_no_folder_cannot_be_loaded_or_unloaded(tmp_path: Path) -> None:
    write_still(tmp_path, "one")
    registry = registry_of(tmp_path)
    for function in (registry.load, registry.unload, registry.reload):
        for name in ("two", "../one", ""):
            with pytest.raises(ModelNotFound):
                function(name)


def test_a_model_that_is_broken_now_serves_as_it_was_loaded(tmp_path: Path) -> None:
    folder = write_still(tmp_path, "one")
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


def test_a_model_that_ends_programs_is_broken_and_no_other(tmp_path: Path) -> None:
    """As one whose network.py reads a command line, which nobody gave it."""
    folder = write_still(tmp_path, "a")
    write_still(tmp_path, "b")
    whole = (folder / "network.py").read_text()
    endings = (
        "raise SystemExit('no --width')",
        whole.replace("def build():", "def build():\n    raise SystemExit('no --width')"),
        whole.replace("nn.Sequential(", "Ends(")
        + "\n\nclass Ends(nn.Sequential):\n"
        + "    def forward(self, x):\n        raise SystemExit('no --width')\n",
    )
    for code in endings:
        (folder / "network.py").write_text(code)
        registry = registry_of(tmp_path)
        assert registry.loaded.is_set()
        version = registry.model("a").versions[1]
        assert version.state is State.FAILED
        assert "SystemExit: no --width" in version.reason
        assert registry.resolve("b", None).ref.name == "b"


def test_a_request_is_resolved_by_the_model_that_it_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload on another thread may take the version away that it was to get."""
    folder = write_still(tmp_path, "one")
    registry = registry_of(tmp_path)
    before = registry.resolve("one", None)
    pick = Serving.pick

    def reloaded_meanwhile(*given: Any) -> int | None:
        found = pick(*given)
        monkeypatch.setattr(Serving, "pick", pick)
        shutil.copytree(folder / "1", folder / "2")
        shutil.rmtree(folder / "1")
        registry.reload("one")
        return found

    monkeypatch.setattr(Serving, "pick", reloaded_meanwhile)
    assert registry.resolve("one", None, "key") is before
    assert registry.resolve("one", None, "key").ref.version == 2


def test_a_folder_that_has_no_version_now_serves_as_it_was_loaded(tmp_path: Path) -> None:
    folder = write_still(tmp_path, "one")
    registry = registry_of(tmp_path)
    before = registry.resolve("one", None)
    (folder / "1").rename(folder / "aside")
    with pytest.raises(ModelBroken, match="has no version"):
        registry.load("one")
    assert registry.resolve("one", None) is before
    assert "has no version" in registry.model("one").reason


def test_a_repository_that_cannot_be_read_leaves_what_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_still(tmp_path, "one")
    registry = registry_of(tmp_path)
    before = registry.resolve("one", None)

    def iterdir(path: Path) -> Iterator[Path]:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(ModelBroken, match="cannot be read"):
        registry.load("one")
    assert not registry.look()
    assert registry.resolve("one", None) is before


def test_a_folder_that_cannot_be_read_is_broken_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_still(tmp_path, "a")
    write_still(tmp_path, "b")
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == tmp_path / "a":
            raise PermissionError(path)
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    registry = registry_of(tmp_path)
    assert "cannot be read" in registry.model("a").reason
    assert registry.resolve("b", None).ref.name == "b"
