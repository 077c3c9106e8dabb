"""Picks the device to compute on."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from service.errors import InvalidInput
from service.inference.kept_choices import KeptChoices
from service.inference.tuning import Choices
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Resources:
    """What models may use.

    Args:
        device: where they run.
        memory_bytes: budget of the activations and outputs of one chunk.
        noise_bytes: budget of what a model keeps of the noise of its own seed.
        precision: `auto`, `float32` or `bfloat16`.
        choices: of other processes, or of earlier ones, as which this one is to compute; None
            where it measures for itself.
    """

    device: torch.device
    memory_bytes: int
    noise_bytes: int = 128 * 2**20
    precision: str = "auto"
    choices: Choices | None = None


def resources(settings: Settings, choices: Choices | None = None) -> Resources:
    """What the settings say.

    Raises:
        InvalidInput: a GPU was asked for that is not there, or a folder that cannot be made.
    """
    if settings.tuning is not None:
        choices = KeptChoices(settings.tuning, choices)
    return Resources(
        pick_device(settings.device),
        settings.memory_bytes,
        settings.noise_bytes,
        settings.precision,
        choices,
    )


def described(device: torch.device) -> str:
    """The device with all else of this machine that decides what is fastest on it, and rounding."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


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
