"""Versions and data that tests of the assessment share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality import MODELS, held_out
from service.assessment.data import Labelled
from service.inference.devices import Resources
from service.registry.loading import LoadedModel, load_version
from service.registry.manifest import read_manifest
from service.types import ModelRef

Array = NDArray[np.generic]

LINE = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))
"""


def load(folder: Path, version: int = 1) -> LoadedModel:
    """A version of a model's folder, on the CPU."""
    return load_version(
        folder.parent,
        folder,
        ModelRef(folder.name, version),
        read_manifest(folder),
        Resources(torch.device("cpu"), memory_bytes=2**26, precision="float32"),
    )


def shipped(name: str) -> LoadedModel:
    """One of the models in models/."""
    return load(MODELS / name)


def labelled(inputs: Array, targets: Array) -> Labelled:
    """Rows as `read_labelled` gives them."""
    return Labelled(inputs, "0" * 64, "rows.npz", targets)


def some(data: Labelled, rows: Array) -> Labelled:
    """Some of the rows."""
    return labelled(data.inputs[rows], data.targets[rows])


def held_out_digits() -> Labelled:
    """450 digits that the shipped model never saw."""
    x, y = held_out("digits")
    return labelled(x, y.astype(np.int64))
