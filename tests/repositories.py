"""Model folders for tests, written to disk as a user would."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import safetensors.torch
import torch

MLP = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))
"""

STILL = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 3))
"""
"""Drops nothing."""

SLOW = """
import time
from torch import nn

class Slow(nn.Sequential):
    def forward(self, x):
        time.sleep(max(0.0, float(x.max())) / 1000)
        return super().forward(x)

def build():
    return Slow(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
"""
"""Sleeps as many milliseconds as the largest input says, whatever the batch."""

FRAGILE = """
from torch import nn

class Fragile(nn.Sequential):
    def forward(self, x):
        if (x > 100).any():
            raise RuntimeError("above one hundred")
        return super().forward(x)

def build():
    return Fragile(nn.Linear(1, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
"""


def write_model(
    root: Path,
    name: str,
    code: str = MLP,
    *,
    task: str = "classification",
    shape: str = "[4]",
    dtype: str = "float32",
    more: str = "",
    version: int = 1,
) -> Path:
    """A complete model folder with random weights (seed 0); returns the folder.

    Args:
        root: the model repository.
        name: of the model.
        code: of network.py, with a function build().
        task: in model.toml.
        shape: in model.toml.
        dtype: in model.toml.
        more: further lines of model.toml, before [input].
        version: number of the version folder.
    """
    folder = root / name
    weights = folder / str(version) / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    (folder / "network.py").write_text(code)
    (folder / "model.toml").write_text(
        f'task = "{task}"\nnetwork = "network.py:build"\n{more}\n'
        f'[input]\nshape = {shape}\ndtype = "{dtype}"\n'
    )
    safetensors.torch.save_model(build_network(folder), str(weights))
    return folder


def write_still(root: Path, name: str) -> Path:
    """A model in which nothing drops; it loads at once, for tests of what is loaded and when."""
    return write_model(root, name, STILL, more="deterministic = true")


def write_members(folder: Path, members: int, version: int = 1) -> list[Path]:
    """Put so many members with random weights (seeds 0, 1, …) in place of the version's weights."""
    (folder / str(version)).mkdir(exist_ok=True)
    (folder / str(version) / "weights.safetensors").unlink(missing_ok=True)
    files = []
    for member in range(members):
        file = folder / str(version) / f"weights-{member + 1}.safetensors"
        safetensors.torch.save_model(build_network(folder, seed=member), str(file))
        files.append(file)
    return files


def write_version(folder: Path, version: int, seed: int) -> Path:
    """A further version of a model, with the random weights of another seed; returns its folder."""
    place = folder / str(version)
    place.mkdir()
    weights = place / "weights.safetensors"
    safetensors.torch.save_model(build_network(folder, seed=seed), str(weights))
    return place


def build_network(folder: Path, seed: int = 0) -> torch.nn.Module:
    """The network of a folder with its random weights, as a plain PyTorch user has it."""
    spec = importlib.util.spec_from_file_location(f"test_{folder.name}", folder / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: torch.nn.Module = module.build()
    return network
