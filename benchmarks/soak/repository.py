"""The models of the soak: those that are shipped, each with two known sets of weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

SHIPPED = Path(__file__).parents[2] / "models"
MODELS = ("breast_cancer", "co2", "digits")
WEIGHTS = ("trained", "disturbed")
"""What a version's file holds by turns: the shipped weights, and others from a seed."""

_FILE = Path("1") / "weights.safetensors"
_DISTURBANCE = 0.2
"""Standard deviation of what is added to a weight, in standard deviations of its tensor."""


class Repository:
    """A model repository whose weights change.

    Args:
        root: an empty folder, of the repository.
        aside: an empty folder, for the weights that are not served now.
        models: which of those that are shipped.
    """

    def __init__(self, root: Path, aside: Path, models: Sequence[str] = MODELS) -> None:
        self.root = root
        self.models = models
        self._aside = aside
        for name in models:
            ignored = shutil.ignore_patterns("__pycache__", "calibration.json")
            shutil.copytree(SHIPPED / name, root / name, ignore=ignored)
            trained = safetensors.torch.load_file(str(root / name / _FILE))
            for weights in WEIGHTS:
                tensors = trained if weights == "trained" else _disturbed(trained)
                safetensors.torch.save_file(tensors, str(self._copy_of(name, weights)))

    def put(self, name: str, weights: str) -> None:
        """Have the model's version 1 hold these weights; readers see the old file or the new."""
        fresh = self.root / name / "fresh"
        shutil.copyfile(self._copy_of(name, weights), fresh)
        os.replace(fresh, self.root / name / _FILE)

    def spoil(self, name: str) -> None:
        """Have the model's version 1 hold half a file."""
        fresh = self.root / name / "fresh"
        content = self._copy_of(name, "trained").read_bytes()
        fresh.write_bytes(content[: len(content) // 2])
        os.replace(fresh, self.root / name / _FILE)

    def _copy_of(self, name: str, weights: str) -> Path:
        return self._aside / f"{name}-{weights}.safetensors"


def _disturbed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def disturbed(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        scale = _DISTURBANCE * (tensor.std() if tensor.numel() > 1 else tensor.abs().mean())
        return tensor + scale * torch.randn(tensor.shape, generator=generator)

    return {name: disturbed(tensor) for name, tensor in tensors.items()}
