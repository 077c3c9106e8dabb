"""Picks the device to compute on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from service.errors import InvalidInput
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Resources:
    """What models may use.

    Args:
        device: where they run.
        memory_bytes: budget of the activations and outputs of one chunk.
        noise_bytes: budget of what a model keeps of the noise of its own seed.
        precision: `auto`, `float32` or `bfloat16`.
    """

    device: torch.device
    memory_bytes: int
    noise_bytes: int = 128 * 2**20
    precision: str = "auto"


def resources(settings: Settings) -> Resources:
    """What the settings say.

    Raises:
        InvalidInput: a GPU was asked for that is not there.
    """
    return Resources(
        pick_device(settings.device),
        settings.memory_bytes,
        settings.noise_bytes,
        settings.precision,
    )


def pick_device(wanted: str) -> torch.device:
    """`auto` is the GPU where there is one; `cpu`, `cuda` and `cuda:N` are taken at their word.

    Raises:
        InvalidInput: a GPU was asked for that is not there.
    """
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInput(
                f"CANDOR_DEVICE={wanted}, but PyTorch sees {count} CUDA devices here; use auto or "
                "cpu, or install a CUDA build of PyTorch",
                field="CANDOR_DEVICE",
                received=wanted,
            )
        return torch.device("cuda", device.index or 0)
    return device
