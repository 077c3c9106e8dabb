"""A folder becomes a verified model, or a sentence that says why not."""

from __future__ import annotations

import dataclasses
import os
import py_compile
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from service.errors import ModelBroken
from service.inference import tuning
from service.inference.devices import Resources
from service.inference.sampler import Sampler
from service.inference.tuning import Tuned
from service.registry.loading import LoadedModel, build_network, load_version
from service.registry.manifest import read_manifest
from service.types import ModelRef
from tests import repositories
from tests.repositories import write_model

DROPOUT = "nn.Dropout(0.5)"
SIZED = """
from torch import nn

from .sizes import HIDDEN

def build():
    return nn.Sequential(nn.Linear(4, HIDDEN), nn.Dropout(0.5), nn.Linear(HIDDEN, 3))
"""


def load(folder: Path, version: int = 1) -> LoadedModel:
    return load_version(
        folder.parent,
        folder,
        ModelRef(folder.name, version),
        read_manifest(folder),
        Resources(torch.device("cpu"), memory_bytes=2**24),
    )


def network(layers: str) -> str:
    return f"from torch import nn\n\ndef build():\n    return nn.Sequential({layers})\n"


def test_what_is_known_of_a_loaded_model(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, "mine"))
    assert model.parameters == 4 * 32 + 32 + 32 * 3 + 3
    assert model.precision == "float32"
    assert [site.path for site in model.sampler.dropping.sites] == ["2"]


def test_a_network_may_have_files_beside_it_and_models_do_not_see_each_others(
    tmp_path: Path,
) -> None:
    code = SIZED
    for name, hidden in (("a", 5), ("b", 7)):
        folder = write_model(
            tmp_path, name, network(f"nn.Linear(4, {hidden}), {DROPOUT}, nn.Linear({hidden}, 3)")
        )
        (folder / "network.py").write_text(code)
        (folder / "sizes.py").write_text(f"HIDDEN = {hidden}\n")
    sizes = [load(tmp_path / name).parameters for name in ("a", "b", "a")]
    assert sizes == [5 * 5 + 5 * 3 + 3, 7 * 5 + 7 * 3 + 3, 5 * 5 + 5 * 3 + 3]


@pytest.mark.parametrize("changed", ["network.py", "sizes.py", "more/widths.py"])
def test_code_is_what_its_file_says_whatever_python_compiled_before(
    tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files have one time, as in an image that is built reproducibly, and one size."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = write_model(tmp_path, "mine")
    (folder / "more").mkdir()
    files = {
        "network.py": SIZED.replace("HIDDEN, 3)", "HIDDEN, OUT)").replace(
            "def build", "OUT = 5\n\ndef build"
        ),
        "sizes.py": "from .more.widths import WIDTH\n\nHIDDEN = WIDTH + 5\n",
        "more/widths.py": "WIDTH = 5\n",
    }
    for name, code in files.items():
        (folder / name).write_text(code)
        os.utime(folder / name, (1, 1))
        py_compile.compile(str(folder / name))
    file = folder / changed
    file.write_text(file.read_text().replace("5\n", "7\n"))
    os.utime(file, (1, 1))
    built = build_network(folder, read_manifest(folder))
    shapes = [list(parameter.shape) for parameter in built.parameters()]
    hidden, out = (10, 7) if changed == "network.py" else (12, 5)
    assert shapes == [[hidden, 4], [hidden], [out, hidden], [out]]


def test_files_beside_the_network_are_part_of_what_a_calibration_is_made_for(
    tmp_path: Path,
) -> None:
    folder = write_model(tmp_path, "mine")
    code = (folder / "network.py").read_text()
    alone = load(folder).conditions
    (folder / "notes.py").write_text("WORDS = 'of which nothing is imported'\n")
    assert load(folder).conditions == alone
    (folder / "network.py").write_text(code.replace("0.5", "RATE") + "\nfrom .rates import RATE\n")
    conditions = []
    for rate in (0.5, 0.2, 0.5):
        (folder / "rates.py").write_text(f"RATE = {rate}\n")
        conditions.append(load(folder).conditions)
    assert conditions[0] == conditions[2] != conditions[1]


def test_tied_weights_are_read(tmp_path: Path) -> None:
    code = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.drop = nn.Linear(4, 4), nn.Linear(4, 4), nn.Dropout(0.5)
        self.outer.weight = self.inner.weight

    def forward(self, x):
        return self.outer(self.drop(self.inner(x)))

def build():
    return Tied()
"""
    assert load(write_model(tmp_path, "tied", code)).parameters == 16 + 4 + 4


@pytest.mark.parametrize(
    ("layers", "task", "said"),
    [
        (f"{DROPOUT}, nn.Linear(4, 1)", "classification", 'set task = "binary"'),
        (f"{DROPOUT}, nn.Linear(4, 2)", "binary", 'set task = "classification"'),
        (f"{DROPOUT}, nn.Linear(4, 3)", "heteroscedastic_regression", "an even number"),
        (f"{DROPOUT}, nn.Unflatten(1, (2, 2))", "binary", 'set task = "classification"'),
        (f"{DROPOUT}, nn.Flatten(0)", "regression", "for 3 rows the network returned"),
    ],
)
def test_outputs_that_do_not_fit_the_task(
    tmp_path: Path, layers: str, task: str, said: str
) -> None:
    with pytest.raises(ModelBroken) as caught:
        load(write_model(tmp_path, "mine", network(layers), task=task))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("return self.drop(self.line(x)) + torch.rand(1)", "two passes in eval mode differ"),
        ("return {'logits': self.drop(self.line(x))}", "the network returns dict"),
        ("return self.drop(self.line(x)) * float('nan')", "nothing but NaN"),
        ("return self.drop(self.line(x)).to(torch.complex64)", "real floating type"),
        ("raise ValueError('not today')", "ValueError: not today (network.py, line 11)"),
        ("return self.line(self.drop(x)) + torch.randperm(3) * self.training", "aten.randperm"),
    ],
)
def test_forwards_that_cannot_be_served(tmp_path: Path, forward: str, said: str) -> None:
    code = f"""import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.line, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(self, x):
        {forward}


def build():
    return Odd()
"""
    with pytest.raises(ModelBroken) as caught:
        load(write_model(tmp_path, "odd", code))
    assert said in caught.value.message


def test_a_build_that_returns_something_else(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mine")
    (folder / "network.py").write_text("def build():\n    return 3\n")
    with pytest.raises(ModelBroken, match=r"returned int; expected an nn\.Module"):
        load(folder)
    (folder / "network.py").write_text("def build(:\n")
    with pytest.raises(ModelBroken, match="cannot be imported: SyntaxError"):
        load(folder)


def test_versions_have_their_own_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mine")
    with pytest.raises(ModelBroken, match=r"2/weights\.safetensors is missing; save"):
        load(folder, version=2)


class Others:
    """Other processes: what they have measured, and what they are told."""

    def __init__(self) -> None:
        self.told: dict[str, Tuned] = {}
        self.given_up_on: list[str] = []

    def known(self, key: str) -> Tuned | None:
        return self.told.get(key)

    def measured(self, key: str, tuned: Tuned) -> None:
        assert key not in self.told
        self.told[key] = tuned

    def given_up(self, key: str) -> None:
        self.given_up_on.append(key)


def load_beside(others: Others, folder: Path) -> LoadedModel:
    return load_version(
        folder.parent,
        folder,
        ModelRef(folder.name, 1),
        read_manifest(folder),
        Resources(torch.device("cpu"), memory_bytes=2**24, choices=others),
    )


def test_what_one_process_has_measured_another_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = Others()
    folder = write_model(tmp_path, "mine")
    first = load_beside(others, folder)
    [(key, tuned)] = others.told.items()
    assert isinstance(first.sampler, Sampler)
    assert tuned == first.sampler.tuned_as

    def measured_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(tuning, "choose_form", measured_again)
    monkeypatch.setattr(tuning, "time_chunks", measured_again)
    others.told[key] = dataclasses.replace(tuned, chunk=17)
    second = load_beside(others, folder)
    assert isinstance(second.sampler, Sampler)
    assert second.sampler.chunking(torch.zeros(1, 4)).row_passes == 17
    assert second.sampler.strategy == first.sampler.strategy


def test_what_was_measured_of_other_weights_is_another_matter(tmp_path: Path) -> None:
    others = Others()
    folder = write_model(tmp_path, "mine")
    load_beside(others, folder)
    file = folder / "1" / "weights.safetensors"
    safetensors.torch.save_model(repositories.build_network(folder, seed=1), str(file))
    load_beside(others, folder)
    assert len(others.told) == 2


def test_who_cannot_load_it_after_all_lets_others_measure(tmp_path: Path) -> None:
    others = Others()
    folder = write_model(tmp_path, "mine")
    (folder / "network.py").write_text("def build():\n    raise ValueError('no such layer')\n")
    with pytest.raises(ModelBroken, match="no such layer"):
        load_beside(others, folder)
    assert not others.told
    assert len(others.given_up_on) == 1
    (folder / "network.py").unlink()
    with pytest.raises(ModelBroken, match=r"network\.py is missing"):
        load_beside(others, folder)
    assert len(others.given_up_on) == 1
