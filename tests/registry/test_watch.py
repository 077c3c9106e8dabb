"""What changed in a repository is taken up once it is over, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from service.errors import ModelNotFound
from service.inference.devices import Resources
from service.registry.registry import Registry, State
from service.registry.watch import signature
from service.types import ModelRef
from tests.reports import write_report
from tests.repositories import build_network, write_still


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_still(tmp_path, "one")
    return tmp_path


@pytest.fixture
def registry(root: Path) -> Registry:
    registry = Registry(root, Resources(torch.device("cpu"), memory_bytes=2**20))
    registry.scan()
    registry.load_all()
    registry.look()
    return registry


def add_version(folder: Path, number: int) -> Path:
    """Weights of another seed."""
    weights = folder / str(number) / "weights.safetensors"
    weights.parent.mkdir(exist_ok=True)
    safetensors.torch.save_model(build_network(folder, seed=number), str(weights))
    return weights


def generations(registry: Registry, name: str) -> dict[int, int]:
    """Which load each version that serves is."""
    versions = registry.model(name).versions.values()
    return {v.number: v.model.generation for v in versions if v.model is not None}


def test_a_look_at_what_is_as_it_was_changes_nothing(registry: Registry) -> None:
    before = generations(registry, "one")
    assert not registry.look()
    assert generations(registry, "one") == before


def test_a_new_folder_is_loaded_once_it_was_the_same_at_two_looks(
    registry: Registry, root: Path
) -> None:
    write_still(root, "two")
    assert not registry.look()
    with pytest.raises(ModelNotFound):
        registry.model("two")
    assert registry.look()
    assert registry.resolve("two", None).ref.version == 1


def test_a_new_version_serves_and_the_old_one_is_not_loaded_again(
    registry: Registry, root: Path
) -> None:
    before = generations(registry, "one")
    add_version(root / "one", 2)
    registry.look()
    assert registry.look()
    assert registry.resolve("one", None).ref.version == 2
    assert generations(registry, "one")[1] == before[1]


@pytest.mark.parametrize("changed", ["1/weights.safetensors", "network.py", "model.toml"])
def test_a_changed_file_is_loaded(registry: Registry, root: Path, changed: str) -> None:
    before = generations(registry, "one")
    path = root / "one" / changed
    if path.suffix == ".safetensors":
        add_version(root / "one", 1)
    elif path.suffix == ".py":
        path.write_text(path.read_text() + "# changed\n")
    else:
        path.write_text("passes = 7\n" + path.read_text())
    registry.look()
    assert registry.look()
    assert generations(registry, "one")[1] > before[1]
    if changed == "model.toml":
        assert registry.resolve("one", None).manifest.passes == 7


def test_labels_change_without_loading_anything(registry: Registry, root: Path) -> None:
    add_version(root / "one", 2)
    registry.load("one")
    before = generations(registry, "one")
    manifest = root / "one" / "model.toml"
    manifest.write_text(manifest.read_text() + "\n[serving]\nlabels = { stable = 1 }\n")
    registry.look()
    assert registry.look()
    assert generations(registry, "one") == before
    assert registry.resolve("one", None).ref.version == 1


def test_a_half_copied_version_is_not_broken_for_good(registry: Registry, root: Path) -> None:
    whole = (root / "one" / "1" / "weights.safetensors").read_bytes()
    weights = root / "one" / "2" / "weights.safetensors"
    weights.parent.mkdir()
    for end in (len(whole) // 3, len(whole) // 2):
        # As long as it grows between looks, it is not tried.
        weights.write_bytes(whole[:end])
        assert not registry.look()
        assert 2 not in registry.model("one").versions
    # The copy has stopped half way: tried, broken, and not tried again and again.
    assert registry.look()
    assert registry.model("one").versions[2].state is State.FAILED
    assert registry.resolve("one", None).ref.version == 1
    assert not registry.look()
    weights.write_bytes(whole)
    registry.look()
    assert registry.look()
    assert registry.resolve("one", None).ref.version == 2


def test_a_change_that_breaks_leaves_the_old_serving_with_the_reason(
    registry: Registry, root: Path
) -> None:
    before = registry.resolve("one", None)
    (root / "one" / "network.py").write_text("def build():\n    raise ValueError('no layer')\n")
    registry.look()
    assert registry.look()
    version = registry.model("one").versions[1]
    assert version.state is State.READY
    assert "no layer" in version.reason
    assert registry.resolve("one", None) is before
    assert not registry.look()


def test_what_is_gone_serves_no_more(registry: Registry, root: Path) -> None:
    write_still(root, "two")
    add_version(root / "one", 2)
    registry.load("two")
    registry.load("one")
    shutil.rmtree(root / "two")
    shutil.rmtree(root / "one" / "2")
    registry.look()
    assert registry.look()
    assert [model.name for model in registry.models()] == ["one"]
    assert [*registry.model("one").versions] == [1]


def test_a_repository_that_is_suddenly_empty_or_gone_unloads_nothing(
    registry: Registry, root: Path
) -> None:
    """As when a volume is not mounted for a while."""
    before = registry.resolve("one", None)
    aside = root.with_name(root.name + "-aside")
    root.rename(aside)
    assert not registry.look()
    root.mkdir()
    assert not registry.look()
    assert not registry.look()
    assert registry.resolve("one", None) is before


def test_a_model_that_was_unloaded_on_request_stays_so_when_it_changes(
    registry: Registry, root: Path
) -> None:
    registry.unload("one")
    add_version(root / "one", 2)
    registry.look()
    assert not registry.look()
    assert registry.model("one").state is State.UNLOADED


def test_under_latest_1_the_old_version_goes_once_the_new_one_was_verified(
    registry: Registry, root: Path
) -> None:
    manifest = root / "one" / "model.toml"
    manifest.write_text(manifest.read_text() + '\n[serving]\nversions = "latest 1"\n')
    (root / "one" / "2").mkdir()
    (root / "one" / "2" / "weights.safetensors").write_bytes(b"broken")
    registry.look()
    registry.look()
    states = {v.number: v.state for v in registry.model("one").versions.values()}
    assert states == {1: State.READY, 2: State.FAILED}
    add_version(root / "one", 2)
    registry.look()
    registry.look()
    states = {v.number: v.state for v in registry.model("one").versions.values()}
    assert states == {1: State.UNLOADED, 2: State.READY}
    assert "version policy" in registry.model("one").versions[1].reason


def test_a_version_that_is_a_link_is_taken_up_and_so_is_where_it_leads_next(
    registry: Registry, root: Path
) -> None:
    """As where versions are kept elsewhere in the repository and switched by a link."""
    link = root / "one" / "2"
    for number in (7, 8):
        kept = root / ".kept" / str(number)
        kept.mkdir(parents=True)
        network = build_network(root / "one", seed=number)
        safetensors.torch.save_model(network, str(kept / "weights.safetensors"))
        link.unlink(missing_ok=True)
        link.symlink_to(kept)
        before = registry.resolve("one", None)
        registry.look()
        assert registry.look()
        serving = registry.resolve("one", None)
        assert serving.ref.version == 2
        assert serving is not before
    assert not registry.look()


def test_links_that_lead_in_circles_are_looked_at_once(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "up").symlink_to(tmp_path)
        (tmp_path / name / "other").symlink_to(tmp_path / other)
    paths = {path for path, *_ in signature(tmp_path)}
    assert {"a/other", "b/other"} <= paths
    assert max(len(path.split("/")) for path in paths) == 2


def test_a_folder_of_which_nothing_can_be_seen_keeps_no_other_from_being_taken_up(
    registry: Registry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that belongs to another user, or on a disk that fails."""
    (root / "a").mkdir()
    closed = [str(root / "a"), str(root / "one")]
    before = registry.resolve("one", None)
    write_still(root, "two")
    scandir = os.scandir

    def scan(place: str) -> Iterator[os.DirEntry[str]]:
        if os.fspath(place) in closed:
            raise PermissionError(place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", scan)
    registry.look()
    assert registry.look()
    assert [model.name for model in registry.models()] == ["one", "two"]
    assert registry.resolve("one", None) is before


def test_hidden_files_and_compiled_code_are_no_change(tmp_path: Path) -> None:
    before = signature(tmp_path)
    (tmp_path / ".weights.part").write_text("half")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "network.cpython-311.pyc").write_bytes(b"")
    os.utime(tmp_path)
    assert signature(tmp_path) == before
    assert signature(tmp_path / "nowhere") == frozenset()


def test_reports_are_no_change_and_only_those_of_versions_are_reports(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    before = signature(tmp_path)
    write_report(tmp_path.parent, ModelRef(tmp_path.name, 1), "one", page="<p>")
    assert signature(tmp_path) == before
    # A package that network.py imports, say.
    (tmp_path / "reports").mkdir()
    assert signature(tmp_path) != before
