"""A version may be several members; what does not fit together is told by the name of its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from service.errors import ModelBroken, NoStochasticSite
from service.inference.prediction import Request
from service.inference.sampler import Sampler
from service.registry.export import export_archive
from service.registry.loading import LoadedModel
from service.registry.members import member_files
from service.types import Masks, SamplePlan
from tests.registry.test_loading import load, network
from tests.repositories import build_network, write_members, write_model

INPUTS = torch.linspace(-1, 1, 12).reshape(3, 4)
PLAIN = network("nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)")


def folder_of(tmp_path: Path, members: int, more: str = "passes = 12") -> Path:
    folder = write_model(tmp_path, "mine", more=more)
    write_members(folder, members)
    return folder


def mean_of(model: LoadedModel, passes: int) -> Any:
    request = Request(INPUTS, SamplePlan(passes, 0, Masks.SHARED), ["mean"])
    [answer] = model.predict([request])
    assert answer is not None
    return answer["mean"]


def test_members_are_one_model(tmp_path: Path) -> None:
    single = load(write_model(tmp_path, "single"))
    model = load(folder_of(tmp_path, 3))
    assert (single.sampler.members, model.sampler.members) == (1, 3)
    assert model.parameters == 3 * single.parameters
    assert model.sampler.dropping.sites == single.sampler.dropping.sites
    assert model.warnings == ()
    with torch.no_grad():
        probs = [build_network(tmp_path / "mine", m).eval()(INPUTS).softmax(-1) for m in range(3)]
    evaluated: Any = model.evaluate(INPUTS)["mean"]
    np.testing.assert_allclose(evaluated, torch.stack(probs).mean(0), rtol=0, atol=1e-6)
    assert np.abs(mean_of(model, 3000) - mean_of(single, 3000)).max() > 0.02
    np.testing.assert_array_equal(mean_of(model, 7), mean_of(load(tmp_path / "mine"), 7))


def test_members_share_what_one_network_would_have(tmp_path: Path) -> None:
    single = load(write_model(tmp_path, "single")).sampler
    ensemble: Any = load(folder_of(tmp_path, 4)).sampler
    assert isinstance(single, Sampler)
    assert [s.memory_bytes for s in ensemble._samplers] == [single.memory_bytes // 4] * 4


def test_one_numbered_file_is_one_network(tmp_path: Path) -> None:
    model = load(folder_of(tmp_path, 1))
    assert isinstance(model.sampler, Sampler)
    single = load(write_model(tmp_path, "single"))
    np.testing.assert_array_equal(mean_of(model, 5), mean_of(single, 5))


def test_more_than_nine_members_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / f"weights-{number}.safetensors").touch()
    (tmp_path / "weights-best.safetensors").touch()
    names = [path.name for path in member_files(tmp_path)]
    assert names == [f"weights-{number}.safetensors" for number in range(1, 12)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("weights-1.safetensors", "weights-3.safetensors"), r"weights-2\.safetensors is missing"),
        (("weights-2.safetensors",), r"weights-1\.safetensors is missing, and there is weights-2"),
        (("weights-0.safetensors",), r"no number that a member may have; they are weights-1"),
        (("weights-01.safetensors",), r"no number that a member may have"),
        (
            ("weights.safetensors", "weights-1.safetensors"),
            r"holds weights-1\.safetensors and weights\.safetensors",
        ),
        (("model.pt2", "weights-1.safetensors"), r"holds weights-1\.safetensors and model\.pt2"),
        (("model-1.pt2", "weights-1.safetensors"), r"holds model-1\.pt2 and weights-1"),
    ],
)
def test_files_that_do_not_go_together(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ModelBroken, match=said):
        member_files(tmp_path)


def test_a_member_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 3)
    other = nn.Sequential(nn.Linear(5, 3))
    safetensors.torch.save_model(other, str(folder / "1" / "weights-2.safetensors"))
    with pytest.raises(ModelBroken, match=r"weights-2\.safetensors does not fit the network"):
        load(folder)
    broken = build_network(folder)
    for parameter in broken.parameters():
        parameter.data.fill_(float("nan"))
    safetensors.torch.save_model(broken, str(folder / "1" / "weights-2.safetensors"))
    with pytest.raises(ModelBroken, match=r"^weights-2\.safetensors: .* nothing but NaN"):
        load(folder)


def test_members_in_which_nothing_drops_need_a_word_and_run_once_each(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "plain", PLAIN)
    write_members(folder, 4)
    with pytest.raises(NoStochasticSite, match=r"^weights-1\.safetensors: no dropout was found"):
        load(folder)
    meant = write_model(tmp_path, "meant", PLAIN, more="deterministic = true")
    write_members(meant, 4)
    model = load(meant)
    assert model.manifest.passes == 4
    assert "nothing drops in the 4 members" in model.warnings[0]
    evaluated: Any = model.evaluate(INPUTS)["mean"]
    for passes in (4, 8):
        np.testing.assert_allclose(mean_of(model, passes), evaluated, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        (2, "the last 1, from weights-3.safetensors on, are not asked"),
        (10, "the first 1 count once more"),
    ],
)
def test_passes_that_do_not_suit_the_members_are_warned_of(
    tmp_path: Path, passes: int, said: str
) -> None:
    [warning] = load(folder_of(tmp_path, 3, more=f"passes = {passes}")).warnings
    assert said in warning


def test_archives_may_be_members(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 2)
    expected = mean_of(load(folder), 9)
    with pytest.raises(ModelBroken, match=r"1 has 2 members, .* from 1 to 2 with --member"):
        export_archive(folder, None, tmp_path / "x.pt2")
    (folder / "2").mkdir()
    for member in (1, 2):
        export_archive(folder, 1, folder / "2" / f"model-{member}.pt2", member)
    archived = load(folder, version=2)
    assert archived.sampler.members == 2
    np.testing.assert_allclose(mean_of(archived, 9), expected, rtol=0, atol=1e-5)


def test_archives_of_other_architectures_are_told_apart(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 1)
    layers = "nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3)"
    wider = write_model(tmp_path, "wider", network(layers))
    (folder / "2").mkdir()
    export_archive(folder, 1, folder / "2" / "model-1.pt2")
    export_archive(wider, 1, folder / "2" / "model-2.pt2")
    with pytest.raises(ModelBroken, match=r"^model-2\.pt2: its weights have other names or shapes"):
        load(folder, version=2)


def test_a_link_that_leaves_the_repository_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "mine")
    files = write_members(folder, 2)
    files[1].rename(tmp_path / "outside.safetensors")
    files[1].symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(ModelBroken, match="leads out of"):
        load(folder)
